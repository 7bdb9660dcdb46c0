"""JTT: the scout's mistakes count more, an empty error set is said to be, and the shortcut is overcome."""

import pytest
import torch
from toys import planted_task, worst_on_digits

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.jtt import JTT
from unrote.models import StackedLinear
from unrote.training import Recipe

TASK = planted_task(64)


def session(epochs: int = 10) -> Session:
    return Session(
        TASK, lambda seeds: StackedLinear(8, 2, seeds), Recipe("adam", 0.03, batch_size=16, epochs=epochs)
    )


def test_weights_are_the_scouts_mistakes_upweighted() -> None:
    """The scout of a fifth of 10 epochs is trained here once more, by hand."""
    run = session()
    supervision = JTT(share=0.2, upweight=7.0).supervision(run)
    scout = run.artefacts["erm-0.2"].stack
    weight, bias = scout.head()
    predicted = (TASK.train.x[torch.arange(64)] @ weight.T + bias).argmax(1)
    wrong = predicted != TASK.train.y
    assert 0 < int(wrong.sum()) < 64
    assert supervision.weight is not None
    assert supervision.weight.tolist() == [7.0 if w else 1.0 for w in wrong.tolist()]
    assert supervision.shift is None
    assert torch.equal(run.artefacts["mistakes"], wrong)


def test_a_scout_without_mistakes_makes_erm_and_says_so() -> None:
    run = session(epochs=200)
    with pytest.warns(UserWarning, match="right about all 64 .* lower JTT's share, now 1"):
        supervision = JTT(share=1.0).supervision(run)
    assert supervision.weight is not None
    assert supervision.weight.tolist() == [1.0] * 64


def test_upweight_one_is_erm() -> None:
    supervision = JTT(share=0.2, upweight=1.0).supervision(session())
    assert supervision.weight is not None
    assert supervision.weight.tolist() == [1.0] * 64


@pytest.mark.parametrize("settings", [{"upweight": 0.5}, {"share": 1.5}, {"share": -0.1}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        JTT(**settings)


def test_refuses_a_scout_that_never_trains() -> None:
    with pytest.raises(OptionError, match="a share of 0"):
        JTT(share=0.0).supervision(session())


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("jtt") > worst_on_digits("erm") + 0.2
