"""`unrote memorize` on a file, from the first row to the exit code."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from table_files import people, write_csv

Run = Callable[..., Any]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    write_csv(path, people(200))
    return path


def test_compares_methods_by_group(run: Run, table: Path) -> None:
    result = run("memorize", table, "--target", "label", "--group", "colour", "--epochs", 2, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert {one["method"] for one in found["kept"]} == {"erm", "mat"}
    assert sum(one["n"] for one in found["kept"] if one["method"] == "erm") == 200
    assert len(found["top"]["erm"]) == 15
    assert found["shifts"]


def test_every_row_to_a_file(run: Run, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    options = ("--target", "label", "--method", "erm", "--epochs", 2, "-o", output)
    result = run("memorize", table, *options)
    assert result.code == 0, result.err
    assert "How much is memorized?" in result.out
    assert "Noise or minority?" in result.out
    rows = list(csv.DictReader(output.open()))
    assert len(rows) == 200
    assert all(-1 <= float(row["erm_leave_one_out"]) <= 1 for row in rows)
    assert run("memorize", table, *options).code != 0  # it is there already


@pytest.mark.parametrize("score", ["subsampled", "data_map", "self_influence"])
def test_other_scores(run: Run, table: Path, score: str) -> None:
    result = run(
        "memorize", table, "--target", "label", "--score", score, "--models", 40, "--epochs", 1, "--json"
    )
    assert result.code == 0, result.err
    assert json.loads(result.out)["score"] == score


def test_unknown_score(run: Run, table: Path) -> None:
    result = run("memorize", table, "--target", "label", "--score", "leave_one")
    assert result.code != 0
    assert "leave_one_out" in result.err
