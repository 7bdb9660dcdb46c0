"""Reading Parquet files, one column at a time, so that there is never a second copy of the whole table."""

from pathlib import Path
from typing import Any

import numpy as np

from unrote.errors import DataError, UnroteError
from unrote.tables.columns import Column, Dates, Numbers, Strings, Table, Unusable, check_size
from unrote.tables.extra import need_pyarrow


def read_parquet(path: Path) -> Table:
    """Read a Parquet file.

    Raises:
        DataError: if it is not Parquet, damaged, beyond the limits, or names two columns the same.
        UnroteError: likewise, where found further down.
    """
    need_pyarrow()
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            check_size(path.name, file.metadata.num_rows, len(names))
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"{path} has more than one column named {twice[0]!r}: rename or drop one")
            return Table(path.name, {name: _column(file.read(columns=[name])[name]) for name in names})
    except UnroteError:
        raise
    except Exception as error:  # whatever a damaged file makes the parser raise
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as Parquet: {reason}; write or download it again") from error


def _column(values: Any) -> Column:
    """A chunked arrow array of any type as a column."""
    pa = need_pyarrow()
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_dictionary(kind):
        kind, values = kind.value_type, pc.cast(values, kind.value_type)
    if pa.types.is_null(kind):
        return Numbers(np.full(len(values), np.nan))
    if pa.types.is_decimal(kind):
        return Numbers(pc.cast(values, pa.float64()).to_numpy())
    if pa.types.is_boolean(kind):
        plain = values.null_count == 0
        return Numbers(
            values.to_numpy() if plain else pc.cast(pc.cast(values, pa.int8()), pa.float32()).to_numpy()
        )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        whole = values.null_count == 0 or pa.types.is_floating(kind)
        return Numbers((values if whole else pc.cast(values, pa.float64(), safe=False)).to_numpy())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moments = pc.cast(values, pa.timestamp("s", getattr(kind, "tz", None)), safe=False)
        return Dates(moments.to_numpy().astype("datetime64[s]"))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _strings(pc.cast(values, pa.large_string()))
    return Unusable(len(values), f"values of type {kind}")


def _strings(values: Any) -> Strings:
    pa = need_pyarrow()
    import pyarrow.compute as pc

    values = pc.utf8_trim_whitespace(values)
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.large_string()), values)
    encoded = values.dictionary_encode().unify_dictionaries()
    chunks = [np.asarray(chunk.indices.fill_null(-1), np.int32) for chunk in encoded.chunks]
    return (
        Strings(np.concatenate(chunks), encoded.chunk(0).dictionary.to_pylist()) if chunks else Strings.of([])
    )
