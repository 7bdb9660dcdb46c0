"""RWY's weights against counts, and its effect on classes of different size."""

import torch
from imbalance import assert_balances_classes, session_of

from unrote.data import Split, Task
from unrote.methods import METHODS, SupervisionMethod


def weight_of(y: torch.Tensor, n_classes: int = 3) -> torch.Tensor:
    names = tuple(map(str, range(n_classes)))
    task = Task("classes", train=Split(torch.zeros(len(y), 2), y), class_names=names)
    method = METHODS["rwy"]()
    assert isinstance(method, SupervisionMethod)
    supervision = method.supervision(session_of(task))
    assert supervision.shift is None
    assert supervision.weight is not None
    return supervision.weight


def test_each_class_counts_the_same_even_one_of_a_single_example() -> None:
    found = weight_of(torch.tensor([0, 0, 1, 0, 2, 2]))
    torch.testing.assert_close(found, torch.tensor([2 / 3, 2 / 3, 2.0, 2 / 3, 1.0, 1.0]))


def test_a_class_that_nobody_has_is_left_out() -> None:
    torch.testing.assert_close(weight_of(torch.tensor([0, 0, 2])), torch.tensor([0.75, 0.75, 1.5]))


def test_classes_of_one_size_are_erm() -> None:
    assert weight_of(torch.tensor([0, 2, 1])).tolist() == [1, 1, 1]


def test_balances_classes() -> None:
    assert_balances_classes("rwy")
