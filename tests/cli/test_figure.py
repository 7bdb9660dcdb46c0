import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from unrote.cli.app import app
from unrote.figures import FIGURES, Claim, FigureResult, FigureSource


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
