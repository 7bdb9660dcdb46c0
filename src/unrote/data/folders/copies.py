"""A user's copy of a published data set: its rows, what they are counted against, and a task made of it."""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64

from unrote.data.folders.examples import Examples
from unrote.data.task import Split, Task
from unrote.errors import DataError, OptionError

Counts = Literal["published", "any"]
"""What the number of examples must be: as published, or whatever the copy has."""

ENVIRONMENT = "UNROTE_DATA"
SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Published:
    """How many examples a data set has, as its authors and the papers that use it say.

    Args:
        splits: examples of each split.
        groups: examples of each group, in the order of group indices, of the splits where they are known.
    """

    splits: Mapping[str, int]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Copy:
    """A data set found in a folder.

    Args:
        name: of the task it makes.
        layout: in which of the ways that are about it was found.
        metadata: the file that lists its examples.
        examples: what a model is shown, one entry per row.
        split: (n,) 0 training, 1 validation, 2 test.
        y: (n,) classes.
        attribute: (n,) attributes.
        class_names: one per class.
        attribute_names: one per attribute.
        shortcut: one line on the attribute.
        published: counts to compare with; None where nobody published them.
        membership: (n, G) which overlapping groups an example is in, where that is how the set is scored.
        membership_names: one per overlapping group.
    """

    name: str
    layout: str
    metadata: Path
    examples: Examples
    split: Int64[np.ndarray, " n"]
    y: Int64[np.ndarray, " n"]
    attribute: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    shortcut: str
    published: Published | None = None
    membership: Bool[np.ndarray, "n G"] | None = None
    membership_names: tuple[str, ...] = ()

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups that are counted: "class, attribute"."""
        return tuple(f"{c}, {a}" for c in self.class_names for a in self.attribute_names)

    def group_counts(self) -> dict[str, tuple[int, ...]]:
        """Examples of each group (class times attribute) in each split that has any."""
        group = self.y * len(self.attribute_names) + self.attribute
        n = len(self.group_names)
        counts = {
            name: np.bincount(group[self.split == place], minlength=n)
            for place, name in enumerate(SPLIT_NAMES)
        }
        return {name: tuple(values.tolist()) for name, values in counts.items() if values.sum()}

    def split_counts(self) -> dict[str, int]:
        """Examples of each split that has any."""
        return {name: sum(values) for name, values in self.group_counts().items()}

    def membership_counts(self) -> dict[str, tuple[int, ...]]:
        """Examples in each overlapping group, by split; empty where groups do not overlap."""
        if self.membership is None:
            return {}
        return {
            name: tuple(self.membership[self.split == place].sum(0).tolist())
            for place, name in enumerate(SPLIT_NAMES)
        }

    def differences(self) -> list[str]:
        """In what the counts are not the published ones; empty if in nothing, or nothing was published."""
        if self.published is None:
            return []
        found, groups = self.split_counts(), self.group_counts()
        said = [
            f"{name} has {found.get(name, 0):,} examples, {wanted:,} were published"
            for name, wanted in self.published.splits.items()
            if found.get(name, 0) != wanted
        ]
        for name, wanted in self.published.groups.items():
            if found.get(name, 0) == self.published.splits.get(name) and groups[name] != wanted:
                worst = max(range(len(wanted)), key=lambda g: abs(groups[name][g] - wanted[g]))
                said.append(
                    f"group {self.group_names[worst]!r} of {name} has {groups[name][worst]:,} examples, "
                    f"{wanted[worst]:,} were published"
                )
        return said

    def task(self, counts: Counts = "published", **how: Any) -> Task:
        """The task, its examples read as `Examples.inputs` says.

        Args:
            counts: "published" refuses a copy with other numbers of examples, "any" takes it as it is.
            **how: options of the examples, such as `encoder` or `workers`.

        Raises:
            DataError: if counts differ, or a split is empty.
            OptionError: if `counts` is neither.
        """
        if counts not in get_args(Counts):
            raise OptionError(f"counts={counts!r}: 'published' or 'any' is wanted")
        if counts == "published" and (said := self.differences()):
            raise DataError(
                f"{self.metadata} is not {self.name} as published: {'; '.join(said)}. Copy it again, or pass "
                "counts='any' to use it as it is (its results then compare with nobody's)"
            )
        inputs = self.examples.inputs(**how)
        splits = {}
        for place, name in enumerate(SPLIT_NAMES):
            rows = np.flatnonzero(self.split == place)
            if not len(rows):
                raise DataError(f"{self.metadata} has no examples of the {name} split: copy it again")
            membership = None if self.membership is None else self.membership[rows]
            splits[name] = Split(inputs(rows), self.y[rows], self.attribute[rows], membership=membership)
        return Task(
            name=self.name,
            class_names=self.class_names,
            attribute_names=self.attribute_names,
            shortcut=self.shortcut,
            overlapping_names=self.membership_names,
            **splits,
        )


Find = Callable[[Path], "list[Copy]"]
"""Finds the copies of one data set in a folder: none, one, or one per layout."""


def root_folder(root: "str | os.PathLike[str] | None") -> Path:
    """The folder to look in: the one given, else $UNROTE_DATA.

    Raises:
        OptionError: if there is neither.
    """
    given = root or os.environ.get(ENVIRONMENT)
    if not given:
        raise OptionError(f"no folder to look in: pass root=, or set the environment variable {ENVIRONMENT}")
    return Path(given).expanduser()


def choose(name: str, copies: list[Copy], root: Path, layout: str | None, wanted: str) -> Copy:
    """The copy to use: the one of a layout, or the first.

    Args:
        name: of the task.
        copies: found in the folder.
        root: the folder.
        layout: asked for, or None.
        wanted: which files make a copy, for the message.

    Raises:
        DataError: if there is none.
        OptionError: if there is none of that layout.
    """
    copies = [copy for copy in copies if copy.name == name]
    if not copies:
        exists = "has no copy of it" if root.is_dir() else "is no folder"
        raise DataError(f"{name}: {root} {exists}; {wanted}")
    if layout is None:
        return copies[0]
    layouts = [copy.layout for copy in copies]
    if layout not in layouts:
        near = difflib.get_close_matches(layout, layouts, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise OptionError(f"layout={layout!r}: {root} has {', '.join(layouts)}{hint}")
    return copies[layouts.index(layout)]


def first_file(root: Path, *candidates: str) -> Path | None:
    """The first of these files, relative to a folder, that is there."""
    return next((root / name for name in candidates if (root / name).is_file()), None)
