import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import unrote.demo
from unrote.cli.app import app
from unrote.data import Task
from unrote.demo import Trained, learned_by_rote, run_demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> tuple[str, tuple[Task, list[Trained]]]:
    """What the command prints, and what it trained."""
    results: list[tuple[Task, list[Trained]]] = []

    def run_and_keep(seed: int, *, progress: bool) -> tuple[Task, list[Trained]]:
        results.append(run_demo(seed, progress=progress))
        return results[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unrote.demo, "run_demo", run_and_keep)
        run = CliRunner().invoke(app, ["demo", "-o", str(folder)])
    assert run.exit_code == 0, run.output
    return run.stdout, results[0]


@pytest.fixture(scope="module")
def output(demo: tuple[str, tuple[Task, list[Trained]]]) -> str:
    return demo[0]


@pytest.fixture(scope="module")
def trained(demo: tuple[str, tuple[Task, list[Trained]]]) -> tuple[Task, list[Trained]]:
    return demo[1]


def test_prints_both_methods_and_every_group(output: str) -> None:
    for text in ("ERM", "MAT", "average", "worst group (95% interval)", "0-4, channel 1 bright", "seconds"):
        assert text in output


def test_progress_is_not_on_standard_output(output: str) -> None:
    assert "training" not in output


def test_draws_a_picture(output: str, folder: Path) -> None:
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder / "demo.png") in output.replace("\n", "")


def test_json(trained: tuple[Task, list[Trained]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # trained before, as it takes long
    monkeypatch.setattr(unrote.demo, "run_demo", lambda seed, *, progress: trained)
    run = CliRunner().invoke(app, ["demo", "--json", "-o", str(tmp_path)])
    erm, mat = json.loads(run.stdout)["results"]
    assert (erm["method"], mat["method"]) == ("erm", "mat")
    assert mat["worst_group"]["accuracy"] > erm["worst_group"]["accuracy"] + 0.25
    assert len(erm["groups"]) == 4


def test_what_is_learned_by_rote_is_the_minority(trained: tuple[Task, list[Trained]]) -> None:
    task, (erm, mat) = trained
    score = learned_by_rote(task, erm.fitted, mat.fitted)
    assert torch.all(score.abs() <= 1)
    top = score.argsort(descending=True)[:12]
    minority = task.train.y != task.train.attribute
    assert minority[top].float().mean() > 0.9
    assert minority.float().mean() < 0.06
