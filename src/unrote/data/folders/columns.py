"""Reading the metadata of a user's copy: a table with a header, whatever its delimiter, and numbers in it."""

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from unrote.errors import DataError

_DELIMITERS = (",", "\t", ";", "|", " ")

Columns = dict[str, list[str]]
"""Columns of a table by name."""


def header(path: Path) -> tuple[list[str], str]:
    """The names of a table's columns, and its delimiter: the first that gives more than one column.

    Raises:
        DataError: if the file cannot be read, or has no header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(100_000).rstrip("\r\n")
        splits = {delimiter: next(csv.reader([line], **_format(delimiter)), []) for delimiter in _DELIMITERS}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(_unreadable(path, error)) from error
    if not line.strip():
        raise DataError(f"{path} starts with an empty line: the names of its columns are wanted there")
    delimiter = next((d for d in _DELIMITERS if len(splits[d]) > 1), ",")
    return [name.strip() for name in splits[delimiter]], delimiter


def read_columns(path: Path, wanted: Collection[str]) -> Columns:
    """Some columns of a table, as strings.

    Raises:
        DataError: if the file cannot be read, lacks a column, or has a row of another length.
    """
    names, delimiter = header(path)
    missing = [name for name in wanted if names.count(name) != 1]
    if missing:
        raise DataError(
            f"{path} has no single column {missing[0]!r}: its columns are {', '.join(names[:60]) or 'none'}"
        )
    places = [names.index(name) for name in wanted]
    values: list[list[str]] = [[] for _ in places]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # a blank at the end of a line is no empty field where blanks delimit
            lines = (line.strip() + "\n" for line in file) if delimiter == " " else file
            reader = csv.reader(lines, **_format(delimiter))
            next(reader)
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise DataError(
                        f"line {reader.line_num} of {path} has {len(row)} fields, the header {len(names)}: "
                        "copy or download it again"
                    )
                for column, place in zip(values, places, strict=True):
                    column.append(row[place])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(_unreadable(path, error)) from error
    if not values[0]:
        raise DataError(f"{path} has a header and no rows: copy or download it again")
    return dict(zip(wanted, values, strict=True))


def whole(
    columns: Mapping[str, Sequence[str]], name: str, path: Path, meaning: Mapping[str, int]
) -> Int64[np.ndarray, " n"]:
    """A column of codes as whole numbers.

    Args:
        columns: of the table.
        name: of the column.
        path: of the table, for messages.
        meaning: what each code means; "1.0" is read as "1", "True" as "1".

    Raises:
        DataError: if a value has no meaning.
    """
    codes = {text: _code(text, meaning) for text in set(columns[name])}
    wrong = sorted(text for text, code in codes.items() if code is None)
    if wrong:
        row = list(columns[name]).index(wrong[0])
        raise DataError(
            f"column {name!r} of {path} has {wrong[0][:40]!r} in row {row}: one of {', '.join(meaning)} is wanted"
        )
    return np.array([codes[text] for text in columns[name]], np.int64)


def _code(text: str, meaning: Mapping[str, int]) -> int | None:
    text = text.strip()
    text = {"true": "1", "false": "0"}.get(text.lower(), text)
    return meaning.get(re.sub(r"^([+-]?\d+)\.0*$", r"\1", text))


def shares(columns: Mapping[str, Sequence[str]], name: str, path: Path) -> np.ndarray:
    """A column of numbers from 0 to 1; what is missing counts as 0, as it does where the set was published.

    Raises:
        DataError: if a value is no such number.
    """
    try:
        values = np.array([float(text) if text.strip() else 0.0 for text in columns[name]])
    except ValueError as error:
        raise DataError(
            f"column {name!r} of {path} has other than numbers ({error}): copy it again"
        ) from error
    values[np.isnan(values)] = 0.0
    if values.min() < 0 or values.max() > 1:
        raise DataError(
            f"column {name!r} of {path} runs from {values.min():g} to {values.max():g}: 0 to 1 is wanted"
        )
    return values


SPLITS = {"0": 0, "1": 1, "2": 2}
BINARY = {"0": 0, "1": 1}


def _format(delimiter: str) -> dict[str, Any]:
    return {"delimiter": delimiter, "skipinitialspace": delimiter == " ", "strict": True}


def _unreadable(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return f"{path} cannot be read ({reason}): copy or download it again"
