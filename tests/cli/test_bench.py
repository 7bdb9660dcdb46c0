import json
import sys
from pathlib import Path

import pytest

from unrote.cli import main

SPEC = """\
name = "tiny"
search = 2
seeds = 2
methods = ["erm", "rwy"]
oracle = true

[criteria]
none = ["worst_class"]

[[tasks]]
name = "digits"
model = "linear"

[tasks.recipe]
learning_rate = [0.01, 0.02]
steps = 8
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["unrote", "bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_from_spec_to_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.toml").write_text(SPEC)
    store = ["--store", str(tmp_path / "s.sqlite")]
    assert run(monkeypatch, "run", str(tmp_path / "tiny.toml"), *store) == 0
    captured = capsys.readouterr()
    assert "worst_class" in captured.out
    assert "runs done" in captured.err
    assert run(monkeypatch, "run", str(tmp_path / "tiny.toml"), *store, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["pending"] == 0
    assert "; 0 of them now" in captured.err

    assert run(monkeypatch, "status", *store, "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["runs"]["done"] == status["runs"]["expected"] > 0
    assert run(monkeypatch, "status", *store) == 0
    assert "still to come" in capsys.readouterr().out

    for kind, sign in (
        ("markdown", "| erm |"),
        ("csv", "task,method"),
        ("latex", "\\toprule"),
        ("json", '"rows"'),
    ):
        assert run(monkeypatch, "table", *store, "--format", kind) == 0
        assert sign in capsys.readouterr().out

    assert run(monkeypatch, "compare", "erm", "rwy", *store, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["seeds"] == [1, 2]
    assert run(monkeypatch, "compare", "erm", "rwy", *store) == 0
    assert "2 seeds can show no p below 0.5" in capsys.readouterr().out


def test_an_error_in_a_spec_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text(SPEC.replace('"rwy"', '"rwx"'))
    assert run(monkeypatch, "run", str(tmp_path / "bad.toml"), "--store", str(tmp_path / "s")) == 2
    assert "bad.toml, line 4: methods[1].name: unknown method 'rwx'" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_table_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "table", "--store", str(tmp_path / "s")) == 2
    assert "no store of results" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
