"""Every code block of the documentation runs, and the site builds without a warning."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parents[2]
PAGES = sorted(page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md"))


def _commands(block: str) -> Iterator[str]:
    """The lines after a prompt, with those that a backslash continues."""
    for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE):
        yield match[1]


def _run(example: Example) -> str | None:
    for command in _commands(example.parsed):
        # the commands of the environment that the tests run in
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command], env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        if done.returncode:
            return f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return None


def _write(example: Example) -> None:
    """A file whose first line is a comment with its name."""
    name = example.parsed.splitlines()[0].removeprefix("# ")
    Path(name).write_text(example.parsed)


def _has_code(page: Path) -> bool:
    return bool(re.search(r"^```(python|console)", (ROOT / page).read_text(), re.MULTILINE))


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("shapes_unchecked")  # as for those who read the page
@pytest.mark.parametrize("page", [page for page in PAGES if _has_code(page)], ids=str)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parsers = [
        PythonCodeBlockParser(),
        SkipParser(),
        CodeBlockParser(language="console", evaluator=_run),
        CodeBlockParser(language="toml", evaluator=_write),
    ]
    document = Sybil(parsers, path=str(ROOT)).parse(ROOT / page)
    examples = list(document.examples())
    assert examples
    for example in examples:
        with suppress(SkipTest):  # of a block that needs what is not installed
            example.evaluate()


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").exists()
