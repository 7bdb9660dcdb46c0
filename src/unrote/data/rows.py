"""Features in a file that may be larger than memory: rows read when they are asked for, and only those.

A page of a memory map that was once touched counts as this process's memory until the kernel wants it back, so a
pass over a map of 5 GB looks, to a scheduler, like 5 GB. Rows are therefore read with `pread` into memory of our
own: what a run holds is the buffer that is named here, however large the file.
"""

import mmap
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64, Shaped
from torch import Tensor

from unrote.errors import DataError, OptionError

BUFFER = 128 * 2**20
"""Bytes of a file that a run holds at a time unless told otherwise: half being used, half being read."""

_BLOCK = 2**20  # bytes that are read at once where the order is free: large enough for any disk
_GAP = 2**15  # bytes between two wanted rows that are cheaper to read through than to jump over
_SPAN = 2**23  # bytes of a single read, so that reading through gaps holds little


class RowFile(ABC):
    """n rows of one shape and type in a file.

    Args:
        shape: of one row.
        dtype: of the values, as the file has them.
        length: n.
        buffer: bytes held at a time.

    Raises:
        OptionError: if the buffer does not hold two rows.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any], length: int, buffer: int = BUFFER) -> None:
        self.shape, self.dtype, self.length, self.buffer = tuple(shape), dtype, length, buffer
        self.row_bytes = dtype.itemsize * int(np.prod(self.shape))
        if buffer < 2 * self.row_bytes:
            raise OptionError(f"buffer={buffer} bytes: a row has {self.row_bytes}, room for two is wanted")

    def __len__(self) -> int:
        return self.length

    @property
    def window(self) -> int:
        """How many rows are held while the next ones are read."""
        return max(1, self.buffer // 2 // self.row_bytes)

    @property
    def block(self) -> int:
        """How many rows are best read together."""
        return max(1, min(_BLOCK // self.row_bytes, self.window // 16))

    @property
    def blocks(self) -> tuple[int, int] | None:
        """Rows of a block and of a window, for an order of blocks; None if the file fits into the buffer."""
        if self.length <= self.window:
            return None
        return self.block, max(self.window // self.block, 1) * self.block

    @abstractmethod
    def read(self, rows: Int64[np.ndarray, " m"]) -> Shaped[np.ndarray, "m *shape"]:
        """The values of some rows, which are sorted and distinct, in the file's own type."""

    def at(self, index: Int[Tensor, "*B"]) -> Tensor:
        """The rows at any indices, (*B, ...), as torch computes with them."""
        wanted, place = np.unique(index.reshape(-1).numpy(), return_inverse=True)
        rows = torch.from_numpy(native(self.read(wanted)[place.reshape(-1)]))
        return rows.reshape(*index.shape, *self.shape)

    def first_not_finite(self) -> int | None:
        """The first row with NaN or infinity in it; None if there is none."""
        if self.dtype.kind != "f":
            return None
        step = max(1, self.window // 8 // self.block) * self.block
        for start in range(0, self.length, step):
            rows = self.read(np.arange(start, min(start + step, self.length)))
            good = np.isfinite(rows)
            if not good.all():
                return start + int(np.flatnonzero(~good.reshape(len(rows), -1).all(1))[0])
        return None

    def batches(self, order: Iterable[Tensor]) -> Iterator[Tensor]:
        """The minibatches of `order`: as many as the buffer holds are read in one go, in the file's order.

        While they are used, a thread reads those that follow.
        """
        with ThreadPoolExecutor(1, "unrote-read-ahead") as pool:
            ahead: deque[tuple[list[Tensor], Future[tuple[np.ndarray, np.ndarray]]]] = deque()
            for part in self._parts(order):
                ahead.append((part, pool.submit(self._fetch, part)))
                if len(ahead) == 2:
                    yield from self._deal(*ahead.popleft())
            while ahead:
                yield from self._deal(*ahead.popleft())

    def _parts(self, order: Iterable[Tensor]) -> Iterator[list[Tensor]]:
        """The minibatches in lists of about a window of rows."""
        part: list[Tensor] = []
        rows = 0
        for index in order:
            if part and rows + index.numel() > self.window:
                yield part
                part, rows = [], 0
            part.append(index)
            rows += index.numel()
        if part:
            yield part

    def _fetch(self, part: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
        wanted = np.unique(torch.cat([index.reshape(-1) for index in part]).numpy())
        return wanted, self.read(wanted)

    def _deal(self, part: list[Tensor], read: Future[tuple[np.ndarray, np.ndarray]]) -> Iterator[Tensor]:
        """The minibatches of a part that was read, each written over the one before."""
        wanted, values = read.result()
        most = max(index.numel() for index in part)
        # numpy widens on one thread: torch's threads wait for each other, long on a machine with other work
        chosen, widened = np.empty((most, *self.shape), self.dtype), None
        for index in part:
            n = index.numel()
            place = np.searchsorted(wanted, index.reshape(-1).numpy())
            rows = np.take(values, place, axis=0, out=chosen[:n], mode="clip")
            if native_type(self.dtype) != self.dtype:
                widened = np.empty(chosen.shape, native_type(self.dtype)) if widened is None else widened
                np.copyto(widened[:n], rows)
                rows = widened[:n]
            yield torch.from_numpy(rows).reshape(*index.shape, *self.shape)


def native_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which torch computes with values of a type: floats in 32 or 64 bits, integers as they are."""
    if dtype.kind == "f":
        return np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)
    if dtype.kind == "u" and dtype.itemsize > 1:
        return np.dtype(np.int64)  # torch has hardly any arithmetic on wide unsigned integers
    return dtype.newbyteorder("=")


def native(values: np.ndarray) -> np.ndarray:
    """The array in a type that torch computes with, in row-major order; see `native_type`."""
    return np.ascontiguousarray(values, dtype=native_type(values.dtype))


class NpyRows(RowFile):
    """Rows of a .npy file, or of any file of values in row-major order.

    Args:
        path: of the file.
        dtype: of the values.
        shape: (n, ...).
        offset: where the values begin, in bytes.
        buffer: bytes held at a time.
    """

    def __init__(
        self, path: Path, dtype: np.dtype[Any], shape: Sequence[int], offset: int, buffer: int = BUFFER
    ) -> None:
        super().__init__(shape[1:], dtype, shape[0], buffer)
        self.path, self.offset = path, offset

    def read(self, rows: Int64[np.ndarray, " m"]) -> Shaped[np.ndarray, "m *shape"]:
        """See `RowFile.read`.

        Raises:
            DataError: if the file cannot be read, or has become shorter.
        """
        values = np.empty((len(rows), *self.shape), self.dtype)
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}): put it back") from error
        try:
            for first, last in self._runs(rows):
                self._read_run(descriptor, rows[first:last], values[first:last])
        finally:
            os.close(descriptor)
        return values

    def _runs(self, rows: Int64[np.ndarray, " m"]) -> Iterator[tuple[int, int]]:
        """Ranges of `rows` that are read at once."""
        far = max(1, _GAP // self.row_bytes)
        longest = max(1, _SPAN // self.row_bytes)
        starts = np.flatnonzero(np.diff(rows, prepend=rows[:1] - far - 1) > far).tolist()
        for first, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            while first < stop:
                last = int(np.searchsorted(rows[first:stop], rows[first] + longest)) + first
                yield first, last
                first = last

    def _read_run(self, descriptor: int, rows: np.ndarray, into: np.ndarray) -> None:
        span = int(rows[-1] - rows[0]) + 1
        gaps = span > len(rows)
        target = np.empty((span, *self.shape), self.dtype) if gaps else into
        memory: memoryview = target.reshape(-1).view(np.uint8).data
        place = self.offset + int(rows[0]) * self.row_bytes
        done = 0
        while done < len(memory):
            read = os.preadv(descriptor, [memory[done:]], place + done)
            if not read:
                raise DataError(f"{self.path} breaks off before row {int(rows[-1])}: write or copy it again")
            done += read
        if gaps:
            into[:] = target[rows - rows[0]]


class ChosenRows(RowFile):
    """Some rows of a file, in any order, as rows of their own.

    Args:
        rows: the file.
        chosen: (m,) indices of its rows.
    """

    def __init__(self, rows: RowFile, chosen: Int64[np.ndarray, " m"]) -> None:
        super().__init__(rows.shape, rows.dtype, len(chosen), rows.buffer)
        self.rows, self.chosen = rows, chosen

    def read(self, rows: Int64[np.ndarray, " _"]) -> Shaped[np.ndarray, "_ *shape"]:
        """See `RowFile.read`."""
        wanted, place = np.unique(self.chosen[rows], return_inverse=True)
        values = self.rows.read(wanted)
        # the usual subset is in the file's order, and needs no second copy
        return values if np.array_equal(place, np.arange(len(rows))) else values[place]


def open_npy(path: Path, buffer: int = BUFFER) -> NpyRows:
    """The rows of a .npy file; nothing in it is unpickled.

    Raises:
        DataError: if it is not such a file, has other than rows of numbers, or stands column by column.
        OptionError: if the buffer does not hold two rows.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header makes numpy raise nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as .npy ({reason}): write or copy it again") from error
    if not isinstance(values, np.memmap):
        raise DataError(f"{path} is an archive of several arrays: a .npy file with one array is wanted")
    check_rows(values, str(path))
    rows = mapped_rows(values, buffer)
    if rows is None:
        raise DataError(f"{path} stands column by column: write it with np.ascontiguousarray")
    return rows


def check_rows(values: np.ndarray, name: str) -> None:
    """Refuse what is not rows of numbers.

    Raises:
        DataError: likewise.
    """
    if values.dtype.kind not in "fiub" or values.dtype.itemsize > 8:
        raise DataError(f"{name} has values of type {values.dtype}: numbers of up to 64 bits are wanted")
    if values.ndim < 2 or 0 in values.shape:
        raise DataError(f"{name} has shape {values.shape}: (n, ...) with one example per row is wanted")


def mapped_rows(values: np.memmap, buffer: int = BUFFER) -> NpyRows | None:
    """The rows of a memory map read from its file; None if they are not there in one piece, or not yet."""
    base = getattr(values, "_mmap", None)
    if base is None or values.filename is None or values.mode == "c" or not values.flags.c_contiguous:
        return None
    # a slice of a map still names the offset of the whole, so where it begins is told from its address
    start = np.frombuffer(base, np.uint8).ctypes.data
    mapped_from = values.offset - values.offset % mmap.ALLOCATIONGRANULARITY
    offset = mapped_from + values.ctypes.data - start
    return NpyRows(Path(values.filename), values.dtype, values.shape, offset, buffer)
