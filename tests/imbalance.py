"""A task whose classes differ in size and overlap, and how a method treats them."""

from typing import Any

import torch

from unrote.data import Split, Task
from unrote.methods import METHODS, Method, Session
from unrote.models import StackedLinear
from unrote.training import Recipe

RECIPE = Recipe("adam", 0.05, batch_size=64, epochs=15)


def imbalanced_task(n: int = 600, *, seed: int = 0, one_in: int = 10) -> Task:
    """Two classes that overlap, of which every tenth example is the second; the test split has them equally."""
    random = torch.Generator().manual_seed(seed)

    def draw(size: int, one_in: int) -> Split:
        y = (torch.arange(size) % one_in == 0).long()
        x = torch.randn(size, 4, generator=random)
        x[:, 0] += 2.0 * y - 1.0
        return Split(x, y)

    return Task("imbalanced", train=draw(n, one_in), validation=draw(n, one_in), test=draw(1000, 2))


def session_of(task: Task, seed: int = 0, recipe: Recipe = RECIPE, **options: Any) -> Session:
    """A session that trains linear heads on the task."""
    n_features = task.train.x.shape[0]
    return Session(
        task, lambda seeds: StackedLinear(n_features, task.n_classes, seeds), recipe, seed=seed, **options
    )


def class_accuracy(method: Method | str, seed: int = 0) -> list[float]:
    """Test accuracy of each class of the imbalanced task, the large one first."""
    task = imbalanced_task(seed=seed)
    assert task.test is not None
    made = METHODS[method]() if isinstance(method, str) else method
    predicted = made.fit(session_of(task, seed)).predict(task.test.x)
    return [float((predicted == c)[task.test.y == c].double().mean()) for c in (0, 1)]


def assert_balances_classes(method: Method | str) -> None:
    """The small class is right far more often than with ERM, and the two within 15 points of each other."""
    for seed in (0, 1):
        large, small = class_accuracy(method, seed)
        assert small > class_accuracy("erm", seed)[1] + 0.2
        assert abs(large - small) < 0.15
