"""RWG's weights against counts, and its effect: every group counts the same."""

import pytest
import torch
from toys import minority_accuracy

from unrote.data import Split, Task
from unrote.methods import METHODS, Session, SupervisionMethod
from unrote.models import StackedLinear
from unrote.training import Recipe

Y = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
A = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 0, 1])  # nobody has class 1 with attribute 0


def weights(y: torch.Tensor, attribute: torch.Tensor) -> torch.Tensor:
    task = Task("groups", train=Split(torch.zeros(len(y), 2), y, attribute))
    session = Session(task, lambda seeds: StackedLinear(2, 3, seeds), Recipe(epochs=1))
    method = METHODS["rwg"]()
    assert isinstance(method, SupervisionMethod)
    supervision = method.supervision(session)
    assert supervision.weight is not None
    assert supervision.shift is None
    assert torch.equal(supervision.target, y)
    return supervision.weight


def test_are_the_examples_over_groups_times_size() -> None:
    # five groups with examples: (0,0) of 3, (0,1) of 2, (1,1) of 3, (2,0) and (2,1) of 1
    wanted = torch.tensor([10 / (5 * size) for size in (3, 3, 3, 2, 2, 3, 3, 3, 1, 1)])
    torch.testing.assert_close(weights(Y, A), wanted)


def test_every_group_has_the_same_total_and_the_mean_is_one() -> None:
    found = weights(Y, A)
    for label in range(3):
        for attribute in range(2):
            total = float(found[(label == Y) & (attribute == A)].sum())
            assert total == pytest.approx(0.0 if (label, attribute) == (1, 0) else 2.0)
    assert float(found.mean()) == pytest.approx(1.0)


def test_groups_of_one_size_weigh_one() -> None:
    torch.testing.assert_close(weights(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])), torch.ones(4))


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("rwg", 0) > minority_accuracy("erm", 0) + 0.2
