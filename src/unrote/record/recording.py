"""From trained classifiers to a record: scores, what they memorized, and what the examples look like.

Nothing is trained here. What cannot be had is left out, and the record says why.
"""

import datetime
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrote._version import __version__
from unrote.data import Task
from unrote.errors import DataError, OptionError, UnroteError
from unrote.heldout import HeldOut as HeldOutLogits
from unrote.heldout import XRMResult, twins_among
from unrote.memorization import leave_one_out
from unrote.memorization.compare import MEMORIZED
from unrote.methods import Fitted
from unrote.metrics import group_report
from unrote.record.contents import Content, content
from unrote.record.curves import curves, scored_split
from unrote.record.groups import GroupView, training_counts
from unrote.record.influence import influence_part
from unrote.record.runs import Trained
from unrote.report.saved_run import check_free, write_record
from unrote.shift import confusion
from unrote.tables import TableTask

_PICTURES = 2000  # thumbnails at most: they are most of a page

_SOURCES = {
    "xrm": "XRM's twins",
    "trunk": "linear twins on the features of a network that has begun to learn",
    "kfold": "k-fold cross-validation",
    "alo": "a linear head in closed form",
    "given": "predictions given",
}


def record_run(
    data: Task | TableTask,
    methods: Mapping[str, Fitted | Trained],
    folder: str | Path,
    *,
    examples: int = 20_000,
    shown: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Record classifiers that were trained on the same task, for `unrote report`.

    Args:
        data: the task with all the group labels there are, or one made of tables, whose rows are then shown.
        methods: what was trained, by name; `train_methods` gives more to tell of than `unrote.fit`.
        folder: of the record.
        examples: how many training examples to list at most, the most memorized first; pictures at most 2,000.
        shown: by split, what stands for its examples: texts, or pictures (n, h, w, 3) of bytes. Default what the
            task holds; for features of one's own there is nothing to show otherwise.
        overwrite: whether a record that is there is replaced.

    Returns:
        The folder.

    Raises:
        OptionError: if there are no methods, or the folder may not be written to.
        DataError: if it cannot be written, or `shown` does not fit.
    """
    folder = Path(folder)
    check_free(folder, overwrite=overwrite)
    if not methods:
        raise OptionError("no methods to record: pass a mapping of names to trained classifiers")
    trained = {name: _as_trained(one) for name, one in methods.items()}
    task, table = (data.task, data) if isinstance(data, TableTask) else (data, None)
    twins, held_out = _held_out(trained)
    view = GroupView(task, twins)
    missing: dict[str, str] = {}
    arrays = _of_examples(task, view, held_out, missing)
    records = [
        _of_method(k, name, one, view, held_out, arrays, missing)
        for k, (name, one) in enumerate(trained.items())
    ]
    index, seen = _listed(task, table, arrays, examples, shown)
    if seen.pictures is not None:
        arrays["pictures"] = seen.pictures
    influence = influence_part(task, table, trained, view, shown or {}, arrays, missing)
    contents = {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": _versions(),
        "environment": _environment(),
        "data": _data(task, table, view),
        "methods": records,
        "held_out": _described(task, twins, held_out),
        "memorized_above": MEMORIZED,
        "examples": {
            "kind": seen.kind,
            "index": index.tolist(),
            "names": _names(table, index),
            "columns": list(seen.columns),
            "content": [list(one) if seen.kind == "row" else one for one in seen.texts],
        },
        "influence": influence,
        "missing": missing,
    }
    write_record(folder, contents, arrays)
    return folder


def _as_trained(one: Fitted | Trained) -> Trained:
    return one if isinstance(one, Trained) else Trained(one, one.method.needs, {})


def _held_out(trained: Mapping[str, Trained]) -> tuple[XRMResult | None, tuple[str, HeldOutLogits] | None]:
    """The twins and the held-out logits that some method worked with; those of the twins if none did."""
    # of what several made, the first method's
    artefacts = {k: v for one in list(trained.values())[::-1] for k, v in one.fitted.artefacts.items()}
    held_out = artefacts.get("held_out")
    twins = twins_among(artefacts, held_out)
    if held_out is None and twins is not None:
        held_out = twins.held_out()
    return twins, None if held_out is None else (_SOURCES[held_out.source], held_out)


def _of_examples(
    task: Task, view: GroupView, held_out: tuple[str, HeldOutLogits] | None, missing: dict[str, str]
) -> dict[str, np.ndarray]:
    """Arrays that do not depend on a method."""
    y = task.train.y
    arrays = {"y": y.numpy().astype(np.int32)}
    group, minority = view.of("train"), view.minority("train")
    if group is not None:
        arrays["group"] = group.numpy().astype(np.int32)
    else:
        missing["groups"] = "nobody annotated groups, and no XRM twins were trained to infer them"
    if minority is not None:
        arrays["inferred"] = minority.numpy().astype(np.uint8)
    else:
        missing["inferred"] = "no XRM twins were trained"
    if held_out is not None:
        logits = held_out[1].logits.detach().cpu().double()
        arrays["held_out"] = logits.argmax(1).numpy().astype(np.int32)
        arrays["p_held_out"] = _confidence(logits, y)
    else:
        missing["held_out"] = "no method made held-out predictions, and no XRM twins were trained"
    return arrays


def _confidence(logits: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    p: np.ndarray = (
        logits.cpu().double().softmax(1).gather(1, y.unsqueeze(1)).squeeze(1).numpy().astype(np.float32)
    )
    return p


def _of_method(
    k: int,
    name: str,
    one: Trained,
    view: GroupView,
    held_out: tuple[str, HeldOutLogits] | None,
    arrays: dict[str, np.ndarray],
    missing: dict[str, str],
) -> dict[str, Any]:
    """The record of one method; its numbers per example go into the arrays.

    Raises:
        DataError: if the classifier gives NaN.
    """
    task, fitted, y = view.task, one.fitted, view.task.train.y
    logits = fitted.logits(task.train.x).detach().cpu()
    if not bool(torch.isfinite(logits).all()):
        raise DataError(f"method {name!r} gives NaN or infinity: it diverged; lower its learning rate")
    arrays[f"{k}.predicted"] = logits.argmax(1).numpy().astype(np.int32)
    arrays[f"{k}.p_train"] = _confidence(logits, y)
    notes, memorized = [], None
    if not fitted.stack_alone:
        missing[f"{name}: memorization"] = (
            "it is more than one model, so it has no head to leave examples out of"
        )
    else:
        try:
            score = leave_one_out(fitted, task.train.x, y)
            arrays[f"{k}.memorization"] = score.values.astype(np.float32)
            arrays[f"{k}.self_influence"] = score.details["self_influence"].clip(0).astype(np.float32)
            memorized, notes = float((score.values > MEMORIZED).mean()), list(score.notes)
        except UnroteError as error:
            missing[f"{name}: memorization"] = str(error)
    written = curves(fitted.training.history)
    if written is None or not any("/" in series for series in written["series"]):
        missing[f"{name}: curves"] = "accuracy was not written down while it trained"
    return {
        "name": name,
        "reference": fitted.method.reference,
        "regime": one.regime,
        "settings": {key: value for key, value in fitted.method.settings().items() if key != "method"},
        "training": one.training,
        "scores": _scores(fitted, view, missing),
        "curves": written,
        "shift": _shift(k, fitted, view.task, held_out, arrays),
        "memorized": memorized,
        "notes": notes,
    }


def _scores(fitted: Fitted, view: GroupView, missing: dict[str, str]) -> dict[str, Any] | None:
    split = scored_split(view.task)
    if split is None:
        missing["accuracy"] = "the task has neither a test nor a validation split"
        return None
    examples, groups = view.task.splits[split], view.scored(split)
    if groups is None:
        missing["accuracy"] = f"groups of the {split} split are not known"
        return None
    return group_report(
        examples.y,
        fitted.predict(examples.x),
        groups,
        view.scored_names,
        training_counts(view),
        class_names=view.task.class_names,
    ).to_dict()


def _shift(
    k: int,
    fitted: Fitted,
    task: Task,
    held_out: tuple[str, HeldOutLogits] | None,
    arrays: dict[str, np.ndarray],
) -> dict[str, Any] | None:
    """The shift of a method that has one, summed up; per example it goes into the arrays."""
    shift = fitted.artefacts.get("shift")
    if shift is None or held_out is None or tuple(shift.shape) != (len(task.train), task.n_classes):
        return None
    y, shift = task.train.y, shift.detach().cpu().double()
    own = shift.gather(1, y.unsqueeze(1)).squeeze(1)
    others = shift.scatter(1, y.unsqueeze(1), -torch.inf).amax(1)
    arrays[f"{k}.shift"] = (own - others).numpy().astype(np.float32)
    chosen = fitted.artefacts.get("automatic", fitted.method)
    temperature = getattr(chosen, "temperature", None)
    q = (held_out[1].logits.detach().cpu().double() / (temperature or 1.0)).softmax(1)
    return {"temperature": temperature, "confusion": confusion(q, y).tolist()}


def _listed(
    task: Task,
    table: TableTask | None,
    arrays: Mapping[str, np.ndarray],
    examples: int,
    shown: Mapping[str, Any] | None,
) -> tuple[np.ndarray, Content]:
    """Which training examples are listed, by falling score under whichever method gives the largest, and they."""
    scores = [array for name, array in arrays.items() if name.endswith(".memorization")]
    largest = np.max(scores, 0) if scores else 1 - arrays.get("p_held_out", np.ones(len(task.train)))
    index = np.argsort(-largest, kind="stable")[: max(0, examples)]
    given = None if shown is None else shown.get("train")
    kind = content(task.train, index[:1], table, shown=given).kind
    if kind == "picture":
        return index, content(task.train, index[:_PICTURES], table, shown=given)
    return index, content(task.train, index, table, shown=given)


def _names(table: TableTask | None, index: np.ndarray) -> list[str]:
    """What examples are called: the number of their row, 1 being the first, or their file."""
    if table is None:
        return [str(i + 1) for i in index.tolist()]
    return [table.tables["train"].row_name(int(table.rows["train"][i])) for i in index.tolist()]


def _described(
    task: Task, twins: XRMResult | None, held_out: tuple[str, HeldOutLogits] | None
) -> dict[str, Any] | None:
    if held_out is None:
        return None
    source, logits = held_out
    by_twins = twins is not None and source.startswith("XRM")
    return {
        "source": source,
        "accuracy": float((logits.logits.argmax(1).cpu() == task.train.y).double().mean()),
        "flip_rate": float(twins.flip_rate[twins.best]) if twins is not None and by_twins else None,
        "degenerate": bool(twins.degenerate[twins.best]) if twins is not None and by_twins else None,
    }


def _data(task: Task, table: TableTask | None, view: GroupView) -> dict[str, Any]:
    group = view.of("train")
    sizes = [] if group is None else torch.bincount(group, minlength=len(view.names)).tolist()
    return {
        "name": task.name if table is None else f"{Path(table.tables['train'].source).name}: {table.target}",
        "fingerprint": task.fingerprint(),
        "shape": list(task.train.x.shape),
        "shortcut": task.shortcut or None,
        "class_names": list(task.class_names),
        "group_names": list(view.names),
        "groups": view.kind,
        "rows": {name: len(split) for name, split in task.splits.items()},
        "group_sizes": sizes,
        "scored_split": scored_split(task),
    }


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "scikit-learn")
    return {
        "unrote": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _environment() -> dict[str, str]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
