"""The tasks of a spec, loaded, with what the protocol and the table need to know of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unrote.benchmark.execution import group_membership
from unrote.benchmark.spec import RecipeSpec, Spec, TaskSpec
from unrote.data import Split, Task, load_task
from unrote.errors import OptionError, UnroteError
from unrote.presets import DEFAULT, PRESETS


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a task without its examples; JSON-ready.

    Args:
        label: in the spec.
        identity: name, options and fingerprint, which say which examples these are.
        model: trained on it.
        recipe: as in `RecipeSpec`.
        evaluate_every: steps between evaluations; None is once an epoch.
        class_names: in order.
        group_names: in order; empty without group labels.
        sizes: examples per group of each split with group labels.
        class_sizes: examples per class of each split.
        overlapping: whether an example can be in several groups or none; groups then have no shares.
        missing: why it cannot be had; empty if it can.
    """

    label: str
    identity: dict[str, Any]
    model: str = ""
    recipe: dict[str, Any] | None = None
    evaluate_every: int | None = None
    class_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    sizes: dict[str, list[int]] | None = None
    class_sizes: dict[str, list[int]] | None = None
    overlapping: bool = False
    missing: str = ""

    @staticmethod
    def read(record: Mapping[str, Any]) -> "TaskInfo":
        """What `dataclasses.asdict` and JSON made of one."""
        names = {name: tuple(record[name]) for name in ("class_names", "group_names")}
        return TaskInfo(**{**record, **names})

    def recipe_spec(self) -> RecipeSpec:
        """How models are trained on it."""
        return RecipeSpec.model_validate(self.recipe)


def load_tasks(
    spec: Spec, given: Mapping[str, Task] | None = None
) -> tuple[dict[str, Task], dict[str, TaskInfo]]:
    """The tasks of a spec by label, and what is known of each.

    Args:
        spec: names them.
        given: tasks of one's own by label, instead of those that `load_task` would build.

    Returns:
        Tasks that can be had; information on all.

    Raises:
        OptionError: if a task has no validation split, or its options are wrong.
        UnroteError: if a task that is not optional cannot be had, as its source says.
        OSError: likewise.
    """
    tasks: dict[str, Task] = {}
    known: dict[str, TaskInfo] = {}
    for entry in spec.tasks:
        label = entry.shown
        try:
            task = given[label] if given and label in given else load_task(entry.name, **entry.options)
        except (UnroteError, OSError) as error:
            if not entry.optional:
                raise
            known[label] = TaskInfo(label, {"name": entry.name}, missing=str(error))
            continue
        except TypeError as error:  # an option of a type that the source does not expect
            raise OptionError(f"task {entry.name!r}, options {entry.options}: {error}") from error
        tasks[label], known[label] = task, describe(spec, entry, task)
    return tasks, known


def describe(spec: Spec, entry: TaskSpec, task: Task) -> TaskInfo:
    """What is known of a task.

    Raises:
        OptionError: if it has no validation or no test split.
    """
    for name in ("validation", "test"):
        if name not in task.splits:
            raise OptionError(
                f"task {entry.shown!r} has no {name} split: a benchmark chooses on one and reports the other"
            )
    preset = PRESETS.get(task.name, DEFAULT)
    recipe = entry.recipe or RecipeSpec.model_validate(preset.recipe.described())
    model = entry.model or preset.model
    if not isinstance(model, str):
        raise OptionError(f"task {entry.shown!r} has no model by name: set model in the spec")
    return TaskInfo(
        label=entry.shown,
        identity={"name": entry.name, "options": entry.options, "data": task.fingerprint()},
        model=model,
        recipe=recipe.model_dump(),
        evaluate_every=entry.evaluate_every or spec.evaluate_every,
        class_names=task.class_names,
        group_names=task.scored_group_names,
        overlapping=bool(task.overlapping_names),
        sizes={n: counts for n, s in task.splits.items() if (counts := _counts(task, s)) is not None},
        class_sizes={n: s.y.bincount(minlength=task.n_classes).tolist() for n, s in task.splits.items()},
    )


def _counts(task: Task, split: Split) -> list[int] | None:
    groups = group_membership(task, split)
    return None if groups is None else groups.sum(0, dtype=torch.float64).long().tolist()
