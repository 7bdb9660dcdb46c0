"""Train and score in one call each."""

from pathlib import Path
from typing import Any

import torch

from unrote.data import Regime, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, Fitted, Session
from unrote.metrics import GroupReport, group_report
from unrote.models import stack_builder
from unrote.presets import DEFAULT, PRESETS
from unrote.training import Recipe

_REGIMES: tuple[Regime, ...] = ("none", "val", "train")


def fit(
    task: Task,
    method: str = "mat",
    *,
    regime: Regime | None = None,
    model: Any = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    **settings: Any,
) -> Fitted:
    """Train a classifier on a task.

    Args:
        task: what to learn; see `Task` and `load_task`.
        method: name of a method, such as "mat" or "erm".
        regime: where group labels may be used; default the least the method needs.
        model: "linear", "mlp", "cnn", or a function that makes an `nn.Module`; default by the task.
        recipe: how to train; default by the task.
        seed: of everything random; the same seed gives the same classifier, bit for bit on a CPU.
        checkpoint: folder to save to and to resume from.
        progress: whether to show progress bars.
        **settings: hyper-parameters of the method.

    Raises:
        UnknownNameError: if there is no such method or model.
        OptionError: if a setting is unknown or out of range, or the regime is too weak for the method.
    """
    kind = METHODS[method]
    known = getattr(kind, "__dataclass_fields__", {})
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise OptionError(
            f"method {method!r} has no setting {unknown[0]!r}: it has {', '.join(known) or 'none'}"
        )
    regime = regime or kind.needs
    if _REGIMES.index(regime) < _REGIMES.index(kind.needs):
        raise OptionError(
            f"method {method!r} needs group labels of the {kind.needs!r} regime, not {regime!r}: "
            "choose a method without group labels, such as 'mat'"
        )
    preset = PRESETS.get(task.name, DEFAULT)
    session = Session(
        task=task.for_regime(regime),
        build=stack_builder(model or preset.model, task.train.x.shape, task.n_classes),
        recipe=recipe or preset.recipe,
        seed=seed,
        checkpoint_folder=None if checkpoint is None else Path(checkpoint),
        progress=progress,
    )
    return kind(**settings).fit(session)


def evaluate(fitted: Fitted, task: Task, split: str = "test") -> GroupReport:
    """Accuracy of a classifier by group.

    Args:
        fitted: what `fit` gave.
        task: with the group labels of the split; the run need not have seen them.
        split: "train", "validation" or "test".

    Raises:
        OptionError: if the task has no such split.
    """
    if split not in task.splits:
        raise OptionError(f"task {task.name!r} has no split {split!r}: it has {', '.join(task.splits)}")
    examples = task.splits[split]
    counts = None
    if task.train.has_attribute:
        counts = torch.bincount(task.group(task.train), minlength=task.n_groups)
    return group_report(
        examples.y, fitted.predict(examples.x), task.group(examples), task.group_names, counts
    )
