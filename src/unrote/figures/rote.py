"""What figures 2 and 4 share: the tasks, and ERM and MAT trained on them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from unrote.api import evaluate, fit
from unrote.data import Split, Task, load_task
from unrote.errors import DataError
from unrote.methods import Fitted
from unrote.presets import PAPER_SETTINGS

METHODS_SHOWN = {"erm": "ERM", "mat": "MAT"}


@dataclass(frozen=True)
class Trained:
    """A task and the classifiers trained on it, by method."""

    task: Task
    fitted: dict[str, Fitted]

    @property
    def minority(self) -> Int[Tensor, " n"]:
        """(n,) 1 where a training example's shortcut speaks for another class, else 0."""
        return (self.task.train.y != self.task.train.attribute).long()

    def worst_group(self, method: str) -> float:
        """Worst-group test accuracy."""
        return evaluate(self.fitted[method], self.task).worst_group.accuracy or 0.0


def trained(task: Task, seed: int, progress: bool) -> Trained:
    """ERM and MAT on a task, by its recipe; neither sees a group label."""
    return Trained(
        task,
        {
            name: fit(task, name, regime="none", seed=seed, progress=progress, **PAPER_SETTINGS.get(name, {}))
            for name in METHODS_SHOWN
        },
    )


def tasks(seed: int, fast: bool, features: Path | None) -> list[Task]:
    """Digits; and unless `fast` the reviews; and the user's own features where a file of them is given."""
    found = [load_task("digits", seed=seed)]
    if not fast:
        found.append(load_task("reviews", seed=seed))
    if features is not None:
        found.append(task_of_features(features))
    return found


def task_of_features(path: Path) -> Task:
    """A task from a file of features: {"tr", "va", "te"}, each {"x": (n, d), "y": (n, 1), "m": (n, 1)}.

    The layout in which public code keeps Waterbirds features; y is the class, m the attribute, as many as classes.

    Raises:
        DataError: if the file cannot be read or has another layout.
    """
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
        splits = [
            Split(
                parts[name]["x"].float(), parts[name]["y"].flatten().long(), parts[name]["m"].flatten().long()
            )
            for name in ("tr", "va", "te")
        ]
    except Exception as error:  # torch and its unpickler raise whatever they come upon
        raise DataError(
            f"{path} holds no features that can be read ({type(error).__name__}: {error}): wanted is a file of "
            "torch.save with {'tr', 'va', 'te'}, each {'x': (n, d), 'y': (n, 1), 'm': (n, 1)}"
        ) from error
    return Task(path.stem, splits[0], splits[1], splits[2])
