"""Train classifiers that do not learn by rote.

    import unrote
    task = unrote.Task("mine", train=unrote.Split(X, y))
    classifier = unrote.fit(task, method="mat")
    classifier.predict(X_new)

The public names are imported when they are first used, so that `import unrote` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from unrote._version import __version__

if TYPE_CHECKING:
    from unrote.api import evaluate, fit
    from unrote.data import Split, Task, load_task, task_names
    from unrote.errors import UnroteError
    from unrote.estimators import ERMClassifier, MATClassifier, UnroteClassifier
    from unrote.heldout import kfold, xrm
    from unrote.metrics import group_report
    from unrote.models import ModuleStack, StackedLinear, StackedMLP
    from unrote.shift import group_shift, logit_shift, mat_shift
    from unrote.supervision import Supervision
    from unrote.torch_api import IndexedCollate, IndexedDataset, MATLoss, held_out_logits
    from unrote.training import Recipe, train

_HOMES = {
    "ERMClassifier": "estimators",
    "IndexedCollate": "torch_api",
    "IndexedDataset": "torch_api",
    "MATClassifier": "estimators",
    "MATLoss": "torch_api",
    "ModuleStack": "models",
    "Recipe": "training",
    "Split": "data",
    "StackedLinear": "models",
    "StackedMLP": "models",
    "Supervision": "supervision",
    "Task": "data",
    "UnroteClassifier": "estimators",
    "UnroteError": "errors",
    "evaluate": "api",
    "fit": "api",
    "group_report": "metrics",
    "group_shift": "shift",
    "held_out_logits": "torch_api",
    "kfold": "heldout",
    "load_task": "data",
    "logit_shift": "shift",
    "mat_shift": "shift",
    "task_names": "data",
    "train": "training",
    "xrm": "heldout",
}

__all__ = [
    "ERMClassifier",
    "IndexedCollate",
    "IndexedDataset",
    "MATClassifier",
    "MATLoss",
    "ModuleStack",
    "Recipe",
    "Split",
    "StackedLinear",
    "StackedMLP",
    "Supervision",
    "Task",
    "UnroteClassifier",
    "UnroteError",
    "__version__",
    "evaluate",
    "fit",
    "group_report",
    "group_shift",
    "held_out_logits",
    "kfold",
    "load_task",
    "logit_shift",
    "mat_shift",
    "task_names",
    "train",
    "xrm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unrote' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unrote.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
