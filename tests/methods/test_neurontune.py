"""NeuronTune: scores by numpy, silenced features by hand, the refitted head, a planted glare overcome."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, Session
from unrote.methods.neurontune import NeuronTune, biased_features, spuriousness
from unrote.models import StackedLinear
from unrote.training import Recipe


def test_scores_are_differences_of_medians() -> None:
    random = np.random.default_rng(0)
    x, y, right = random.normal(size=(40, 3)), random.integers(0, 3, 40), random.random(40) < 0.6
    right[y == 2] = True  # a class without mistakes has no score
    found = spuriousness(torch.tensor(x), torch.tensor(y), torch.tensor(right), 4).numpy()
    for c in (0, 1):
        wanted = np.median(x[(y == c) & ~right], axis=0) - np.median(x[(y == c) & right], axis=0)
        np.testing.assert_allclose(found[c], wanted)
    assert np.isnan(found[2:]).all()


def test_a_feature_is_biased_if_every_class_that_has_scores_says_so() -> None:
    nan = float("nan")
    score = torch.tensor([[1.0, 1.0, -1.0, 0.0], [nan, nan, nan, nan], [2.0, -2.0, -1.0, 3.0]])
    assert biased_features(score, 0.0).tolist() == [True, False, False, False]
    assert biased_features(score, 1.0).tolist() == [False] * 4
    assert biased_features(score[:2], 0.0).tolist() == [True, True, False, False]
    assert biased_features(score[1:2], 0.0).tolist() == [False] * 4


def glare(n: int, seed: int, everywhere: bool) -> Split:
    """Three classes by one feature each; class 2 always has a glare, the others now and then, or half the time."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    has = (y == 2) | (torch.rand(n, generator=random) < (0.5 if everywhere else 0.05))
    core = 0.5 * F.one_hot(y, 3) + 0.15 * torch.randn(n, 3, generator=random)
    return Split(torch.cat([core, 6.0 * has.float().unsqueeze(1)], dim=1), y, has.long())


def glare_session() -> Session:
    task = Task(
        "glare", train=glare(600, 0, False), validation=glare(600, 1, False), test=glare(600, 2, True)
    )
    recipe = Recipe("adam", 0.01, batch_size=64, epochs=10)
    return Session(task.for_regime("none"), lambda s: StackedLinear(4, 3, s), recipe)


def test_the_head_is_blind_to_biased_features_and_minimises_the_balanced_loss() -> None:
    run = glare_session()
    fitted = NeuronTune(penalty=0.01).fit(run)
    kept = ~fitted.artefacts["biased_features"]
    assert 0 < int(kept.sum()) < 4
    assert not bool(kept[3])  # the glare
    head, bias = (v.double().requires_grad_() for v in fitted.stack.head())
    assert not bool(head[:, ~kept].any())
    erm = run.erm().stack
    x = erm.predict_features(run.task.train.x)[0].double() * kept
    each = F.cross_entropy(x @ head.T + bias, run.y, reduction="none")
    loss = torch.stack([each[run.y == c].mean() for c in range(3)]).mean()
    away = (head - erm.head()[0] * kept).square().sum() + (bias - erm.head()[1]).square().sum()
    (loss + 0.01 * away).backward()
    assert head.grad is not None
    assert float(head.grad.abs().max()) < 1e-4
    erm_right = erm.predict(run.validation.x)[0].argmax(1) == run.validation.y
    score = spuriousness(erm.predict_features(run.validation.x)[0].double(), run.validation.y, erm_right, 3)
    assert fitted.artefacts["fitness"] == pytest.approx(float(score.nan_to_num().abs().sum()))


def test_a_feature_that_is_high_on_the_mistakes_is_silenced() -> None:
    test, accuracy = glare(600, 2, True), {}
    for name in ("erm", "neurontune"):
        right = METHODS[name]().fit(glare_session()).predict(test.x) == test.y
        accuracy[name] = float(right[(test.y < 2) & (test.attribute == 1)].double().mean())
    assert accuracy["erm"] < 0.2
    assert accuracy["neurontune"] > 0.8


def test_a_model_without_mistakes_is_said_to_be() -> None:
    y = torch.arange(40) % 2
    x = torch.stack([y - 0.5, 0.5 - y], dim=1).float()
    task = Task("easy", train=Split(x, y), validation=Split(x, y))
    recipe = Recipe("adam", 0.1, batch_size=20, epochs=20)
    with pytest.warns(UserWarning, match="right about all held-out examples"):
        fitted = NeuronTune().fit(Session(task, lambda s: StackedLinear(2, 2, s), recipe))
    assert torch.equal(fitted.predict(x), y)
    assert fitted.artefacts["fitness"] == 0.0


def test_nothing_left_is_refused() -> None:
    """One feature, high on every mistake."""
    x = torch.tensor([0.0, 1.0, 5.0, 5.0] * 10).unsqueeze(1)
    y = torch.tensor([0, 0, 1, 1] * 10)
    task = Task("blind", train=Split(x, y), validation=Split(x, torch.tensor([0, 0, 1, 0] * 10)))
    recipe = Recipe("adam", 0.1, batch_size=20, epochs=20)
    with pytest.raises(OptionError, match=r"every feature counts as biased.*raise threshold="):
        NeuronTune().fit(Session(task, lambda s: StackedLinear(1, 2, s), recipe))


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("settings", [{"threshold": -1.0}, {"penalty": 0.0}, {"share": 1.0}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        NeuronTune(**settings)  # type: ignore[arg-type]
