"""Reading CSV files as they come: the delimiter and the encoding are told from the content.

Every row must have as many values as the header has names: a row that does not is an error, never padded or
cut. All values are read as strings and a column becomes numbers or dates only if every value in it is one, so
what a column is cannot depend on how much of the file was looked at first.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from unrote.errors import DataError
from unrote.tables.columns import MAX_COLUMNS, Column, Dates, Numbers, Strings, Table, check_size
from unrote.tables.extra import need_pyarrow

MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "?")
"""What counts as a missing value. Not "None": it is a class or category in many tables."""

DELIMITERS = (",", ";", "\t", "|")
_SNIFFED = 1 << 20
_BLOCK = 1 << 24
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MAGIC = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x1f\x8b": "gzipped: unpack it",
    b"PAR1": "a Parquet file: name it .parquet",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: save it as CSV",
}


def read_csv(path: Path, as_text: Collection[str] = ()) -> Table:
    """Read a CSV file with a header.

    Args:
        path: the file.
        as_text: columns to leave as strings even if all their values are numbers or dates, such as classes.

    Raises:
        DataError: if it is empty, not text, has no rows, or rows that do not fit its header.
        MissingPackageError: if pyarrow is not installed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_SNIFFED)
        encoding = _encoding(path, start)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    head = start.decode(encoding, errors="ignore")
    if not head.strip():
        raise DataError(f"{path} is empty: a header and rows are wanted")
    if _CONTROL.search(head):
        raise DataError(f"{path} is not text: it has control characters; a CSV file is wanted")
    delimiter = _delimiter(head, whole=len(start) < _SNIFFED)
    names = _header(path, head, delimiter)
    table = _read_strings(path, names, delimiter, encoding)
    check_size(path.name, table.num_rows, len(names))
    _check_quotes(path, table)
    columns: dict[str, Column] = {}
    for name in names:
        # each column leaves the arrow table as it is converted: one copy of the data at a time
        columns[name] = _column(table.column(0), name in as_text, delimiter)
        table = table.remove_column(0)
    return Table(path.name, columns)


def _encoding(path: Path, start: bytes) -> str:
    """UTF-8 if the whole file is, UTF-16 by its mark, else Windows-1252, which most other files are.

    Raises:
        DataError: if the file is in none of these, or is no text at all.
    """
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            raise DataError(f"{path} is not CSV but {what}")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in start:
        raise DataError(f"{path} is not text: it has zero bytes; a CSV file is wanted")
    for encoding in ("utf-8-sig", "cp1252"):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            with path.open("rb") as file:
                while block := file.read(_SNIFFED):
                    decoder.decode(block)
                decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return encoding
    raise DataError(f"{path} is neither UTF-8, UTF-16 nor Windows-1252 text: save it as UTF-8")


def _delimiter(head: str, *, whole: bool) -> str:
    """The candidate that splits most of the first lines into the same number of values, the largest number."""
    lines = head.splitlines(keepends=True)
    if not whole and len(lines) > 1:
        lines = lines[:-1]  # cut in the middle

    def score(delimiter: str) -> tuple[bool, float, int]:
        widths = Counter(len(row) for row in _records("".join(lines[:200]), delimiter) if row)
        if not widths:
            return False, 0.0, 0
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
        return width > 1, round(count / widths.total(), 1), width

    return max(DELIMITERS, key=score)


def _records(text: str, delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:  # a field beyond csv's own limit
        return []


def _header(path: Path, head: str, delimiter: str) -> list[str]:
    records = csv.reader(io.StringIO(head.lstrip("\r\n")), delimiter=delimiter)
    try:
        first = next(records)
    except (csv.Error, StopIteration) as error:
        raise DataError(f"{path}: the header cannot be read ({error}); a line of names is wanted") from error
    if len(first) > MAX_COLUMNS:
        check_size(path.name, 1, len(first))
    names = [name.strip() or f"column {place}" for place, name in enumerate(first, 1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        shown = ", ".join(map(repr, twice[:5]))
        raise DataError(f"{path} has more than one column named {shown}: rename or drop all but one")
    return names


def _read_strings(path: Path, names: list[str], delimiter: str, encoding: str) -> Any:
    """All columns as arrow strings, named by their place.

    Raises:
        DataError: if a row does not fit the header.
    """
    pa = need_pyarrow()
    from pyarrow import csv as arrow_csv

    places = [str(place) for place in range(len(names))]

    def read(threads: bool) -> Any:
        return arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                column_names=places,
                skip_rows_after_names=1,
                encoding="utf8" if encoding == "utf-8-sig" else encoding,
                use_threads=threads,
                block_size=_BLOCK,
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(places, pa.string())),
        )

    try:
        return read(threads=True)
    except Exception:  # whatever a damaged file makes the parser raise; the second try knows the row's number
        try:
            return read(threads=False)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{path} cannot be read as {len(names)} columns separated by {delimiter!r}: {reason}; mend the "
                "row (one value per column, quotes closed) or leave it out"
            ) from error


def _check_quotes(path: Path, table: Any) -> None:
    """A quote that is never closed makes the rest of the file one value, and rows vanish without a word.

    Raises:
        DataError: if the last value runs over a line's end and the file's quotes do not pair.
    """
    last = table.column(table.num_columns - 1)
    if not len(last) or "\n" not in last[-1].as_py():
        return
    with path.open("rb") as file:
        quotes = sum(block.count(b'"') for block in iter(lambda: file.read(_SNIFFED), b""))
    if quotes % 2:
        raise DataError(
            f"{path}: a quote is opened and never closed, in or before the last row read; close it"
        )


def _column(values: Any, as_text: bool, delimiter: str) -> Column:
    """Numbers or dates if all values are, else strings. `values` is a chunked arrow array of strings."""
    pa = need_pyarrow()
    import pyarrow.compute as pc

    values = pc.utf8_trim_whitespace(values)
    absent = pc.is_in(values, value_set=pa.array(["", *MISSING]))
    values = pc.if_else(absent, pa.scalar(None, pa.string()), values)
    if not as_text:
        found = _numbers(values, delimiter) or _dates(values)
        if found is not None:
            return found
    encoded = values.dictionary_encode().unify_dictionaries()
    chunks = [np.asarray(chunk.indices.fill_null(-1), np.int32) for chunk in encoded.chunks]
    levels = encoded.chunk(0).dictionary.to_pylist() if chunks else []
    return Strings(np.concatenate(chunks) if chunks else np.empty(0, np.int32), levels)


def _numbers(values: Any, delimiter: str) -> Numbers | None:
    pa = need_pyarrow()
    import pyarrow.compute as pc

    if values.null_count == len(values):
        return Numbers(np.full(len(values), np.nan))
    try:
        return Numbers(pc.cast(values, pa.float64()).to_numpy())
    except pa.ArrowInvalid:
        if delimiter == ",":
            return None
    # in a file whose delimiter is not a comma, a comma may be the decimal sign
    pattern = r"^[+-]?\d+(,\d+)?$"
    if not pc.all(pc.match_substring_regex(values, pattern)).as_py():
        return None
    return Numbers(pc.cast(pc.replace_substring(values, ",", "."), pa.float64()).to_numpy())


def _dates(values: Any) -> Dates | None:
    pa = need_pyarrow()
    import pyarrow.compute as pc

    first = values.drop_null()
    if not len(first) or not _DATE.match(first[0].as_py()):
        return None
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            moments = pc.cast(values, kind)
        except pa.ArrowInvalid:
            continue
        return Dates(moments.to_numpy().astype("datetime64[s]"))
    return None
