"""Saved models: a folder of safetensors and JSON that is either there whole or not there at all.

    model.json                 what it is: classes, columns, method, settings, versions; the hash of every file
    weights.safetensors        the parameters
    preprocessing.safetensors  what was learned of the columns, with its description in model.json

Nothing in it is code and nothing is unpickled, so a model from a stranger can be loaded. The hashes tell a file
that was damaged or changed by accident; they are no signature against somebody who means to.
"""

import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from unrote._version import __version__
from unrote.checkpoint import content_hash
from unrote.errors import SavedModelError, UnroteError
from unrote.models import MODELS, Stack, stack_builder
from unrote.tables import Preprocessor, Table

FORMAT = 1
"""Raised whenever older readers would misread what is written."""

RECORD = "model.json"
_WEIGHTS, _COLUMNS = "weights.safetensors", "preprocessing.safetensors"
_MAX_RECORD = 1 << 28  # bytes: no honest description is longer


@dataclass(frozen=True)
class SavedModel:
    """A trained classifier of tables, with all it needs to classify new ones.

    Args:
        stack: a stack of one.
        model: its name, as `stack_builder` takes it.
        shape: of one example.
        class_names: C of them.
        preprocessor: turns a table into examples.
        target: the column that was learned.
        method: name of the method.
        settings: its hyper-parameters, JSON-ready.
        about: anything else worth keeping, JSON-ready: seed, recipe, scores.
    """

    stack: Stack
    model: str
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    preprocessor: Preprocessor
    target: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, table: Table) -> Float[Tensor, "n C"]:
        """Probability of each class for each row of a table."""
        return self.stack.predict(self.preprocessor.transform(table))[0].softmax(-1)


def save_model(folder: str | Path, saved: SavedModel, *, overwrite: bool = False) -> None:
    """Write a model to a folder, which appears once it is whole.

    Args:
        folder: to be made; its parents too.
        saved: what to write.
        overwrite: whether a saved model that is there may be replaced. Anything else there is never touched.

    Raises:
        SavedModelError: if the folder exists and may not be replaced, it cannot be written, or the model is
            not one of unrote's own, which alone can be rebuilt without running code from the folder.
    """
    folder = Path(folder).resolve()  # "." has a parent too
    check_free(folder, overwrite=overwrite)
    if saved.model not in MODELS:
        raise SavedModelError(
            f"model {saved.model!r} cannot be saved: only {', '.join(MODELS)} can be rebuilt"
        )
    files = _contents(saved)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise SavedModelError(f"cannot write to {folder.parent}: {error.strerror}") from error
    try:
        for name, content in files.items():
            with (partial / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        partial.chmod(0o755)  # mkdtemp's folders are their owner's alone
        _put_in_place(partial, folder)
    except OSError as error:
        raise SavedModelError(
            f"cannot write {folder}: {error.strerror}; nothing there was changed"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(folder: str | Path, *, overwrite: bool) -> None:
    """Refuse a folder that a model may not be written to; worth asking before hours of training.

    Raises:
        SavedModelError: if it exists and is not empty, unless it is a saved model and `overwrite` is set.
    """
    folder = Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RECORD).is_file():
        raise SavedModelError(f"{folder} exists and is no saved model: choose another folder")
    if not overwrite:
        raise SavedModelError(f"{folder} has a saved model: choose another folder, or pass --overwrite")


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename a finished folder to its name; an old model is there until the moment the new one is.

    Raises:
        OSError: if it cannot be renamed; then all is as it was.
    """
    if not folder.exists() or not any(folder.iterdir()):
        partial.rename(folder)  # rename() replaces an empty folder
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
    folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _contents(saved: SavedModel) -> dict[str, bytes]:
    """All files by name, the record last."""
    columns, arrays = saved.preprocessor.state()
    weights = {name: value.detach().cpu().contiguous() for name, value in saved.stack.state_dict().items()}
    files = {
        _WEIGHTS: safetensors.torch.save(weights),
        _COLUMNS: safetensors.numpy.save({n: np.ascontiguousarray(v) for n, v in arrays.items()}),
    }
    record = {
        "format": FORMAT,
        "versions": _versions(),
        "classes": list(saved.class_names),
        "target": saved.target,
        "model": {"name": saved.model, "shape": list(saved.shape)},
        "method": {"name": saved.method, "settings": dict(saved.settings)},
        "preprocessing": columns,
        "about": dict(saved.about),
        "files": {name: content_hash(content) for name, content in files.items()},
    }
    record["hash"] = _record_hash(record)
    files[RECORD] = json.dumps(record, indent=1, allow_nan=False).encode()
    return files


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "scikit-learn")
    return {
        "unrote": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _record_hash(record: Mapping[str, Any]) -> str:
    """The hash of all of a record but the hash itself."""
    rest = {key: value for key, value in record.items() if key != "hash"}
    return content_hash(json.dumps(rest, sort_keys=True).encode())


def load_model(folder: str | Path) -> SavedModel:
    """Read a saved model.

    Args:
        folder: as given to `save_model`.

    Raises:
        SavedModelError: if it is no saved model, of another format version, or damaged or changed.
    """
    folder = Path(folder)
    record = _read_record(folder)
    content = {}
    for name in (_WEIGHTS, _COLUMNS):
        try:
            content[name] = (folder / name).read_bytes()
        except OSError as error:
            raise SavedModelError(
                f"{folder / name} cannot be read ({error.strerror}): save the model again"
            ) from error
        if content_hash(content[name]) != record["files"].get(name):
            raise SavedModelError(
                f"{folder / name} does not match its recorded hash: it was damaged or changed; save the model "
                "again"
            )
    try:
        return _rebuild(record, content)
    # whatever a description that somebody made up may lead to
    except (
        UnroteError,
        safetensors.SafetensorError,
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise SavedModelError(
            f"{folder} does not fit together ({type(error).__name__}: {error}): save the model again"
        ) from error


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not path.is_file():
        raise SavedModelError(
            f"{folder} is no saved model: it has no {RECORD}; `unrote fit ... -o {folder}` makes one"
        )
    try:
        if path.stat().st_size > _MAX_RECORD:
            raise SavedModelError(f"{path} is too long for a model's description: it was damaged or changed")
        record = json.loads(path.read_bytes())
        found = record["format"], record["hash"], record["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SavedModelError(
            f"{path} cannot be read ({type(error).__name__}): save the model again"
        ) from error
    if found[0] != FORMAT:
        raise SavedModelError(
            f"{folder} has format {found[0]!r}, this version of unrote reads format {FORMAT}: use the version of "
            "unrote that wrote it"
        )
    if _record_hash(record) != found[1] or not isinstance(found[2], dict):
        raise SavedModelError(
            f"{path} does not match its recorded hash: it was damaged or changed; save it again"
        )
    return dict(record)


def _rebuild(record: Mapping[str, Any], content: Mapping[str, bytes]) -> SavedModel:
    model, shape = record["model"]["name"], tuple(record["model"]["shape"])
    if model not in MODELS:
        raise SavedModelError(f"unknown model {model!r}")
    weights = safetensors.torch.load(content[_WEIGHTS])
    _check_size(model, shape, sum(value.numel() for value in weights.values()))
    stack = stack_builder(model, shape, len(record["classes"]))([0])
    if any(not torch.isfinite(value).all() for value in weights.values()):
        raise SavedModelError("weights have NaN or infinity")
    stack.load_state_dict(weights)
    return SavedModel(
        stack=stack.eval(),
        model=model,
        shape=shape,
        class_names=tuple(record["classes"]),
        preprocessor=Preprocessor.restore(record["preprocessing"], safetensors.numpy.load(content[_COLUMNS])),
        target=record["target"],
        method=record["method"]["name"],
        settings=record["method"]["settings"],
        about=record["about"],
    )


def _check_size(model: str, shape: tuple[Any, ...], n_weights: int) -> None:
    """Refuse a description of a larger model than there are weights for, before memory is asked for it.

    Raises:
        SavedModelError: if the shape is none, or too large.
    """
    if not shape or not all(type(size) is int and size > 0 for size in shape):
        raise SavedModelError(f"examples of shape {shape!r}")
    # a layer on all of an example has a weight for each of its numbers; a convolution only for each channel
    needed = max(shape[0], math.prod(shape[1:])) if model == "cnn" else math.prod(shape)
    if needed > n_weights:
        raise SavedModelError(f"examples of shape {shape!r} for {n_weights} weights")
