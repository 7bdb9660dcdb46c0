"""A small task with a shortcut, and specs on it, for the tests of the benchmark."""

from typing import Any

import torch

from unrote.benchmark import Spec
from unrote.data import Split, Task


def shortcut_task(n: int = 120, *, attributes: bool = True, seed: int = 0) -> Task:
    """Two classes, a weak core and a strong shortcut in 6 dimensions."""
    random = torch.Generator().manual_seed(seed)

    def split(size: int, alignment: float) -> Split:
        y = torch.arange(size) % 2
        a = torch.where(torch.rand(size, generator=random) < alignment, y, 1 - y)
        x = torch.randn(size, 6, generator=random)
        x[:, 0] += 1.2 * (2 * y - 1)
        x[:, 1] += 3.0 * (2 * a - 1)
        return Split(x, y, a if attributes else None)

    return Task("toy", split(n, 0.9), split(n, 0.8), split(n, 0.5))


def small_spec(**changes: Any) -> Spec:
    """Seconds' worth of a protocol on `shortcut_task`, labelled "toy"."""
    recipe = {
        "learning_rate": {"low": 1e-2, "high": 1e-1, "log": True},
        "batch_size": 32,
        "steps": 12,
    }
    values: dict[str, Any] = {
        "name": "small",
        "tasks": [{"name": "toy", "model": "linear", "recipe": recipe}],
        "methods": [{"name": "erm"}, {"name": "mat"}],
        "criteria": {"none": ["worst_group_inferred"], "val": ["worst_group"]},
        "search": 3,
        "seeds": 2,
        "evaluate_every": 4,
    }
    return Spec.model_validate({**values, **changes})
