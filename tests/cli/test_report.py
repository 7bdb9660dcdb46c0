"""`unrote compare` and `unrote report`, from the data to the page and the exit code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from table_files import people, write_csv

Run = Callable[..., Any]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "people.csv", people(200))


def test_from_a_table_to_a_page(run: Run, table: Path, tmp_path: Path) -> None:
    folder, page = tmp_path / "run", tmp_path / "page.html"
    options = ("--target", "label", "--group", "colour", "--epochs", 2, "--set", "mat.temperature=0.5")
    result = run("compare", table, *options, "-o", folder)
    assert result.code == 0, result.err
    assert "Right in its worst group: ERM" in result.out
    assert "yes, red" in result.out
    result = run("report", folder, "-o", page, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["methods"] == ["erm", "mat"]
    assert found["bytes"] == page.stat().st_size
    text = page.read_text(encoding="utf-8")
    assert "people.csv: label" in text
    assert "<td>0.5</td>" in text  # the temperature among the settings


def test_page_is_replaced_only_if_asked(run: Run, table: Path, tmp_path: Path) -> None:
    folder, page = tmp_path / "run", tmp_path / "page.html"
    assert run("compare", table, "--target", "label", "-m", "erm", "--epochs", 1, "-o", folder).code == 0
    page.write_text("mine")
    result = run("report", folder, "-o", page)
    assert result.code == 2
    assert "--overwrite" in result.err
    assert page.read_text() == "mine"
    assert run("report", folder, "-o", page, "--overwrite").code == 0
    assert page.read_text().startswith("<!doctype html>")


def test_several_runs_of_the_same_data_on_one_page(run: Run, tmp_path: Path) -> None:
    for method in ("erm", "rwg"):
        options = ("-m", method, "--epochs", 2, "--json", "-o", tmp_path / "runs" / method)
        result = run("compare", "digits", "--option", "alignment=0.9", *options)
        assert result.code == 0, result.err
        assert list(json.loads(result.out)["scores"]) == [method]
    result = run("report", tmp_path / "runs", "-o", tmp_path / "page.html", "--json")
    assert json.loads(result.out)["methods"] == ["erm", "rwg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compare", "digit", "-o", "run"), "did you mean 'digits'"),
        (("compare", "digits", "--target", "label", "-o", "run"), "--target is of tables"),
        (("compare", "digits", "--set", "temperature=1", "-o", "run"), "METHOD.NAME=VALUE"),
        (("compare", "digits", "-m", "erm", "--set", "mat.temperature=1", "-o", "run"), "among erm"),
        (("compare", "people.csv", "--option", "seed=1", "--target", "label", "-o", "run"), "built-in tasks"),
        (("compare", "people.csv", "-o", "people.csv"), "is a file"),
        (("report", "nowhere"), "no record"),
        (("report", ".", "-o", "page.pdf"), "ends in .html"),
    ],
)
def test_mistakes(
    run: Run, table: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(table.parent)
    result = run(*arguments)
    assert result.code == 2
    assert said in " ".join(result.err.split())
    assert {file.name for file in table.parent.iterdir()} == {"people.csv"}
