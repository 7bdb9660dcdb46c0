"""The tasks by name. A source registers itself in its own file; adding one touches no other file.

Every module of `unrote.data` is imported when a task is first asked for, so sources import what is heavy
(scikit-learn, Pillow, pandas) inside their functions.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from unrote.data.task import Task
from unrote.errors import OptionError
from unrote.registry import Registry

Build = TypeVar("Build", bound=Callable[..., Task])


@dataclass(frozen=True)
class TaskSource:
    """A registered source of tasks.

    Args:
        name: what `load_task` is given.
        description: one line for people.
        build: makes the task from keyword options.
    """

    name: str
    description: str
    build: Callable[..., Task]

    @property
    def options(self) -> dict[str, Any]:
        """The options of the source with their defaults; `inspect.Parameter.empty` where there is none."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


TASKS: Registry[TaskSource] = Registry("task", "unrote.data")


def register_task(name: str, description: str) -> Callable[[Build], Build]:
    """Register a function that builds a `Task` from keyword options.

    Args:
        name: what `load_task` will be given; free so far.
        description: one line for people.

    Returns:
        A decorator that leaves the function as it is.
    """

    def register(build: Build) -> Build:
        TASKS.add(name, TaskSource(name, description, build))
        return build

    return register


def task_names() -> list[str]:
    """Names that `load_task` knows, sorted."""
    return TASKS.names()


def task_sources() -> dict[str, TaskSource]:
    """All registered sources by name, sorted: their descriptions and options."""
    return {name: TASKS[name] for name in TASKS.names()}


def load_task(name: str, **options: Any) -> Task:
    """Build a task by name.

    Args:
        name: one of `task_names()`.
        **options: of the source; see its function, or `task_sources()[name].options`.

    Raises:
        UnknownNameError: if there is no such task.
        OptionError: if the task has no such option, or a value is out of range.
    """
    source = TASKS[name]
    valid = source.options
    for option in options:
        if option not in valid:
            near = difflib.get_close_matches(option, valid, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise OptionError(f"task {name!r} has no option {option!r}: {hint}valid: {', '.join(valid)}")
    return source.build(**options)
