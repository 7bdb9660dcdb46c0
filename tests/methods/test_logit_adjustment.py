"""Logit adjustment's shift against counts, its limit ERM, and its effect on classes of different size."""

import numpy as np
import pytest
import torch
from imbalance import assert_balances_classes, imbalanced_task, session_of
from toys import assert_same_bits

from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, SupervisionMethod

Y = [0, 0, 0, 0, 0, 1, 1, 2]


def shift_of(tau: float, names: tuple[str, ...] = ()) -> torch.Tensor:
    method = METHODS["logit_adjustment"](tau=tau)  # type: ignore[call-arg]
    assert isinstance(method, SupervisionMethod)
    task = Task("classes", train=Split(torch.zeros(8, 2), Y), class_names=names)
    shift = method.supervision(session_of(task)).shift
    assert shift is not None
    return shift


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_everybodys_shift_is_tau_times_the_log_prior(tau: float) -> None:
    wanted = np.broadcast_to(tau * np.log([5 / 8, 2 / 8, 1 / 8]), (8, 3))
    np.testing.assert_allclose(shift_of(tau), wanted, rtol=1e-6)


def test_a_class_that_nobody_has_is_no_more_likely_than_the_largest() -> None:
    shift = shift_of(1.0, ("a", "b", "c", "d"))
    assert shift[0, 3] == shift[0].max()


def test_tau_0_is_erm_to_the_bit() -> None:
    found = METHODS["logit_adjustment"](tau=0.0).fit(session_of(imbalanced_task()))  # type: ignore[call-arg]
    wanted = METHODS["erm"]().fit(session_of(imbalanced_task()))
    assert_same_bits(found.stack.state_dict(), wanted.stack.state_dict())


@pytest.mark.parametrize("tau", [-0.1, float("nan"), float("inf")])
def test_refuses_a_tau_out_of_range(tau: float) -> None:
    with pytest.raises(OptionError, match=r"tau=.* at least 0"):
        shift_of(tau)


def test_balances_classes() -> None:
    assert_balances_classes("logit_adjustment")
