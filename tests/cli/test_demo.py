import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unrote.cli.app import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def output(folder: Path) -> str:
    run = CliRunner().invoke(app, ["demo", "-o", str(folder)])
    assert run.exit_code == 0, run.output
    return run.stdout


def test_prints_both_methods_and_every_group(output: str) -> None:
    for text in ("ERM", "MAT", "average", "worst group (95% interval)", "0-4, channel 1 bright", "seconds"):
        assert text in output


def test_progress_is_not_on_standard_output(output: str) -> None:
    assert "training" not in output


def test_draws_a_picture(output: str, folder: Path) -> None:
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder / "demo.png") in output.replace("\n", "")


@pytest.mark.usefixtures("shapes_unchecked")
def test_json(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["demo", "--seed", "1", "--json", "-o", str(tmp_path)])
    erm, mat = json.loads(run.stdout)["results"]
    assert (erm["method"], mat["method"]) == ("erm", "mat")
    assert mat["worst_group"]["accuracy"] > erm["worst_group"]["accuracy"] + 0.25
    assert len(erm["groups"]) == 4
