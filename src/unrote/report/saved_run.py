"""A record of trained classifiers on disk: a folder with a JSON file and the arrays that it names.

    record.json                what `unrote.report.schema` describes
    arrays-HASH.safetensors    numbers of single examples

The arrays are written first, under a name that follows from what is in them, and the JSON file last; each is there
whole or not at all. So a kill at any moment leaves the old record or the new one. Nothing in it is code.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import ValidationError

from unrote.checkpoint import content_hash, write_atomically
from unrote.errors import DataError, OptionError
from unrote.report.schema import FORMAT, Contents, MethodRecord

RECORD = "record.json"
_MAX_JSON = 1 << 28  # bytes: no honest record is longer
_PER_EXAMPLE = ("y", "group", "inferred", "held_out", "p_held_out")
_PER_METHOD = ("predicted", "p_train", "memorization", "self_influence", "shift")


@dataclass(frozen=True)
class RunRecord:
    """A record of trained classifiers.

    Args:
        contents: all but the arrays.
        arrays: by name; see `unrote.report.schema`.
    """

    contents: Contents
    arrays: Mapping[str, np.ndarray]

    def of_method(self, k: int, name: str) -> np.ndarray | None:
        """An array of method number k, if it is there."""
        return self.arrays.get(f"{k}.{name}")


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a record may not be written to; worth asking before training.

    Raises:
        OptionError: if it has a record and `overwrite` is not set, or it is no folder, or has other things.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is a file: choose a folder for the record")
    if (folder / RECORD).exists():
        if not overwrite:
            raise OptionError(f"{folder} has a record: choose another folder, or pass --overwrite")
    elif folder.exists() and any(folder.iterdir()):
        raise OptionError(f"{folder} is not empty and has no record: choose another folder")


def write_record(folder: Path, contents: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a record to a folder, made if it is not there; one that is there is replaced.

    Args:
        folder: of the record.
        contents: the fields of `Contents` but "format" and "arrays".
        arrays: by name.

    Raises:
        DataError: if the folder cannot be written.
    """
    content = safetensors.numpy.save({name: np.ascontiguousarray(v) for name, v in arrays.items()})
    digest = content_hash(content)
    name = f"arrays-{digest}.safetensors"
    whole = Contents.model_validate({**contents, "format": FORMAT, "arrays": (name, digest)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
        write_atomically(folder / RECORD, whole.model_dump_json(indent=1).encode())
        for old in folder.glob("arrays-*.safetensors"):
            if old.name != name:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write a record to {folder}: {error.strerror}") from error


def find_records(path: Path) -> list[Path]:
    """The folders with records at a path: itself, or its subfolders.

    Raises:
        DataError: if there are none.
    """
    folder = path.parent if path.name == RECORD else path
    if (folder / RECORD).is_file():
        return [folder]
    found = sorted(child.parent for child in folder.glob(f"*/{RECORD}")) if folder.is_dir() else []
    if not found:
        raise DataError(
            f"{path} has no record of a run ({RECORD}): `unrote compare DATA -o {folder}` makes one; so does "
            "unrote.record.record_run"
        )
    return found


def read_record(folder: Path) -> RunRecord:
    """Read a record.

    Args:
        folder: that has it.

    Raises:
        DataError: if it is damaged, was changed, or has another format.
    """
    path = folder / RECORD
    contents = _read_contents(path)
    name, digest = contents.arrays
    if Path(name).name != name:
        raise DataError(f"{path} names arrays outside its folder: it was changed; record the run again")
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise DataError(f"{folder / name} cannot be read ({error.strerror}): record the run again") from error
    if content_hash(content) != digest:
        raise DataError(
            f"{folder / name} does not match its recorded hash: it was damaged or changed; record the run again"
        )
    try:
        arrays = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        raise DataError(f"{folder / name} cannot be read ({error}): record the run again") from error
    record = RunRecord(contents, arrays)
    _check(record, path)
    return record


def _read_contents(path: Path) -> Contents:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise DataError(f"{path} is too long for a record: it was damaged or changed")
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): record the run again") from error
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}): record the run again") from error
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT:
        raise DataError(
            f"{path} has format {found!r}, this version of unrote reads format {FORMAT}: record the run again"
        )
    try:
        return Contents.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} is no record that can be read ({where}: {first['msg']}): record the run again"
        ) from error


def _check(record: RunRecord, path: Path) -> None:
    """Whether arrays and contents fit each other.

    Raises:
        DataError: if they do not.
    """
    contents, arrays = record.contents, record.arrays
    n, n_classes = contents.data.rows.get("train", 0), len(contents.data.class_names)
    wrong = [
        name
        for name, array in arrays.items()
        if (name in _PER_EXAMPLE or name.partition(".")[2] in _PER_METHOD) and array.shape != (n,)
    ]
    listed = np.array(contents.examples.index, np.int64)
    for name in (
        "y",
        "held_out",
        "influence.test_y",
        *(f"{k}.predicted" for k in range(len(contents.methods))),
    ):
        if (
            name in arrays
            and arrays[name].size
            and not 0 <= arrays[name].min() <= arrays[name].max() < n_classes
        ):
            wrong.append(name)
    groups = len(contents.data.group_names)
    for name in ("group", "influence.test_group"):
        if (
            name in arrays
            and arrays[name].size
            and not -1 <= arrays[name].min() <= arrays[name].max() < groups
        ):
            wrong.append(name)
    if "y" not in arrays or (listed.size and not 0 <= listed.min() <= listed.max() < n):
        wrong.append("y")
    if len(contents.examples.names) != len(listed) or len(contents.examples.content) not in (0, len(listed)):
        wrong.append("examples")
    if wrong:
        raise DataError(f"{path}: {', '.join(wrong)} do not fit the rest: record the run again")


def merge(records: Mapping[str, RunRecord]) -> RunRecord:
    """One record of several, of the same data: their methods side by side.

    Args:
        records: by the name of their folder; the first gives all but the methods.

    Raises:
        DataError: if they are of different data.
    """
    names = list(records)
    first = records[names[0]]
    if len(records) == 1:
        return first
    data = {(one.contents.data.fingerprint, one.contents.data.scored_split) for one in records.values()}
    if len(data) > 1:
        raise DataError(
            f"the records {', '.join(names)} are of different data, which one page cannot compare: give one of them"
        )
    arrays = {name: value for name, value in first.arrays.items() if not name.split(".")[0].isdigit()}
    methods: list[MethodRecord] = []
    for name, record in records.items():
        same_cells = all(
            side in record.arrays and side in arrays and np.array_equal(record.arrays[side], arrays[side])
            for side in ("influence.train", "influence.test")
        )
        for k, method in enumerate(record.contents.methods):
            taken = any(method.name == other.name for other in methods)
            place = len(methods)
            methods.append(method.model_copy(update={"name": f"{method.name} ({name})"}) if taken else method)
            for key, value in record.arrays.items():
                owner, _, what = key.partition(".")
                if owner == str(k) and (what != "influence" or same_cells):
                    arrays[f"{place}.{what}"] = value
    missing = {key: value for record in records.values() for key, value in record.contents.missing.items()}
    # what one record lacks another may have, but only the first one's is shown
    missing = {key: value for key, value in missing.items() if ":" in key or key in first.contents.missing}
    contents = first.contents.model_copy(update={"methods": methods, "missing": missing})
    return replace(first, contents=contents, arrays=arrays)
