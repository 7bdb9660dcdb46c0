"""SUBG's subset, true groups and inferred, and its effect on the minority."""

import torch
from imbalance import session_of
from toys import minority_accuracy, planted_task

from unrote.api import fit
from unrote.data import Split, Task
from unrote.methods import METHODS, SupervisionMethod
from unrote.training import Recipe


def subset(task: Task, seed: int = 0) -> torch.Tensor:
    method = METHODS["subg"]()
    assert isinstance(method, SupervisionMethod)
    weight = method.supervision(session_of(task, seed)).weight
    assert weight is not None
    return weight


def test_has_as_many_examples_of_each_group_as_the_smallest() -> None:
    task = planted_task(n=64)
    chosen = subset(task) == 1
    assert torch.bincount(task.group(task.train)).tolist() == [28, 4, 4, 28]
    assert torch.bincount(task.group(task.train)[chosen]).tolist() == [4, 4, 4, 4]


def test_a_group_that_nobody_has_is_left_out_and_one_of_a_single_example_is_not() -> None:
    y, a = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 0])  # nobody has (0, 1)
    task = Task("groups", train=Split(torch.zeros(6, 2), y, a))
    chosen = subset(task) == 1
    assert torch.bincount(task.group(task.train)[chosen], minlength=4).tolist() == [1, 0, 1, 1]


def test_another_seed_is_another_subset() -> None:
    task = planted_task()
    assert not torch.equal(subset(task, 1), subset(task, 2))


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("subg", 0) > minority_accuracy("erm", 0) + 0.4


def test_takes_inferred_groups() -> None:
    task = planted_task(attributes=False)
    fitted = fit(task, "subg", groups="xrm", model="linear", recipe=Recipe("adam", 0.05, epochs=2))
    inferred = fitted.artefacts["xrm"].mistakes[fitted.artefacts["xrm"].best]
    assert set(inferred.tolist()) <= {0, 1}
    assert fitted.predict(task.train.x).shape == (64,)
