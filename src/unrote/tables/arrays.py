"""Reading NPZ files: each array is a column, a matrix of features, or a stack of pictures.

    (n,)            one column
    (n, d)          d columns "name[0]" to "name[d-1]"
    (n, h, w)       grey pictures
    (n, c, h, w)    pictures of 1, 3 or 4 channels, channels first or last

Pickled objects are refused: reading one would run code from the file. Sizes are read from the headers before
any array is, as a few bytes of a compressed file can stand for gigabytes.
"""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from unrote.errors import DataError, UnroteError
from unrote.tables.columns import Column, Dates, Numbers, Pictures, Strings, Table, Unusable, check_size

_CHANNELS = (1, 3, 4)


def read_npz(path: Path) -> Table:
    """Read an NPZ file.

    Raises:
        DataError: if it is not NPZ, damaged, beyond the limits, or holds objects.
        UnroteError: likewise, where found further down.
    """
    try:
        _check_headers(path)
        columns: dict[str, Column] = {}
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                columns |= _columns(path, name, file[name])
        return Table(path.name, columns)
    except UnroteError:
        raise
    except Exception as error:  # whatever a damaged file makes the parser raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} cannot be read as NPZ: {reason}; write it again with numpy.savez") from error


def _check_headers(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, dtype = _header(file)
            if dtype.hasobject:
                raise DataError(
                    f"{path}: array {member.filename.removesuffix('.npy')!r} holds pickled objects, which are "
                    "not read as they could run code; save numbers or fixed-width strings instead"
                )
            check_size(f"{path.name}: {member.filename}", math.prod(shape), 1)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise DataError(
                    f"{path}: array {member.filename!r} is shorter than its header says: write it again"
                )


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _columns(path: Path, name: str, array: np.ndarray) -> dict[str, Column]:
    if array.ndim == 1:
        return {name: _column(array)}
    if array.ndim == 2:
        check_size(path.name, len(array), array.shape[1])
        return {f"{name}[{j}]": _column(array[:, j]) for j in range(array.shape[1])}
    if array.ndim == 3 and array.dtype.kind in "fiub":
        return {name: Pictures(_finite(path, name, array[:, None]))}
    if array.ndim == 4 and array.dtype.kind in "fiub":
        if array.shape[1] not in _CHANNELS and array.shape[3] in _CHANNELS:
            array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        return {name: Pictures(_finite(path, name, array))}
    raise DataError(
        f"{path}: array {name!r} has shape {array.shape} and type {array.dtype}: a column (n,), features "
        "(n, d) or pictures (n, h, w) or (n, c, h, w) of numbers are wanted"
    )


def _finite(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{path}: pictures {name!r} have NaN or infinity: mend or drop such rows")
    return array


def _column(values: np.ndarray) -> Column:
    kind = values.dtype.kind
    if kind in "iub":
        return Numbers(values)
    if kind == "f":
        return Numbers(values.astype(np.float32) if values.dtype.itemsize < 4 else values.astype(np.float64))
    if kind == "M":
        return Dates(values.astype("datetime64[s]"))
    if kind == "U":
        levels, codes = np.unique(np.char.strip(values), return_inverse=True)
        empty = np.append(levels == "", False)
        return Strings(np.where(empty[codes], -1, codes).astype(np.int32), levels.tolist())
    return Unusable(len(values), f"values of type {values.dtype}")
