"""The parts that methods which change the loss alone share."""

import pytest
import torch
from imbalance import imbalanced_task, session_of
from torch.nn import functional as F

from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS
from unrote.methods.losses import LossObjective, check_positive, log_odds
from unrote.models import StackedLinear
from unrote.training import Batch, Objective


def test_log_odds_are_those_of_the_labels_probability() -> None:
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([[0, 1, 2, 3, 0]])
    p = logits.softmax(-1).gather(-1, target.expand(3, -1).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(log_odds(logits, target), (p / (1 - p)).log())
    torch.testing.assert_close(F.softplus(-log_odds(logits, target)), -p.log())


def test_log_odds_of_two_classes_are_the_difference_of_their_logits() -> None:
    logits = torch.tensor([[[1.0, 4.0], [500.0, -500.0]]])
    assert log_odds(logits, torch.tensor([[0, 1]])).tolist() == [[-3.0, -1000.0]]


def test_gradients_of_log_odds_are_finite() -> None:
    logits = torch.tensor([[[1000.0, -1000.0, 0.0]]], requires_grad=True)
    log_odds(logits, torch.tensor([[0]])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[[1.0, 0.0, -1.0]]]


@pytest.mark.parametrize("weight", [None, torch.tensor([3.0, 9.0, 1.0, 9.0])])
def test_the_objective_is_the_weighted_mean_over_the_minibatch(weight: torch.Tensor | None) -> None:
    stack, x = StackedLinear(2, 3, (0, 1)), torch.randn(4, 2)
    index, y = torch.tensor([2, 0]), torch.tensor([0, 1, 2, 1])

    def losses(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        torch.testing.assert_close(logits, stack(x[index]))
        assert target.tolist() == [[2, 0]]
        return torch.tensor([[4.0, 8.0], [0.0, 4.0]])

    objective: Objective = LossObjective(y, losses)
    if weight is not None:
        objective = objective.with_weight(weight)
    objective.prepare(stack, 4)
    found = objective.loss(stack, Batch(index, x[index], 0, 0))
    assert found.tolist() == ([6.0, 2.0] if weight is None else [7.0, 3.0])
    assert objective.state() == {}


@pytest.mark.parametrize("name", ["cvar", "focal", "marg_log", "sigma_damp", "spectral_decoupling"])
def test_a_sample_weight_of_0_leaves_the_example_out(name: str) -> None:
    """Whatever the label of such an example is, the classifier is the same."""
    task = imbalanced_task(n=100)
    weight = (torch.arange(100) % 5 > 0).float() * 2.0
    y = torch.where(weight > 0, task.train.y, 1 - task.train.y)
    other = Task("imbalanced", train=Split(task.train.x, y))
    tasks = (Task("imbalanced", train=Split(task.train.x, task.train.y)), other)
    one, two = (METHODS[name]().fit(session_of(t, sample_weight=weight)).stack.head() for t in tasks)
    torch.testing.assert_close(one, two)


def test_check_positive() -> None:
    check_positive("a", 0.1)
    check_positive("a", 0.0, zero=True)
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match=r"a=.* above 0 is wanted; 1 to 2 is usual"):
            check_positive("a", value, usual="1 to 2")
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match=r"at least 0 is wanted$"):
            check_positive("a", value, zero=True)
