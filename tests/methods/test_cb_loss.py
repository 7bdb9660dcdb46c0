"""CBLoss's weights against the paper's formula, its limits, and its effect on classes of different size."""

import numpy as np
import pytest
import torch
from imbalance import assert_balances_classes, session_of

from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, SupervisionMethod

Y = [0] * 60 + [1] * 9 + [3]  # nobody has class 2


def weights(volume: float) -> torch.Tensor:
    method = METHODS["cb_loss"](volume=volume)  # type: ignore[call-arg]
    assert isinstance(method, SupervisionMethod)
    weight = method.supervision(session_of(Task("t", train=Split(torch.zeros(70, 2), Y)))).weight
    assert weight is not None
    return weight


@pytest.mark.parametrize("volume", [2.0, 100.0, 1e4])
def test_are_the_inverse_effective_sizes_scaled_to_sum_to_the_number_of_classes(volume: float) -> None:
    beta, size = 1 - 1 / volume, np.array([60, 9, 1])
    by_class = (1 - beta) / (1 - beta**size)
    by_class *= 3 / by_class.sum()
    wanted = np.repeat(by_class, size)
    np.testing.assert_allclose(weights(volume), wanted, rtol=1e-5)


def test_volume_1_is_erm() -> None:
    assert weights(1.0).tolist() == [1.0] * 70


def test_a_volume_without_end_is_rwy() -> None:
    method = METHODS["rwy"]()
    assert isinstance(method, SupervisionMethod)
    rwy = method.supervision(session_of(Task("t", train=Split(torch.zeros(70, 2), Y)))).weight
    assert rwy is not None
    found = weights(1e12)
    torch.testing.assert_close(found / found.mean(), rwy, rtol=1e-5, atol=0)


def test_refuses_a_volume_below_1() -> None:
    with pytest.raises(OptionError, match=r"volume=0.9: at least 1"):
        weights(0.9)


def test_balances_classes() -> None:
    assert_balances_classes("cb_loss")
