"""Labelled data: what a task is, how its examples are read, and the sources that come with unrote.

`load_task("digits", seed=1)` builds a task by name; `Task` and `Split` wrap data of your own.
"""

from unrote.data.inputs import ArrayInputs, DatasetInputs, Inputs, as_inputs, open_features
from unrote.data.registry import TaskSource, load_task, register_task, task_names, task_sources
from unrote.data.task import Regime, Split, Task

__all__ = [
    "ArrayInputs",
    "DatasetInputs",
    "Inputs",
    "Regime",
    "Split",
    "Task",
    "TaskSource",
    "as_inputs",
    "load_task",
    "open_features",
    "register_task",
    "task_names",
    "task_sources",
]
