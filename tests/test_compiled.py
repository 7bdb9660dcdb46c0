"""C that is compiled when it is wanted: by a real compiler, into a folder of one's own; and where it cannot be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unrote import compiled

needs_compiler = pytest.mark.skipif(
    compiled.library("linear_step", REAL="float") is None, reason="no C compiler"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where libraries are kept in this test."""
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    compiled.library.cache_clear()
    yield tmp_path / f"compiled-{os.getuid()}"
    compiled.library.cache_clear()


def found() -> bool:
    compiled.library.cache_clear()
    return compiled.library("linear_step", REAL="float") is not None


@needs_compiler
class TestLibrary:
    def test_is_compiled_once(self, folder: Path) -> None:
        assert found()
        (made,) = folder.iterdir()  # and nothing is left beside it
        before = made.stat().st_mtime_ns
        assert found()
        assert made.stat().st_mtime_ns == before

    def test_is_one_per_macro(self, folder: Path) -> None:
        assert compiled.library("linear_step", REAL="float") is not None
        assert compiled.library("linear_step", REAL="double") is not None
        assert len(list(folder.iterdir())) == 2

    def test_is_another_for_another_processor(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found()
        monkeypatch.setattr(compiled, "_processor", lambda: "of another kind")
        assert found()
        assert len(list(folder.iterdir())) == 2

    def test_is_nobody_elses(self, folder: Path) -> None:
        assert found()
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o777)
        assert not found()

    def test_that_is_broken_is_made_again(self, folder: Path) -> None:
        assert found()
        (made,) = folder.iterdir()
        made.unlink()
        made.write_bytes(b"")  # as after a loss of power
        assert found()

    def test_is_whole_where_several_processes_want_it(self, folder: Path) -> None:
        code = "import torch, unrote.compiled as c; assert c.library('linear_step', REAL='float')"
        processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
        assert len(list(folder.iterdir())) == 1

    def test_runs_in_one_thread_where_there_is_no_openmp(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = tmp_path / "without-openmp"
        script.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec cc "$@"\n')
        script.chmod(0o700)
        monkeypatch.setenv("CC", str(script))
        assert found()

    def test_is_compiled_once_where_there_is_no_openmp(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls, script = tmp_path / "calls", tmp_path / "without-openmp"
        script.write_text(
            f'#!/bin/sh\necho "$*" >> {calls}\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec cc "$@"\n'
        )
        script.chmod(0o700)
        monkeypatch.setenv("CC", str(script))
        assert found()
        before = calls.read_text()
        assert found()
        assert calls.read_text() == before


class TestThereIsNone:
    def test_where_it_is_switched_off(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNROTE_COMPILED", "0")
        assert not found()

    @pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "true"])
    def test_without_a_compiler(self, folder: Path, monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
        monkeypatch.setenv("CC", compiler)
        assert not found()
        assert not folder.exists() or list(folder.iterdir()) == []

    def test_where_nothing_can_be_written(self, folder: Path) -> None:
        folder.parent.rmdir()
        folder.parent.write_text("a file")
        assert not found()
