"""Whatever is put into a saved model's folder, reading it ends in a model or in an `UnroteError`.

UNROTE_FUZZ sets the number of cases; the default is small enough for every run. Half of the cases carry the right
hashes, so that they reach what is behind them, as a folder that somebody made on purpose would.
"""

import contextlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_files import people, write_csv

from unrote.checkpoint import content_hash
from unrote.errors import SavedModelError, UnroteError
from unrote.saved import RECORD, SavedModel, _record_hash, load_model, save_model
from unrote.table_runs import fit_table, method_for_tables
from unrote.tables import make_task, read_table

CASES = int(os.environ.get("UNROTE_FUZZ", "40"))

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["linear", "mlp", "cnn", "numeric", "categorical", "__class__", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)

PATHS = st.lists(st.integers(0, 30), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with columns of every kind."""
    root = tmp_path_factory.mktemp("fuzz")
    table = read_table(write_csv(root / "people.csv", people(60)), as_text={"label", "colour"})
    saved = fit_table(make_task(table, "label"), method_for_tables("erm"), epochs=1).saved()
    save_model(root / "model", saved)
    return root / "model"


def read(folder: Path) -> None:
    """Read a folder, and take an `UnroteError` for an answer."""
    with warnings.catch_warnings(), contextlib.suppress(UnroteError):
        warnings.simplefilter("ignore")
        assert isinstance(load_model(folder), SavedModel)


def put(value: Any, path: list[int], new: Any) -> Any:
    """A copy of JSON with something else at the place that a list of numbers leads to."""
    if not path or not isinstance(value, (dict, list)) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    changed: Any = value.copy()
    changed[key] = put(value[key], path[1:], new)
    return changed


def seal(folder: Path, record: dict[str, Any]) -> None:
    """Write a record with the hashes that belong to what is there; a file that is not keeps what it has."""
    if isinstance(record.get("files"), dict):
        record["files"] = {
            name: content_hash((folder / name).read_bytes()) if (folder / name).is_file() else value
            for name, value in record["files"].items()
        }
    record["hash"] = _record_hash(record)
    (folder / RECORD).write_text(json.dumps(record))


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def restore(folder: Path, copied: Path) -> None:
    for path in folder.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())


quietly = settings(max_examples=CASES, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.usefixtures("shapes_unchecked")
class TestAFolder:
    @quietly
    @given(data=st.data())
    def test_with_bytes_changed(self, folder: Path, copied: Path, data: st.DataObject) -> None:
        restore(folder, copied)
        path = copied / data.draw(st.sampled_from(sorted(p.name for p in folder.iterdir())))
        content = path.read_bytes()
        at = int(data.draw(st.floats(0, 1)) * len(content))
        path.write_bytes(
            content[:at] + data.draw(st.binary(max_size=9)) + content[at + data.draw(st.integers(0, 9)) :]
        )
        read(copied)
        if data.draw(st.booleans()) and path.name != RECORD:
            seal(copied, json.loads((copied / RECORD).read_text()))
            read(copied)

    @quietly
    @given(paths=st.lists(st.tuples(PATHS, JSON), min_size=1, max_size=2))
    def test_whose_description_says_anything_under_its_hash(
        self, folder: Path, copied: Path, paths: list[tuple[list[int], Any]]
    ) -> None:
        restore(folder, copied)
        record = json.loads((copied / RECORD).read_text())
        for path, value in paths:
            record = put(record, path, value)
        if isinstance(record, dict):
            seal(copied, record)
        else:
            (copied / RECORD).write_text(json.dumps(record))
        read(copied)

    @quietly
    @given(data=st.data())
    def test_whose_tensors_are_others_under_their_hash(
        self, folder: Path, copied: Path, data: st.DataObject
    ) -> None:
        restore(folder, copied)
        path = copied / data.draw(st.sampled_from(["weights.safetensors", "preprocessing.safetensors"]))
        arrays = safetensors.numpy.load(path.read_bytes())
        names = sorted(arrays)
        if not names:
            return
        name = data.draw(st.sampled_from(names))
        kind = data.draw(st.sampled_from(["float32", "float64", "int64", "uint8", "bool", "float16"]))
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        change = data.draw(st.sampled_from(["gone", "renamed", "other", "nan"]))
        value = arrays.pop(name)
        if change == "renamed":
            arrays[data.draw(st.text(st.characters(codec="ascii"), min_size=1, max_size=5))] = value
        elif change == "other":
            arrays[name] = np.ones(shape, kind)
        elif change == "nan":
            arrays[name] = np.full(value.shape, np.nan, np.float32)
        path.write_bytes(safetensors.numpy.save(arrays))
        seal(copied, json.loads((copied / RECORD).read_text()))
        read(copied)

    def test_whose_description_asks_for_more_memory_than_its_weights(
        self, folder: Path, copied: Path
    ) -> None:
        for name, shape in (("linear", [10**12]), ("mlp", [10**6, 10**6]), ("cnn", [1, 10**6, 10**6])):
            restore(folder, copied)
            record = json.loads((copied / RECORD).read_text())
            record["model"] = {"name": name, "shape": shape}
            seal(copied, record)
            with pytest.raises(SavedModelError, match=r"for \d+ weights"):
                load_model(copied)
