import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from unrote.cli.app import app
from unrote.figures import FIGURES, Claim, FigureResult, FigureSource, NumberTable


@pytest.fixture
def false_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure "0" whose claim its numbers do not bear out."""
    FIGURES.names()  # the registered ones first

    def draw(*, seed: int = 7, fast: bool = False, progress: bool = False) -> FigureResult:
        return FigureResult({"seed": seed}, (Claim("one is two", False),), Figure())

    monkeypatch.setitem(FIGURES._items, "0", FigureSource("0", "a false claim", draw))


@pytest.mark.usefixtures("false_claim")
def test_a_claim_that_fails_is_exit_code_1(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["figure", "0", "-o", str(tmp_path)])
    assert run.exit_code == 1
    assert "FAILS" in run.output
    assert json.loads((tmp_path / "figure-0.json").read_text()) == {"seed": 7}


@pytest.mark.usefixtures("false_claim")
def test_json_names_claims_and_files(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["figure", "0", "--seed", "3", "--json", "-o", str(tmp_path)])
    (record,) = json.loads(run.stdout)
    assert record["claims"] == [{"claim": "one is two", "holds": False}]
    assert all(Path(file).exists() for file in record["files"])
    assert json.loads((tmp_path / "figure-0.json").read_text()) == {"seed": 3}


@pytest.mark.usefixtures("false_claim")
def test_features_are_for_figures_that_take_them(run: Callable[..., Any], tmp_path: Path) -> None:
    outcome = run("figure", "0", "--features", tmp_path / "features.pt", "-o", tmp_path)
    assert outcome.code != 0
    assert "takes no features" in outcome.err
    assert not (tmp_path / "figure-0.json").exists()


def test_numbers_are_printed_before_the_claims(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    FIGURES.names()
    table = NumberTable(("minority", "accuracy"), (("erm", "0.15"), ("mat", "0.91")))

    def draw(*, fast: bool = False, progress: bool = False) -> FigureResult:
        return FigureResult({}, (Claim("0.15 against 0.91", True),), Figure(), table)

    monkeypatch.setitem(FIGURES._items, "0", FigureSource("0", "numbers", draw))
    outcome = run("figure", "0", "-o", tmp_path)
    assert outcome.code == 0
    rows = [line.split() for line in outcome.out.splitlines()]
    assert ["mat", "0.91"] in rows
    assert rows.index(["mat", "0.91"]) < rows.index(["holds", "0.15", "against", "0.91"])
