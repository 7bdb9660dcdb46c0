"""Threshold moving against ERM's probabilities over the prior, and its effect on classes of different size."""

import numpy as np
import pytest
import torch
from imbalance import assert_balances_classes, imbalanced_task, session_of
from toys import assert_same_bits

from unrote.errors import OptionError
from unrote.methods import METHODS, Method, Session
from unrote.models import ModuleStack, StackedLinear, stack_builder
from unrote.training import Recipe


def method(tau: float = 1.0) -> Method:
    return METHODS["threshold_moving"](tau=tau)  # type: ignore[call-arg]


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_predicts_the_largest_probability_over_the_prior(model: str, tau: float) -> None:
    task = imbalanced_task()
    build = stack_builder(model, task.train.x.shape, 2)
    session = Session(task, build, Recipe("adam", 0.01, epochs=3))
    assert task.test is not None
    p = METHODS["erm"]().fit(session).logits(task.test.x).softmax(-1).numpy()
    wanted = (p / np.array([[0.9, 0.1]]) ** tau).argmax(1)
    assert method(tau).fit(session).predict(task.test.x).tolist() == wanted.tolist()


def test_tau_0_is_erm_to_the_bit() -> None:
    found, wanted = (m.fit(session_of(imbalanced_task())) for m in (method(0.0), METHODS["erm"]()))
    assert_same_bits(found.stack.state_dict(), wanted.stack.state_dict())


def test_a_head_without_bias_is_given_one() -> None:
    task = imbalanced_task()
    for build in (
        lambda seeds: StackedLinear(4, 2, seeds, bias=False),
        lambda seeds: ModuleStack(lambda: torch.nn.Linear(4, 2, bias=False), 2, seeds),
    ):
        fitted = method().fit(Session(task, build, Recipe("adam", 0.01, epochs=1)))
        torch.testing.assert_close(fitted.stack.head()[1], -torch.tensor([0.9, 0.1]).log())


def test_refuses_a_tau_out_of_range() -> None:
    with pytest.raises(OptionError, match="tau=-1"):
        method(-1)


def test_balances_classes() -> None:
    assert_balances_classes("threshold_moving")
