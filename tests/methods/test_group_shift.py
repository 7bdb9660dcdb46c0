"""The exact shift against counts, its limit without a shortcut, and its effect on the minority."""

import numpy as np
import pytest
import torch
from imbalance import session_of
from toys import minority_accuracy, planted_task

from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, GroupSource, SupervisionMethod

Y = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
A = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def shift_of(y: torch.Tensor, attribute: torch.Tensor, name: str = "group_shift") -> torch.Tensor:
    task = Task("groups", train=Split(torch.zeros(len(y), 2), y, attribute))
    method = METHODS[name]()
    assert isinstance(method, SupervisionMethod)
    supervision = method.supervision(session_of(task))
    assert supervision.weight is None
    assert supervision.shift is not None
    return supervision.shift


def test_is_the_log_share_of_each_class_at_the_examples_attribute() -> None:
    wanted = np.log(np.where(A.numpy()[:, None] == 0, [[3 / 4, 1 / 4]], [[1 / 4, 3 / 4]]))
    np.testing.assert_allclose(shift_of(Y, A), wanted, rtol=1e-5)


def test_a_group_that_nobody_has_is_floored() -> None:
    found = shift_of(Y, Y)
    np.testing.assert_allclose(found[torch.arange(8), Y], np.log(1 + 1e-6), atol=1e-6)
    np.testing.assert_allclose(found[torch.arange(8), 1 - Y], np.log(1e-6), rtol=1e-4)


def test_an_attribute_that_all_share_gives_logit_adjustment() -> None:
    y = torch.tensor([0, 0, 0, 1])
    found = shift_of(y, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(found, shift_of(y, y, "logit_adjustment"), rtol=1e-5, atol=1e-5)


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("group_shift", 0) > minority_accuracy("erm", 0) + 0.4


@pytest.mark.parametrize("groups", ["xrm", "eiil"])
def test_refuses_inferred_groups_and_says_why(groups: GroupSource) -> None:
    session = session_of(planted_task().for_regime("none"), groups=groups)
    with pytest.raises(OptionError, match=r"not which attribute .* use method 'mat'"):
        METHODS["group_shift"]().fit(session)
    assert session.artefacts == {}
