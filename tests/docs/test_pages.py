"""Every code block of the documentation runs, and the site builds without a warning."""

import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from unrote import __version__
from unrote.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted(page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md"))


def _run(example: Example) -> str | None:
    """The lines after a prompt, in this process, as another would first import for seconds."""
    for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", example.parsed, re.MULTILINE):
        arguments = shlex.split(command.replace("\\\n", " "), comments=True)
        assert arguments[0] == "unrote", f"{command}: only commands of unrote can be run"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", arguments)
            try:
                main()
            except SystemExit as end:
                if end.code:
                    return f"{command}: exit code {end.code}"
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


def test_the_command_is_there() -> None:
    """As a shell finds it in the environment that the tests run in."""
    command = Path(sys.executable).with_name("unrote")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").exists()
