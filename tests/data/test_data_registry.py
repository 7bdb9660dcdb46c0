import subprocess
import sys
from pathlib import Path

import pytest

import unrote.data
from unrote.data import Task, load_task, register_task, task_names, task_sources
from unrote.errors import OptionError, UnknownNameError


def test_the_sources_are_found() -> None:
    assert {"digits", "fashion", "interpretable"} <= set(task_names())
    assert task_names() == sorted(task_names())


def test_sources_say_what_they_are_and_take() -> None:
    for name, source in task_sources().items():
        assert source.name == name
        assert source.description
        assert "\n" not in source.description
        # what a user's own folder holds is not drawn at random
        assert source.options["root"] is None if "root" in source.options else source.options["seed"] == 0
    assert task_sources()["digits"].options["n_train"] == 1000


def test_unknown_task() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        load_task("digit")


def test_unknown_option() -> None:
    with pytest.raises(
        OptionError, match=r"no option 'alignement'.*'alignment'.*valid: n_train, n_validation, "
    ):
        load_task("digits", alignement=0.9)


def test_a_new_source_is_one_new_file(tmp_path: Path) -> None:
    """In a process of its own, as a registered task stays registered."""
    (tmp_path / "coins.py").write_text(
        "import torch\n"
        "from unrote.data import Split, Task, register_task\n"
        "@register_task('coins', 'two coins')\n"
        "def coins(*, n: int = 4) -> Task:\n"
        "    return Task('coins', Split(torch.zeros(n, 1), torch.arange(n) % 2))\n"
    )
    script = (
        "import unrote.data\n"
        f"unrote.data.__path__.append({str(tmp_path)!r})\n"
        "assert 'coins' in unrote.data.task_names()\n"
        "assert len(unrote.data.load_task('coins', n=6).train) == 6\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(unrote.data.__path__[0]).parents[1])


def test_a_name_is_taken_once() -> None:
    task_names()

    def another() -> Task:
        raise NotImplementedError

    with pytest.raises(AssertionError, match="registered twice"):
        register_task("digits", "another")(another)
    assert task_sources()["digits"].build is not another


def test_looking_up_names_imports_nothing_heavy() -> None:
    script = (
        "import sys, unrote.data\n"
        "unrote.data.task_names()\n"
        "print(sorted({'sklearn', 'scipy', 'pandas', 'PIL'} & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(unrote.data.__path__[0]).parents[1],
    )
    assert run.stdout.strip() == "[]"
