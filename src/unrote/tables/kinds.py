"""What each column means to a model: a number, a category, a text, a date, a picture; or nothing.

    numbers                              number, unless they count the rows or never change
    dates                                date
    strings: nine in ten show numbers    number, the others taken as missing
    strings: few values, many rows each  category
    strings: three words or more         text
    strings: nearly all different        nothing: an identifier can only be learned by rote
    strings: anything else               category, its rare values as one

What is left out or taken as missing is said in a `TableWarning` that names the column.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from unrote.errors import DataError, OptionError, TableWarning, UnknownNameError
from unrote.tables.columns import (
    Column,
    Dates,
    Numbers,
    Pictures,
    Strings,
    Table,
    Unusable,
    as_dates,
    as_numbers,
)

Kind = Literal["number", "category", "text", "date", "picture"]

_FEW = 50  # so many different strings are categories, however few the rows
_MANY_ROWS = 20  # or if each has so many rows on average
_IDENTIFIER = 0.9  # share of different values above which short strings identify rows
_NUMERIC = 0.9  # share of values that show numbers above which the column is numbers
_WORDS = 3.0  # mean number of words above which a string is a text
_SHOWN = 5


def choose_kinds(
    table: Table, *, without: Collection[str] = (), given: Mapping[str, str] | None = None
) -> dict[str, Kind]:
    """The kind of each column that a model can learn from, in the table's order.

    Args:
        table: all rows, so that what a column is does not depend on how they are split.
        without: columns to leave out, such as the target.
        given: kinds that the user knows, by column.

    Raises:
        DataError: if no column is left, or one cannot be handled at all.
        OptionError: if a given kind does not exist or does not fit.
        UnknownNameError: if a given column does not exist.
    """
    given = dict(given or {})
    for name, kind in given.items():
        if name not in table.columns:
            raise UnknownNameError(f"column of {table.source}", name, table.columns)
        if kind not in get_args(Kind):
            raise OptionError(f"kind {kind!r} of column {name!r}: {', '.join(get_args(Kind))} are wanted")
    kinds: dict[str, Kind] = {}
    dropped: dict[str, list[str]] = {}
    for name, column in table.columns.items():
        if name in without:
            continue
        reason = _useless(name, column) if name not in given else None
        if reason is not None:
            dropped.setdefault(reason, []).append(name)
        else:
            kinds[name] = _given(name, column, given[name]) if name in given else _kind(name, column)
    for reason, names in dropped.items():
        _say(f"left out {_list(names)}: {reason}")
    if not kinds:
        raise DataError(
            f"{table.source} has no column to learn from: besides the target, at least one is wanted whose "
            "values differ between rows and recur"
        )
    _check_pictures(kinds)
    return kinds


def _useless(name: str, column: Column) -> str | None:
    """Why a column cannot teach a model anything; None if it can.

    Raises:
        DataError: if it may well, but not as it is.
    """
    if isinstance(column, Unusable):
        raise DataError(
            f"column {name!r} has {column.what}, which no model here takes: turn it into numbers or strings, "
            f"or leave it out with --ignore {name!r}"
        )
    missing = column.missing
    if missing.all():
        return "all values are missing"
    if isinstance(column, Strings):
        return _useless_strings(column, int((~missing).sum()))
    if isinstance(column, (Numbers, Dates)):
        values = column.values
        _check_finite(name, column)
        if not missing.any() and bool((values == values[0]).all()):
            return "all values are the same"
        # a row counter tells where a row stood in the file, which new data will not repeat
        if (
            (
                isinstance(column, Numbers)
                and values.dtype.kind in "iuf"
                and values[0] in (0, 1)
                and len(values) > 2
            )
            and not missing.any()
            and bool((np.diff(values) == 1).all())
        ):
            return "it numbers the rows"
    return None


def _useless_strings(column: Strings, n: int) -> str | None:
    counts = column.counts
    different = int((counts > 0).sum())
    if different == 1 and n == len(column):
        return "all values are the same"
    if (
        different <= max(_FEW, _IDENTIFIER * n)
        or _words(column) >= _WORDS
        or _numeric_share(column) >= _NUMERIC
    ):
        return None
    return "nearly every value is different, as identifiers are"


def _check_finite(name: str, column: Column) -> None:
    if isinstance(column, Numbers) and column.values.dtype.kind == "f":
        infinite = np.isinf(column.values)
        if infinite.any():
            raise DataError(
                f"column {name!r} has {int(infinite.sum())} infinite or too large values, the first in row "
                f"{int(infinite.argmax()) + 1}: correct them, or leave them empty for missing"
            )


def _kind(name: str, column: Column) -> Kind:
    if isinstance(column, Pictures):
        return "picture"
    if isinstance(column, Dates):
        return "date"
    if isinstance(column, Numbers):
        return "number"
    assert isinstance(column, Strings)
    share = _numeric_share(column)
    n = int((column.codes >= 0).sum())
    different = int((column.counts > 0).sum())
    if share == 1 or (share >= _NUMERIC and different > 20):
        _check_finite(name, Numbers(as_numbers(column)[0]))
        warn_lost(name, column, as_numbers(column)[1], "numbers")
        return "number"
    if different <= _FEW or different * _MANY_ROWS <= n:
        return "category"
    return "text" if _words(column) >= _WORDS else "category"


def _given(name: str, column: Column, kind: str) -> Kind:
    """A kind that the user gave, if the column can be read so.

    Raises:
        OptionError: if not.
    """
    if isinstance(column, (Pictures, Unusable)) != (kind == "picture") or isinstance(column, Unusable):
        what = column.what if isinstance(column, Unusable) else type(column).__name__.lower()
        raise OptionError(f"column {name!r} has {what}: it cannot be read as kind {kind!r}")
    if kind in ("number", "date"):
        values, lost = as_numbers(column) if kind == "number" else as_dates(column)
        if lost.sum() == (~column.missing).sum():
            raise OptionError(f"column {name!r}: none of its values is a {kind}, such as {_example(column)}")
        if kind == "number":
            _check_finite(name, Numbers(values))
        warn_lost(name, column, lost, f"{kind}s")
    return kind  # type: ignore[return-value]


def warn_lost(name: str, column: Column, lost: np.ndarray, what: str) -> None:
    """Say that values which are not numbers or dates are taken as missing, if there are any."""
    if lost.any():
        row = int(lost.argmax())
        shown = column.levels[column.codes[row]] if isinstance(column, Strings) else "a value"
        _say(
            f"{int(lost.sum())} of {len(lost)} values of column {name!r} are not {what} and are taken as "
            f"missing, the first in row {row + 1}: {shown[:40]!r}"
        )


def _numeric_share(column: Strings) -> float:
    values, lost = as_numbers(column)
    present = int((column.codes >= 0).sum())
    return 1 - int(lost.sum()) / present if present and len(values) else 0.0


def _words(column: Strings) -> float:
    counts = column.counts
    words = np.array([len(level.split()) for level in column.levels])
    return float((words * counts).sum() / max(counts.sum(), 1))


def _example(column: Column) -> str:
    return repr(column.levels[0]) if isinstance(column, Strings) and column.levels else "the first"


def _check_pictures(kinds: Mapping[str, Kind]) -> None:
    pictures = [name for name, kind in kinds.items() if kind == "picture"]
    if pictures and len(kinds) > 1:
        others = _list([name for name in kinds if name != pictures[0]])
        raise DataError(
            f"{pictures[0]!r} holds pictures and there are other columns, {others}: a model takes either, so "
            "leave the others out with --ignore"
        )


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"column{'s' if len(names) > 1 else ''} {shown}{more}"


def _say(text: str) -> None:
    warnings.warn(text, TableWarning, stacklevel=2)
