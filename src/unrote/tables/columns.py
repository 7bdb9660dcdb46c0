"""A table in memory: columns of four types, whatever file they came from.

Strings are held as codes into a list of their distinct values, so that a column of a million categories costs
four megabytes. What a column means to a model (a number, a category, a text, a date) is decided later, in
`unrote.tables.kinds`; here is only what the file holds.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from unrote.errors import DataError, UnknownNameError

MAX_COLUMNS = 20_000
MAX_CELLS = 1_000_000_000
"""Limits of a table: beyond them a small damaged or hostile file could fill the memory."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


class Column(ABC):
    """n values of one column."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, rows: Int[np.ndarray, " m"]) -> "Column":
        """The values of some rows, copied."""

    @property
    @abstractmethod
    def missing(self) -> Bool[np.ndarray, " n"]:
        """Which values are missing, (n,)."""


@dataclass(frozen=True)
class Numbers(Column):
    """Numbers of any numpy type, or truth values; NaN is missing."""

    values: Shaped[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Int[np.ndarray, " m"]) -> "Numbers":
        """See `Column.take`."""
        return Numbers(self.values[rows])

    @property
    def missing(self) -> Bool[np.ndarray, " n"]:
        """See `Column.missing`."""
        if self.values.dtype.kind != "f":
            return np.zeros(len(self.values), bool)
        return np.asarray(np.isnan(self.values))


@dataclass(frozen=True)
class Strings(Column):
    """Strings: value i is `levels[codes[i]]`, and missing where the code is -1."""

    codes: Int[np.ndarray, " n"]
    levels: Sequence[str]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Int[np.ndarray, " m"]) -> "Strings":
        """See `Column.take`; the levels stay, used or not."""
        return Strings(self.codes[rows], self.levels)

    @property
    def missing(self) -> Bool[np.ndarray, " n"]:
        """See `Column.missing`."""
        return np.asarray(self.codes < 0)

    @staticmethod
    def of(values: Sequence[str | None]) -> "Strings":
        """A column of these values; None and empty strings are missing."""
        levels: dict[str, int] = {}
        codes = [levels.setdefault(value, len(levels)) if value else -1 for value in values]
        return Strings(np.array(codes, np.int32), list(levels))

    @property
    def counts(self) -> Int[np.ndarray, " K"]:
        """How often each level occurs."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.levels))


@dataclass(frozen=True)
class Dates(Column):
    """Moments in time, datetime64[s]; NaT is missing."""

    values: Shaped[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Int[np.ndarray, " m"]) -> "Dates":
        """See `Column.take`."""
        return Dates(self.values[rows])

    @property
    def missing(self) -> Bool[np.ndarray, " n"]:
        """See `Column.missing`."""
        return np.asarray(np.isnat(self.values))


@dataclass(frozen=True)
class Pictures(Column):
    """Arrays of three dimensions, one per row: (n, channels, height, width)."""

    values: Shaped[np.ndarray, "n c h w"]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Int[np.ndarray, " m"]) -> "Pictures":
        """See `Column.take`."""
        return Pictures(self.values[rows])

    @property
    def missing(self) -> Bool[np.ndarray, " n"]:
        """See `Column.missing`."""
        return np.zeros(len(self.values), bool)


@dataclass(frozen=True)
class Unusable(Column):
    """Values that no model here can take, such as nested lists."""

    n: int
    what: str

    def __len__(self) -> int:
        return self.n

    def take(self, rows: Int[np.ndarray, " m"]) -> "Unusable":
        """See `Column.take`."""
        return Unusable(len(rows), self.what)

    @property
    def missing(self) -> Bool[np.ndarray, " n"]:
        """See `Column.missing`."""
        return np.zeros(self.n, bool)


@dataclass(frozen=True)
class Table:
    """Columns of equal length, by name.

    Args:
        source: the file's name, for messages.
        columns: at least one, in the file's order.
        row_names: what rows are called where a number says little (files of pictures); None numbers them from 1.

    Raises:
        DataError: if there are no columns or no rows, or columns differ in length.
    """

    source: str
    columns: Mapping[str, Column]
    row_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if not lengths or not min(lengths.values()):
            raise DataError(
                f"{self.source} has no rows: a table with a header and at least one row is wanted"
            )
        if len(set(lengths.values())) > 1:
            shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise DataError(
                f"{self.source}: {shortest!r} has {lengths[shortest]} rows and {longest!r} "
                f"{lengths[longest]}: one value per row is wanted"
            )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> Column:
        if name not in self.columns:
            raise UnknownNameError(f"column of {self.source}", name, self.columns)
        return self.columns[name]

    def row_name(self, row: int) -> str:
        """What a row is called: its number, where 1 is the first below the header, or its file."""
        return str(row + 1) if self.row_names is None else self.row_names[row]


def check_size(source: str, n_rows: int, n_columns: int) -> None:
    """Refuse a table beyond the limits before memory is taken for it.

    Raises:
        DataError: if it has too many columns or cells.
    """
    if n_columns > MAX_COLUMNS:
        raise DataError(f"{source} has {n_columns:,} columns: at most {MAX_COLUMNS:,} are read; choose some")
    if n_rows * n_columns > MAX_CELLS:
        raise DataError(
            f"{source} has {n_rows:,} rows of {n_columns:,} values: at most {MAX_CELLS:,} values are read; "
            "take a sample of the rows"
        )


def parse_number(text: str) -> float:
    """The number that a string shows, with a decimal point or a decimal comma; NaN if it shows none."""
    text = text.strip()
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    # float() alone would also take "1_000", "nan" and "infinity"
    return float(text) if _NUMBER.fullmatch(text) else np.nan


def as_numbers(column: Column) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """A column as float64, NaN where missing, and which of its values are there but are not numbers."""
    if isinstance(column, Numbers):
        return column.values.astype(np.float64, copy=False), np.zeros(len(column), bool)
    if isinstance(column, Strings):
        parsed = np.array([*map(parse_number, column.levels), np.nan])  # code -1 finds the NaN at the end
        values = parsed[column.codes]
    else:
        values = np.full(len(column), np.nan)
    return values, np.isnan(values) & ~column.missing


def as_dates(column: Column) -> tuple[Shaped[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """A column as datetime64[s], NaT where missing, and which of its values are there but are not dates."""
    if isinstance(column, Dates):
        return column.values, np.zeros(len(column), bool)
    values = np.full(len(column), np.datetime64("NaT"), "datetime64[s]")
    if isinstance(column, Strings):
        parsed = np.array([*map(_parse_date, column.levels), np.datetime64("NaT")], "datetime64[s]")
        values = parsed[column.codes]
    return values, np.isnat(values) & ~column.missing


def _parse_date(text: str) -> np.datetime64:
    from datetime import datetime, timezone

    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return np.datetime64("NaT")
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return np.datetime64(moment, "s")


def as_strings(column: Column) -> Strings:
    """A column as strings: whole numbers without a point, truth values as True and False, dates as ISO 8601."""
    if isinstance(column, Strings):
        return column
    if not isinstance(column, (Numbers, Dates)):
        return Strings(np.full(len(column), -1, np.int32), [])
    distinct, codes = np.unique(column.values, return_inverse=True)
    codes = np.where(column.missing, -1, codes).astype(np.int32)
    return Strings(codes, [_show(value) for value in distinct])


def _show(value: np.generic) -> str:
    if isinstance(value, np.floating) and np.isfinite(value) and float(value).is_integer():
        return str(int(value))
    return str(value)
