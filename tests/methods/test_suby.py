"""SUBY's subset, and its effect on classes of different size."""

import torch
from imbalance import assert_balances_classes, imbalanced_task, session_of

from unrote.data import Split, Task
from unrote.methods import METHODS, SupervisionMethod


def subset(task: Task, seed: int = 0) -> torch.Tensor:
    method = METHODS["suby"]()
    assert isinstance(method, SupervisionMethod)
    weight = method.supervision(session_of(task, seed)).weight
    assert weight is not None
    return weight


def test_has_as_many_examples_of_each_class_as_the_smallest() -> None:
    task = imbalanced_task(n=100)
    for seed in range(3):
        found = subset(task, seed)
        assert torch.bincount(task.train.y[found == 1]).tolist() == [10, 10]
        assert int((found == 0).sum()) == 80


def test_depends_on_the_seed_alone() -> None:
    task = imbalanced_task(n=100)
    assert torch.equal(subset(task, 1), subset(task, 1))
    assert not torch.equal(subset(task, 1), subset(task, 2))


def test_a_class_of_one_example_leaves_one_of_each() -> None:
    y = torch.tensor([0, 1, 0, 1, 1, 2])
    found = subset(Task("one", train=Split(torch.zeros(6, 2), y)))
    assert torch.bincount(y[found == 1]).tolist() == [1, 1, 1]


def test_the_others_have_no_say() -> None:
    """Whatever the examples that were not chosen look like, the classifier is the same."""
    task = imbalanced_task(n=100)
    left_out = subset(task) == 0
    x = task.train.x[torch.arange(100)]
    x[left_out] = 1e3
    other = Task("imbalanced", train=Split(x, task.train.y))
    one, two = (METHODS["suby"]().fit(session_of(t)).stack.head()[0] for t in (task, other))
    assert torch.equal(one, two)


def test_balances_classes() -> None:
    assert_balances_classes("suby")
