"""FG-CCDB: weights in exact arithmetic and by what they balance, the biased models, and the shortcut overcome."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import planted_task, worst_on_digits

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.fg_ccdb import FGCCDB, balancing_weight, surest
from unrote.models import StackedLinear
from unrote.training import Recipe

TASK = planted_task(64)


def session() -> Session:
    return Session(
        TASK, lambda seeds: StackedLinear(8, 2, seeds), Recipe("adam", 0.03, batch_size=16, epochs=20)
    )


def test_weights_in_exact_arithmetic() -> None:
    """19 of 20 examples of class 0 are said to be 0, 6 of 10 of class 1 to be 1."""
    y = torch.tensor([0] * 20 + [1] * 10)
    guess = torch.tensor([0] * 19 + [1] + [0] * 4 + [1] * 6)
    said = [Fraction(23, 30), Fraction(7, 30)]
    size = {(0, 0): 19, (1, 0): 1, (0, 1): 4, (1, 1): 6}
    each = [said[s] / size[s, c] for s, c in zip(guess.tolist(), y.tolist(), strict=True)]
    wanted = [float(w * 30 / sum(each)) for w in each]
    np.testing.assert_allclose(balancing_weight(guess, y), wanted, rtol=1e-6)
    # as published: P(s) / P(s | y) / M, each class made to count the same
    share = {cell: Fraction(n, 20 if cell[1] == 0 else 10) for cell, n in size.items()}
    cells = {(s, c): said[s] / share[s, c] / size[s, c] for s, c in size}
    mass = [sum(cells[s, c] * size[s, c] for s in range(2)) for c in range(2)]
    each = [cells[s, c] / mass[c] for s, c in zip(guess.tolist(), y.tolist(), strict=True)]
    wanted = [float(w * 30 / sum(each)) for w in each]
    np.testing.assert_allclose(balancing_weight(guess, y, overshoot=True), wanted, rtol=1e-6)


@given(st.integers(0, 2**32), st.integers(2, 4), st.booleans())
def test_the_guess_becomes_independent_of_the_class(seed: int, n_classes: int, counted: bool) -> None:
    """Where every cell has an example: P_w(s, y) = P(s) / C."""
    random = np.random.default_rng(seed)
    cells = np.array([(s, c) for s in range(n_classes) for c in range(n_classes)])
    drawn = np.concatenate([cells, cells[random.integers(len(cells), size=30)]])
    count = random.uniform(0.5, 2.0, size=len(drawn)) if counted else np.ones(len(drawn))
    guess, y = torch.from_numpy(drawn[:, 0]), torch.from_numpy(drawn[:, 1])
    found = balancing_weight(guess, y, count=torch.from_numpy(count).float() if counted else None)
    weight = found.double().numpy() * count
    for s in range(n_classes):
        said = count[drawn[:, 0] == s].sum() / count.sum()
        for c in range(n_classes):
            mass = weight[(drawn == (s, c)).all(1)].sum() / weight.sum()
            assert mass == pytest.approx(said / n_classes, rel=1e-4)


def test_an_exception_in_twenty_weighs_19_times_or_as_published_361_times() -> None:
    y = torch.arange(200) % 2
    guess = torch.where(torch.arange(200) < 190, y, 1 - y)
    for overshoot, ratio in ((False, 19.0), (True, 361.0)):
        weight = balancing_weight(guess, y, overshoot=overshoot)
        assert float(weight[199] / weight[0]) == pytest.approx(ratio, rel=1e-5)


def test_a_cell_without_examples_and_a_class_with_one_divide_nothing() -> None:
    weight = balancing_weight(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 2]))
    assert bool(torch.isfinite(weight).all())
    assert float(weight[0] + weight[1]) == pytest.approx(float(weight[2])) == pytest.approx(float(weight[3]))


def test_surest_keeps_a_share_of_each_class() -> None:
    p = torch.tensor([0.9, 0.1, 0.5, 0.7, 0.2, 0.8, 0.3])
    y = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    assert surest(p, y, 0.5).tolist() == [1, 0, 0, 1, 0, 1, 1]  # of class 2 the only one


def test_biased_models_find_the_attribute_and_drop_its_exceptions() -> None:
    run = session()
    supervision = FGCCDB(share=0.3).supervision(run)
    guess = run.artefacts["guess"]
    assert float((guess == TASK.train.attribute).double().mean()) > 0.95
    assert supervision.weight is not None
    torch.testing.assert_close(supervision.weight, balancing_weight(guess, TASK.train.y))
    exception = TASK.train.attribute != TASK.train.y
    assert float(supervision.weight[exception].mean()) > 3 * float(supervision.weight[~exception].mean())


def test_takes_held_out_logits_in_place_of_the_biased_model() -> None:
    """MAT's resampling twin: both read the same confusion of held-out guess and label."""
    guess = torch.arange(64) % 2
    guess[:10] = 1 - guess[:10]
    run = session()
    supervision = FGCCDB(guess=4.0 * torch.eye(2)[guess]).supervision(run)
    assert torch.equal(run.artefacts["guess"], guess)
    assert supervision.weight is not None
    torch.testing.assert_close(supervision.weight, balancing_weight(guess, TASK.train.y))
    assert "biased-0" not in run.artefacts


def test_a_guess_that_is_always_right_makes_weights_by_class_and_is_said_to_be() -> None:
    y = torch.tensor([0, 0, 0, 1])
    assert balancing_weight(y, y).tolist() == pytest.approx([2 / 3] * 3 + [2.0])
    with pytest.warns(UserWarning, match="lower FG-CCDB's share"):
        FGCCDB(guess=torch.eye(2)[TASK.train.y]).supervision(session())


@pytest.mark.parametrize("settings", [{"share": 0.0}, {"kept": 1.5}, {"rounds": -1}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        FGCCDB(**settings)  # type: ignore[arg-type]


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("fg_ccdb") > worst_on_digits("erm") + 0.2
