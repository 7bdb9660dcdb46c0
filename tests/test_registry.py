"""Registries fill themselves from the files of a package, when they are first asked."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unrote.errors import UnknownNameError, UnroteError
from unrote.registry import Registry

FILE = """
import shelf
shelf.THINGS.add({name!r}, {item!r})
"""


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[str]]:
    """The registry of a package made for the test, with two files that register a thing each."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from unrote.registry import Registry\nTHINGS = Registry('thing', 'shelf')\n"
    )
    (folder / "second.py").write_text(FILE.format(name="vase", item="blue"))
    (folder / "first.py").write_text(FILE.format(name="bowl", item="green"))
    monkeypatch.syspath_prepend(tmp_path)
    import shelf  # type: ignore[import-not-found]

    yield shelf.THINGS
    for name in [name for name in sys.modules if name.split(".")[0] == "shelf"]:
        del sys.modules[name]


def test_files_are_read_at_the_first_question(things: Registry[str]) -> None:
    assert "shelf.first" not in sys.modules
    assert things.names() == ["bowl", "vase"]
    assert "shelf.first" in sys.modules


def test_things_by_name(things: Registry[str]) -> None:
    assert things["vase"] == "blue"
    assert things["bowl"] == "green"
    assert things.names() == ["bowl", "vase"]  # asked again, nothing is registered twice


def test_a_new_file_is_all_it_takes(things: Registry[str], tmp_path: Path) -> None:
    (tmp_path / "shelf" / "third.py").write_text(FILE.format(name="plate", item="red"))
    assert things["plate"] == "red"


def test_a_name_is_taken_once(things: Registry[str]) -> None:
    things.add("cup", "white")
    with pytest.raises(AssertionError, match="thing 'cup' is registered twice"):
        things.add("cup", "black")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vaes", "did you mean 'vase'? known: bowl, vase"),
        ("xyzzy", "unknown thing 'xyzzy': known: bowl, vase"),
    ],
)
def test_unknown_names_come_with_the_nearest(things: Registry[str], name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        things[name]
    assert hint in str(caught.value)
    assert isinstance(caught.value, UnroteError)
    assert isinstance(caught.value, KeyError)


def test_an_empty_registry_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownNameError, match="known: none"):
        Registry[str]("thing", "bare")["vase"]
