"""Train and score in one call each."""

from pathlib import Path
from typing import Any

import torch

from unrote.data import Regime, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, Fitted, GroupSource, Method, Session
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
    groups: GroupSource = "true",
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
        groups: whose groups a method that needs them gets: "true" ones, or those inferred by "xrm" or "eiil",
            which need no group labels.
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
    made = make_method(method, **settings)
    needs = _needed_regime(made, groups)
    regime = regime or needs
    if regime not in _REGIMES or _REGIMES.index(regime) < _REGIMES.index(needs):
        raise OptionError(
            f"method {method!r} needs the annotation regime {needs!r}, not {regime!r}: "
            "choose a method without group labels, such as 'mat', or groups='xrm'"
        )
    preset = PRESETS.get(task.name, DEFAULT)
    session = Session(
        task=task.for_regime(regime),
        build=stack_builder(model or preset.model, task.train.x.shape, task.n_classes),
        recipe=recipe or preset.recipe,
        seed=seed,
        groups=groups,
        checkpoint_folder=None if checkpoint is None else Path(checkpoint),
        progress=progress,
    )
    own = made.settings()
    saved = session.checkpoints("train", session.recipe, own)
    if saved is not None:
        # the last stage's folder names the method; looked at first, so that no other stage writes into it
        saved.refuse_others(("task", "data", "model", "seed", "groups", *own))
    return made.fit(session)


def _needed_regime(method: Method, groups: GroupSource) -> Regime:
    if groups == "true":
        return method.needs
    if groups not in ("xrm", "eiil"):
        raise OptionError(f"groups={groups!r}: 'true', 'xrm' or 'eiil' is wanted")
    if not method.uses_groups:
        raise OptionError(f"method {method.name!r} takes no inferred groups: leave groups={groups!r} out")
    return "none"


def make_method(name: str, **settings: Any) -> Method:
    """A method by name, ready to fit.

    Args:
        name: such as "mat" or "erm".
        **settings: its hyper-parameters.

    Raises:
        UnknownNameError: if there is no such method.
        OptionError: if it has no such hyper-parameter, or a value is out of range.
    """
    kind = METHODS[name]
    known = getattr(kind, "__dataclass_fields__", {})
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise OptionError(
            f"method {name!r} has no setting {unknown[0]!r}: it has {', '.join(known) or 'none'}"
        )
    return kind(**settings)


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
    if task.train.has_attribute and not task.overlapping_names:  # shares of overlapping groups are no weights
        counts = torch.bincount(task.group(task.train), minlength=task.n_groups)
    return group_report(
        examples.y, fitted.predict(examples.x), task.scored_groups(examples), task.scored_group_names, counts
    )
