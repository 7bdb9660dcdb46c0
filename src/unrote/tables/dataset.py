"""From tables to a task: classes and groups by name, splits, and columns turned into features."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from unrote.data import Split, Task
from unrote.errors import DataError, OptionError, TableWarning
from unrote.seeding import generator
from unrote.tables.columns import Strings, Table, Unusable, as_numbers, as_strings
from unrote.tables.kinds import choose_kinds
from unrote.tables.preprocessing import Preprocessor

_MAX_CLASSES = 1000
_MIN_ROWS = 5  # of a class: fewer leave no row of it for each split
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TableTask:
    """A task made of tables.

    Args:
        task: what methods are given.
        preprocessor: how its features were made.
        target: the column of classes.
        group: the column of attributes, if there is one.
        tables: the table that each split's rows are of, by split.
        rows: the rows of each split, in the order of its examples.
    """

    task: Task
    preprocessor: Preprocessor
    target: str
    group: str | None
    tables: Mapping[str, Table]
    rows: Mapping[str, Int[np.ndarray, " _"]]


def make_task(
    table: Table,
    target: str,
    *,
    group: str | None = None,
    ignore: Collection[str] = (),
    kinds: Mapping[str, str] | None = None,
    validation: float | Table = 0.1,
    test: float | Table = 0.2,
    seed: int = 0,
) -> TableTask:
    """Make a task of a table.

    The group column is for scoring and for methods that need it: a model is not shown it.

    Args:
        table: training rows, and those that validation and test shares are taken from.
        target: the column of classes.
        group: a column of attributes with a few values.
        ignore: columns that a model is not shown.
        kinds: kinds of columns, where what they look like misleads.
        validation: share of the rows in [0, 1), drawn within each class; or a table of its own.
        test: likewise.
        seed: of the draw.

    Raises:
        DataError: if a column is missing or cannot be handled, or classes are too few, too many or too small.
        OptionError: if options contradict each other or are out of range.
    """
    _check_options(table, target, group, ignore, validation, test)
    y, present = _classes(table, target)
    class_names = _names(y, np.flatnonzero(present))
    _check_classes(table, target, y, present, class_names)
    attributes = None if group is None else _attributes(table[group], group)
    attribute_names = [] if attributes is None else _names(attributes, np.flatnonzero(present))
    kinds = choose_kinds(table, without={target, *ignore, *([group] if group else [])}, given=kinds)
    rows = _draw(_index(y, class_names), np.flatnonzero(present), validation, test, seed)
    preprocessor = Preprocessor.fit(table, kinds, rows["train"])
    tables = {"train": table}
    for name, part in (("validation", validation), ("test", test)):
        if isinstance(part, Table):
            tables[name], rows[name] = part, np.arange(len(part))
        elif name in rows:
            tables[name] = table
    splits = {}
    for name, source in tables.items():
        with warnings.catch_warnings():
            if source is table:  # all there is to say of it has been said
                warnings.simplefilter("ignore", TableWarning)
            splits[name] = _split(
                source, rows[name], preprocessor, (target, class_names), (group, attribute_names)
            )
    task = Task(
        Path(table.source).stem,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        class_names=tuple(class_names),
        attribute_names=tuple(attribute_names),
    )
    return TableTask(task, preprocessor, target, group, tables, rows)


def _check_options(
    table: Table,
    target: str,
    group: str | None,
    ignore: Collection[str],
    validation: float | Table,
    test: float | Table,
) -> None:
    for name in (target, *([group] if group is not None else []), *ignore):
        table[name]  # an unknown column is an error that names the nearest
    if group == target:
        raise OptionError(f"target and group are both {target!r}: two columns are wanted")
    if target in ignore:
        raise OptionError(f"the target {target!r} cannot be ignored")
    shares = {"validation": validation, "test": test}
    total = 0.0
    for name, share in shares.items():
        if not isinstance(share, Table):
            if not 0 <= share < 1:
                raise OptionError(f"{name}={share}: a share in [0, 1) or a file is wanted")
            total += share
    if total > 0.9:
        raise OptionError(
            f"validation and test take {total:.0%} of the rows: leave at least 10% for training"
        )


def _classes(table: Table, target: str) -> tuple[Strings, np.ndarray]:
    """The target as strings, and which rows have one.

    Raises:
        DataError: if no row has, or it is not classes.
    """
    column = table[target]
    if isinstance(column, Unusable):
        raise DataError(f"target {target!r} has {column.what}: a class per row is wanted")
    y = as_strings(column)
    present = ~y.missing
    if not present.any():
        raise DataError(f"target {target!r} of {table.source} has no values: a class per row is wanted")
    if not present.all():
        warnings.warn(
            f"{int((~present).sum())} of {len(y)} rows have no {target!r} and are left out",
            TableWarning,
            stacklevel=3,
        )
    return y, present


def _check_classes(
    table: Table, target: str, y: Strings, present: np.ndarray, class_names: Collection[str]
) -> None:
    n, different = int(present.sum()), len(class_names)
    if different == 1:
        raise DataError(
            f"target {target!r} of {table.source} is {next(iter(class_names))!r} in all rows: two or more "
            "classes are wanted"
        )
    numbers, lost = as_numbers(y)
    fractions = not lost.any() and bool((numbers[present] % 1 != 0).any())
    if different > _MAX_CLASSES or (different > 20 and (fractions or different > n / 4)):
        what = "numbers to estimate" if not lost.any() else "almost a class per row"
        raise DataError(
            f"target {target!r} of {table.source} has {different:,} different values in {n:,} rows, which looks "
            f"like {what}: classes that recur are wanted, at most {_MAX_CLASSES:,}; put numbers into bins first"
        )
    counts = np.bincount(_index(y, class_names)[present], minlength=different)
    small = [f"{name!r} has {c}" for name, c in zip(class_names, counts, strict=True) if c < _MIN_ROWS]
    if small:
        raise DataError(
            f"classes of {target!r} with fewer than {_MIN_ROWS} rows cannot be learned and tested: "
            f"{', '.join(small[:5])}; merge them with others or drop these rows"
        )


def _attributes(column: object, group: str) -> Strings:
    if isinstance(column, Unusable):
        raise DataError(f"group {group!r} has {column.what}: a few values that recur are wanted")
    values = as_strings(column)  # type: ignore[arg-type]
    different = int((values.counts > 0).sum())
    if different > 100:
        raise DataError(
            f"group {group!r} has {different} different values: at most 100 are wanted, each with many rows; put "
            "numbers into bins first"
        )
    if values.missing.any():
        values = Strings(
            np.where(values.missing, len(values.levels), values.codes), [*values.levels, "(missing)"]
        )
    return values


def _names(values: Strings, rows: Int[np.ndarray, " m"]) -> list[str]:
    """The values that rows have: in order of size if all are numbers, else of the alphabet."""
    used = values.take(rows).counts > 0
    names = [level for level, is_used in zip(values.levels, used, strict=True) if is_used]
    numbers, lost = as_numbers(Strings(np.arange(len(names)), names))
    return sorted(names) if lost.any() else [names[place] for place in np.lexsort((np.array(names), numbers))]


def _index(values: Strings, names: Collection[str]) -> Int[np.ndarray, " n"]:
    """Place of each value among the names, -1 where it is missing or none of them."""
    place = {name: index for index, name in enumerate(names)}
    places = np.array([*(place.get(level, -1) for level in values.levels), -1])  # code -1 finds the last
    return np.asarray(places[values.codes])


def _draw(
    y: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " m"],
    validation: float | Table,
    test: float | Table,
    seed: int,
) -> dict[str, Int[np.ndarray, " _"]]:
    """Rows of each split, every class in proportion, at random."""
    import torch

    shares = {name: s for name, s in (("validation", validation), ("test", test)) if not isinstance(s, Table)}
    found: dict[str, list[np.ndarray]] = {name: [] for name in _SPLITS}
    random = generator(seed, "split")
    for label in np.unique(y[rows]):
        members = rows[y[rows] == label]
        members = members[torch.randperm(len(members), generator=random).numpy()]
        start = 0
        for name, share in shares.items():
            stop = start + (max(1, round(share * len(members))) if share else 0)
            found[name].append(members[start:stop])
            start = stop
        found["train"].append(members[start:])
    drawn = {name: np.sort(np.concatenate(parts)) for name, parts in found.items() if parts}
    return {name: part for name, part in drawn.items() if len(part)}


def _split(
    table: Table,
    rows: Int[np.ndarray, " m"],
    preprocessor: Preprocessor,
    target: tuple[str, list[str]],
    group: tuple[str | None, list[str]],
) -> Split:
    """A split of some rows.

    Raises:
        DataError: if a row has no class, or a class or attribute that training rows do not have.
    """
    indices = []
    for name, names in (target, group):
        if name is None:
            continue
        values = as_strings(table[name]) if name == target[0] else _attributes(table[name], name)
        values = values.take(rows)
        index = _index(values, names)
        if (index < 0).any():
            row = int((index < 0).argmax())
            shown = "no value" if values.codes[row] < 0 else repr(values.levels[values.codes[row]])
            raise DataError(
                f"{table.source}: {name!r} is {shown} in row {table.row_name(int(rows[row]))}; training has "
                f"{', '.join(map(repr, names[:10]))}"
            )
        indices.append(index)
    return Split(preprocessor.transform(table, rows), *indices)
