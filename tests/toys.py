"""Small data sets, and the comparison of parameters bit by bit, that several test files share."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from unrote.api import evaluate, fit
from unrote.data import Split, Task, load_task
from unrote.methods import METHODS, Session
from unrote.models import StackedLinear
from unrote.training import Recipe


def clusters(
    n: int, n_classes: int = 2, n_features: int = 4, *, seed: int = 0, distance: float = 1.0
) -> tuple[Tensor, Tensor]:
    """x (n, d) in float32 around one random centre per class, and y (n,) in a random order."""
    random = torch.Generator().manual_seed(seed)
    y = (torch.arange(n) % n_classes)[torch.randperm(n, generator=random)]
    centres = distance * torch.randn(n_classes, n_features, generator=random)
    return centres[y] + torch.randn(n, n_features, generator=random), y


def planted_task(n: int = 64, *, seed: int = 0, rare: int = 0, attributes: bool = True) -> Task:
    """Two classes, an attribute that agrees with them 7 times in 8, and `rare` examples of a third.

    The attribute shows in one large feature, the class in another, small one; six more are noise.
    """
    random = torch.Generator().manual_seed(seed)

    def draw(size: int) -> Split:
        y = torch.arange(size) % 2
        attribute = torch.where(torch.arange(size) % 16 < 14, y, 1 - y)
        y[size - rare :] = 2
        x = torch.randn(size, 8, generator=random)
        x[:, 0] = 3.0 * (2.0 * attribute - 1.0) + 0.3 * x[:, 0]
        x[:, 1] = y - 1.0 + 0.2 * x[:, 1]
        return Split(x, y, attribute if attributes else None)

    return Task("planted", train=draw(n), validation=draw(n), test=draw(n))


def minority_accuracy(method: str, seed: int) -> float:
    """Test accuracy where the shortcut misleads, in the paper's interpretable setup at a sixth of its size."""
    task = load_task("interpretable", n=300, noise_dims=600, seed=seed)
    recipe = Recipe("sgd", 1e-2, momentum=0.9, batch_size=None, steps=150)
    session = Session(
        task.for_regime(METHODS[method].needs), lambda s: StackedLinear(602, 2, s), recipe, seed=seed
    )
    fitted = METHODS[method]().fit(session)
    assert task.test is not None
    minority = task.test.attribute != task.test.y
    return float((fitted.predict(task.test.x) == task.test.y)[minority].double().mean())


@cache
def worst_on_digits(method: str, seed: int = 0, **settings: Any) -> float:
    """Worst-group test accuracy on the digits with their planted background; no run sees a group label."""
    task = load_task("digits", seed=seed)
    report = evaluate(fit(task, method, regime="none", seed=seed, **settings), task)
    assert report.worst_group.accuracy is not None
    return report.worst_group.accuracy


def assert_same_bits(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Two states hold the same tensors, bit for bit (so NaN equals NaN, and 0 differs from -0)."""
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert value.dtype == wanted[name].dtype, name
        assert value.numpy().tobytes() == wanted[name].numpy().tobytes(), name


def differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether some tensor of two states differs."""
    return any(not torch.equal(value, other[name]) for name, value in one.items())
