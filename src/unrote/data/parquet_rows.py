"""Features in a Parquet file, read a few row groups at a time."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from unrote.data.rows import BUFFER, RowFile
from unrote.errors import DataError, MissingPackageError, UnroteError


class ParquetRows(RowFile):
    """Rows of a Parquet file with one column per feature, or a single column of lists of equal length.

    A row group is the least that can be read of such a file.

    Args:
        path: of the file.
        columns: names of the features' columns; default all.
        buffer: bytes held at a time.

    Raises:
        DataError: if it is not Parquet, has other than numbers, or row groups that the buffer does not hold.
        OptionError: if the buffer does not hold two rows.
        MissingPackageError: if pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None, buffer: int = BUFFER) -> None:
        try:
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                "Parquet files need pyarrow, which is not installed: pip install 'unrote[tables]'"
            ) from error
        self.path, self._lock = path, Lock()
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()
        try:
            with parquet.ParquetFile(path) as file:
                sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
                self.columns, n_features, dtype = _features(path, file, columns)
                self._metadata: Any = file.metadata  # a second to parse where there are thousands of columns
        except UnroteError:
            raise
        except Exception as error:  # whatever a damaged file makes the parser raise
            raise DataError(_damaged(path, error)) from error
        if not sum(sizes):
            raise DataError(f"{path} has no rows: at least one is wanted")
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._largest = int(max(sizes))
        super().__init__((n_features,), dtype, sum(sizes), buffer)
        if self._largest > self.window:
            raise DataError(
                f"{path} has a row group of {self._largest:,} rows, {self._largest * self.row_bytes:,} bytes, "
                f"which must be read whole: write it with row_group_size={max(1, self.window // 16):,}, or "
                f"pass buffer={2 * self._largest * self.row_bytes}"
            )

    @property
    def block(self) -> int:
        """See `RowFile.block`: a row group."""
        return self._largest

    def first_not_finite(self) -> int | None:
        """See `RowFile.first_not_finite`; whole numbers are read too, since some may be missing."""
        if self.dtype.kind != "f":
            for group in range(len(self._ends)):
                self.read(self._ends[group : group + 1] - 1)
        return super().first_not_finite()

    def read(self, rows: Int64[np.ndarray, " m"]) -> Shaped[np.ndarray, "m d"]:
        """See `RowFile.read`.

        Raises:
            DataError: if the file cannot be read.
        """
        values = np.empty((len(rows), *self.shape), self.dtype)
        groups = np.searchsorted(self._ends, rows, side="right")
        with self._lock:  # the thread that reads ahead and a look at other rows share what is held
            for group in np.unique(groups).tolist():
                wanted = groups == group
                start = int(self._ends[group - 1]) if group else 0
                values[wanted] = self._group(group)[rows[wanted] - start]
        return values

    def _group(self, group: int) -> np.ndarray:
        """A row group, (rows, d); the last few are held, since two parts of an order may meet in one.

        Raises:
            DataError: if the file cannot be read.
        """
        if group in self._held:
            self._held.move_to_end(group)
            return self._held[group]
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.path, metadata=self._metadata) as file:
                table = file.read_row_group(group, columns=self.columns, use_threads=False)
            values = _values(table, self.shape[0], self.dtype)
        except Exception as error:  # whatever a damaged file makes the parser raise
            raise DataError(_damaged(self.path, error)) from error
        self._held[group] = values
        while len(self._held) > 1 and sum(held.nbytes for held in self._held.values()) > self.buffer // 2:
            self._held.popitem(last=False)
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_metadata": None, "_held": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()


def _features(path: Path, file: Any, columns: Sequence[str] | None) -> tuple[list[str], int, np.dtype[Any]]:
    """Names of the features' columns, how many features they are, and the type that holds them all.

    Raises:
        DataError: if a column is missing, or has other than numbers.
    """
    import pyarrow as pa

    schema = file.schema_arrow
    names = list(schema.names) if columns is None else list(columns)
    missing = [name for name in names if schema.names.count(name) != 1]
    if missing or not names:
        raise DataError(
            f"{path} has no single column {missing[0]!r}" if missing else f"{path} has no columns"
        )
    kinds = [schema.field(name).type for name in names]
    if len(names) == 1 and _is_list(kinds[0]):
        first = next(file.iter_batches(1, columns=names), None)
        n_features = 0 if first is None or not first.num_rows else len(first.column(0)[0])
        kinds = [kinds[0].value_type]
    else:
        n_features = len(names)
    for name, kind in zip(names, kinds, strict=False):
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise DataError(
                f"column {name!r} of {path} has type {kind}: numbers are wanted; name the features' columns "
                "with columns=..."
            )
    if not n_features:
        raise DataError(f"{path} has no rows with values: at least one is wanted")
    dtype = np.result_type(*[np.dtype(kind.to_pandas_dtype()) for kind in kinds])
    return names, n_features, dtype


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _values(table: Any, n_features: int, dtype: np.dtype[Any]) -> np.ndarray:
    """The values of a row group.

    Raises:
        ValueError: if lists differ in length, or whole numbers are missing.
    """
    import pyarrow.compute as pc

    values = np.empty((table.num_rows, n_features), dtype)
    first = table.column(0)
    if _is_list(first.type):
        lengths = pc.list_value_length(first)
        if first.null_count or lengths.null_count or not bool(pc.all(pc.equal(lengths, n_features)).as_py()):
            raise ValueError(f"a row is not a list of {n_features} values, as the first is")
        values[:] = pc.list_flatten(first).to_numpy().reshape(values.shape)
        return values
    for place, column in enumerate(table.itercolumns()):
        if column.null_count and dtype.kind != "f":
            raise ValueError(f"column {table.column_names[place]!r} has missing values")
        values[:, place] = column.to_numpy()
    return values


def _damaged(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"{path} cannot be read as Parquet ({reason}): write or copy it again"
