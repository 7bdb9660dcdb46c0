"""What is written down while a method trains: accuracy by group, on training examples and on others."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unrote.data import Task
from unrote.metrics import group_accuracy
from unrote.models import Stack
from unrote.record.groups import GroupView
from unrote.seeding import generator
from unrote.training import Evaluate

LOOKS = 30
"""How often a method is looked at while it trains."""

_AT_MOST = 5000  # examples of a split


def scored_split(task: Task) -> str | None:
    """The split that a run is scored on: the test, else the validation split."""
    return next((name for name in ("test", "validation") if name in task.splits), None)


def curve_evaluator(view: GroupView) -> Evaluate:
    """Accuracy of every member by group, "train/GROUP" and "SPLIT/GROUP", and "/average", while it trains.

    Looks at some thousand examples of each split, drawn at random once. What it sees goes into the record alone:
    no method is told of it.

    Args:
        view: of the task with all the group labels there are.
    """
    task, parts = view.task, []
    for name in ("train", scored_split(task)):
        if name is not None:
            split = task.splits[name]
            order = (
                torch.randperm(len(split), generator=generator(0, "curves", name))[:_AT_MOST].sort().values
            )
            groups = view.scored(name)
            groups = None if groups is None else groups[order]
            parts.append((name, split.x.subset(order), split.y[order], groups))

    def evaluate(stack: Stack) -> Mapping[str, Float[Tensor, " S"]]:
        found = {}
        for name, x, y, groups in parts:
            correct = stack.predict_classes(x) == y
            found[f"{name}/average"] = correct.double().mean(-1)
            if groups is not None:
                accuracy = group_accuracy(correct, groups, len(view.scored_names))
                for g, group in enumerate(view.scored_names):
                    found[f"{name}/{group}"] = accuracy[:, g]
        return found

    return evaluate


def curves(history: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A history of training as a record holds it; None where nothing but one loss was written down.

    Args:
        history: see `unrote.training.TrainingResult`, of a stack of one.
    """
    names = sorted({name for one in history for name in one if name not in ("step", "epoch")})
    series = {name: [_first(one.get(name)) for one in history] for name in names}
    # of one look there is no curve: a method that trains in stages may be seen in the last alone
    series = {name: values for name, values in series.items() if sum(v is not None for v in values) > 1}
    if not series:
        return None
    return {"steps": [int(one["step"]) for one in history], "series": series}


def _first(value: Any) -> float | None:
    number = value[0] if isinstance(value, (list, tuple)) and value else value
    finite = isinstance(number, (int, float)) and abs(number) < float("inf")  # false for NaN
    return float(number) if finite else None
