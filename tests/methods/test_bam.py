"""BAM: the joint training of model and auxiliary logits against plain torch, and the shortcut overcome."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from toys import assert_same_bits, planted_task, worst_on_digits

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.bam import BAM, AmplifiedObjective
from unrote.models import StackedLinear
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train

TASK = planted_task(64)
X, Y = TASK.train.x[torch.arange(64)], TASK.train.y


def session(epochs: int = 20, **options: object) -> Session:
    recipe = Recipe("adam", 0.03, batch_size=16, epochs=epochs)
    return Session(TASK, lambda seeds: StackedLinear(8, 2, seeds), recipe, **options)  # type: ignore[arg-type]


def test_trains_model_and_auxiliary_logits_together() -> None:
    """Five steps of gradient descent on all examples, by autograd."""
    amplification, rate = 3.0, 0.2
    stack = StackedLinear(8, 2)
    weight, bias = (part.clone().requires_grad_() for part in stack.head())
    auxiliary = torch.zeros(64, 2, requires_grad=True)
    for _ in range(5):
        loss = F.cross_entropy(X @ weight.T + bias + amplification * auxiliary, Y)
        gradients = torch.autograd.grad(loss, (weight, bias, auxiliary))
        with torch.no_grad():
            for value, gradient in zip((weight, bias, auxiliary), gradients, strict=True):
                value -= rate * gradient
    objective = AmplifiedObjective(Y, 2, amplification)
    train(stack, X, objective, Recipe("sgd", rate, momentum=0.0, batch_size=None, steps=5))
    torch.testing.assert_close(objective.auxiliary[0], auxiliary)
    torch.testing.assert_close(stack.head()[0], weight)


def test_exceptions_are_memorized_the_most() -> None:
    fitted = BAM(amplification=5.0, share=1.0).fit(session())
    memorization = fitted.artefacts["memorization"]
    own = memorization.gather(1, Y.unsqueeze(1)).squeeze(1) - memorization.gather(
        1, 1 - Y.unsqueeze(1)
    ).squeeze(1)
    exception = TASK.train.attribute != Y
    assert float(own[exception].mean()) > 1.3 * float(own[~exception].mean())
    assert bool((own > 0).all())


@pytest.mark.filterwarnings("ignore:the biased model is right")
def test_amplification_keeps_exceptions_wrong_for_longer() -> None:
    found = [
        int(BAM(amplification=amplification, share=1.0).fit(session(60)).artefacts["mistakes"].sum())
        for amplification in (0.5, 20.0)
    ]
    assert found[0] < found[1] == int((TASK.train.attribute != Y).sum())


def test_goes_on_with_the_same_model() -> None:
    """Without amplification and with equal weights it is ERM, and ERM once more from where that ended."""
    twice = BAM(amplification=0.0, share=1.0, upweight=1.0).fit(session(4))
    assert not twice.artefacts["memorization"].any()
    run, objective = session(4), Supervised(Supervision(Y, torch.ones(64)))
    once = run.train(objective, stage="amplified").stack
    again = run.train(objective, start=once).stack
    torch.testing.assert_close(dict(twice.stack.state_dict()), dict(again.state_dict()))


def test_no_mistake_is_said_to_be() -> None:
    with pytest.warns(UserWarning, match="raise BAM's amplification, now 0"):
        BAM(amplification=0.0, share=1.0).fit(session(200))


def test_resumes_with_the_auxiliary_logits(tmp_path: Path) -> None:
    """The first stage is done and read back: its mistakes and scores are the same."""
    options = {"checkpoint_folder": tmp_path, "checkpoint_every": 5}
    first, again = (BAM(share=1.0).fit(session(**options)) for _ in range(2))
    assert torch.equal(first.artefacts["memorization"], again.artefacts["memorization"])
    assert_same_bits(first.stack.state_dict(), again.stack.state_dict())


@pytest.mark.parametrize("settings", [{"amplification": -1.0}, {"share": 1.5}, {"upweight": 0.0}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        BAM(**settings)


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("bam") > worst_on_digits("erm") + 0.2
