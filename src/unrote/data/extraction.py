"""Features of pictures or texts, computed once by an encoder and kept in a file that need not fit into memory.

    key = hash of the encoder, of how examples are read, and of every example's content
    for each chunk of examples that has no file yet: encode it, write its file whole or not at all
    join the chunks into one .npy file, and remove them

A run that was killed, at any moment, goes on from the last whole chunk.
"""

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from unrote.cache import cache_folder
from unrote.checkpoint import write_atomically
from unrote.errors import DataError, OptionError
from unrote.progress import progress_bar

CHUNK = 1024
"""Examples between two writes."""


@dataclass(frozen=True)
class Encoder:
    """What turns examples into features.

    Args:
        encode: takes a list of examples, gives (B, d).
        identity: of the encoder's weights and of how it reads examples; another identity has other features.
        batch_size: examples at once.
    """

    encode: Callable[[list[Any]], Float[np.ndarray, "B d"]]
    identity: str
    batch_size: int = 32


class Items(ABC):
    """n examples that can be told apart by their content before they are read."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, i: int) -> bytes:
        """A hash of an example's content."""

    @abstractmethod
    def item(self, i: int) -> Any:
        """What the encoder takes of an example."""


def extract(
    items: Items,
    encoder: Encoder,
    *,
    folder: Path | None = None,
    description: str = "features",
    show: bool | None = None,
) -> Path:
    """The file with the features of some examples, made if it is not there yet.

    Args:
        items: at least one.
        encoder: what encodes them.
        folder: where features are kept; default that of the cache.
        description: of the progress bar.
        show: whether to show it; default where standard error is a terminal.

    Returns:
        A .npy file (n, d) in half precision, rows in the order of the items.

    Raises:
        DataError: if features are not finite, an example cannot be read, or the folder cannot be written.
        OptionError: if there are no items.
    """
    if not len(items):
        raise OptionError("there is nothing to encode: at least one example is wanted")
    show = sys.stderr.isatty() if show is None else show
    digest = hashlib.blake2b(f"{encoder.identity}:{len(items)}".encode(), digest_size=16)
    with progress_bar(f"{description}: reading", len(items), show=show) as advance:
        for i in range(len(items)):
            digest.update(items.key(i))
            advance(i + 1, "")
    place = (folder or cache_folder() / "features") / digest.hexdigest()
    whole = place / "features.npy"
    if whole.is_file():
        return whole
    try:
        place.mkdir(parents=True, exist_ok=True)
        _encode_chunks(items, encoder, place, description, show)
        _join(place, len(items), whole)
    except OSError as error:
        raise DataError(
            f"cannot write to {place} ({error.strerror}): free some space, or set another folder; what was "
            "encoded so far is kept"
        ) from error
    return whole


def _encode_chunks(items: Items, encoder: Encoder, place: Path, description: str, show: bool) -> None:
    with progress_bar(description, len(items), show=show) as advance:
        for start in range(0, len(items), CHUNK):
            stop = min(start + CHUNK, len(items))
            path = _chunk_path(place, start)
            if not path.is_file():
                parts = []
                for first in range(start, stop, encoder.batch_size):
                    batch = [items.item(i) for i in range(first, min(first + encoder.batch_size, stop))]
                    parts.append(_features(encoder, batch))
                    advance(first + len(batch), "encoded")
                write_atomically(path, _npy_header(stop - start, parts[0].shape[1]) + _bytes(parts))
            advance(stop, "encoded")


def _features(encoder: Encoder, batch: Sequence[Any]) -> Float[np.ndarray, "B d"]:
    """The features of a few examples in half precision.

    Raises:
        DataError: if they are not one finite row each.
    """
    found = np.asarray(encoder.encode(list(batch)))
    if found.ndim != 2 or len(found) != len(batch):
        raise DataError(
            f"the encoder gave an array of shape {found.shape} for {len(batch)} examples: (B, d) is wanted"
        )
    with np.errstate(over="ignore"):
        narrow = found.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise DataError(
            "the encoder gave features that are not finite numbers of at most 65,504: check its weights, or scale "
            "what it gives"
        )
    return narrow


def _join(place: Path, n: int, whole: Path) -> None:
    """One file of all chunks, written under another name first; the chunks go when it is there."""
    starts = range(0, n, CHUNK)
    first = np.load(_chunk_path(place, 0), mmap_mode="r", allow_pickle=False)
    partial = whole.with_name(f".{whole.name}.partial")
    with partial.open("wb") as file:
        file.write(_npy_header(n, first.shape[1]))
        for start in starts:
            file.write(np.load(_chunk_path(place, start), allow_pickle=False).tobytes())
    partial.replace(whole)
    for start in starts:
        _chunk_path(place, start).unlink(missing_ok=True)


def _chunk_path(place: Path, start: int) -> Path:
    return place / f"chunk-{start:09d}.npy"


def _npy_header(n: int, d: int) -> bytes:
    import io

    stream = io.BytesIO()
    header = {"descr": "<f2", "fortran_order": False, "shape": (n, d)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _bytes(parts: Sequence[np.ndarray]) -> bytes:
    return b"".join(part.astype("<f2").tobytes() for part in parts)
