"""Writing files for users, each there whole or not at all: columns as CSV or Parquet, reports as JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unrote.checkpoint import write_atomically
from unrote.errors import DataError, OptionError
from unrote.tables.extra import need_pyarrow

SUFFIXES = (".csv", ".parquet")


def check_output(path: Path, *, overwrite: bool, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Refuse a file that cannot be written; worth asking before the work is done.

    Raises:
        OptionError: if its name has another ending, it exists, or its folder does not.
    """
    if path.suffix.lower() not in suffixes:
        raise OptionError(f"{path} ends in {path.suffix or 'nothing'!r}: {' or '.join(suffixes)} is wanted")
    if path.exists() and (path.is_dir() or not overwrite):
        raise OptionError(
            f"{path} exists: choose another name" + ("" if path.is_dir() else ", or pass --overwrite")
        )
    if not path.parent.is_dir():
        raise OptionError(f"there is no folder {path.parent}: make it first")
    if path.suffix.lower() == ".parquet":
        need_pyarrow()


def write_columns(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write columns of equal length.

    Args:
        path: ends in .csv or .parquet.
        columns: values by name.

    Raises:
        DataError: if the file cannot be written.
    """
    if path.suffix.lower() == ".parquet":
        write_file(path, _parquet(columns))
    else:
        text = io.StringIO(newline="")
        print_csv(text, columns)
        write_file(path, text.getvalue().encode())


def write_json(path: Path, value: Any) -> None:
    """Write a report.

    Raises:
        DataError: if the file cannot be written.
    """
    write_file(path, json.dumps(value, indent=2, allow_nan=False).encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        DataError: if it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def print_csv(file: Any, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write columns as CSV to anything with `write`; floating point with six significant digits."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    values = [_shown(column) for column in columns.values()]
    writer.writerows(zip(*values, strict=True))


def _shown(column: Sequence[Any] | np.ndarray) -> Sequence[Any]:
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return [f"{value:.6g}" for value in column.tolist()]
    return column.tolist() if isinstance(column, np.ndarray) else column


def _parquet(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> bytes:
    pa = need_pyarrow()
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), sink)
    return sink.getvalue()
