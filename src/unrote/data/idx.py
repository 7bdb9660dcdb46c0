"""Reading IDX files, the format of MNIST and its successors, gzipped or not.

A file is: two zero bytes, a type byte (8: unsigned bytes), the number of dimensions d, d big-endian 32-bit
sizes, then the values in row-major order. Files come from users' downloads, which break off and get mixed up,
so every part of that is checked.
"""

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np

from unrote.errors import DataError

_UNSIGNED_BYTES = 8


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The values of an IDX file of unsigned bytes.

    Args:
        path: the file; whether it is gzipped is told from its content, not its name.
        ndim: the number of dimensions wanted: 1 for labels, 3 for grey images.

    Returns:
        uint8 array with `ndim` dimensions.

    Raises:
        DataError: if the file cannot be read, is not IDX, has other dimensions, or is shorter or longer than
            its header says.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _parse(path, raw, ndim)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _parse(path, unzipped, ndim)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): copy or download it again") from error


def _parse(path: Path, file: io.BufferedIOBase, ndim: int) -> np.ndarray:
    magic = file.read(4)
    wanted = bytes([0, 0, _UNSIGNED_BYTES, ndim])
    if magic != wanted:
        raise DataError(
            f"{path} starts with bytes {magic.hex() or 'none'}: {wanted.hex()} is wanted, an IDX file of "
            f"unsigned bytes in {ndim} dimension{'s' * (ndim > 1)}; are images and labels mixed up?"
        )
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise DataError(f"{path} breaks off in its header: copy or download it again")
    shape = tuple(np.frombuffer(header, dtype=">u4").tolist())
    size = math.prod(shape)
    values = file.read()
    if len(values) != size:
        raise DataError(
            f"{path} has {len(values)} bytes of values, its header says {size} {shape}: "
            "it is damaged; copy or download it again"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)
