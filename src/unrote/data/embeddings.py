"""Vectors of texts, computed once and kept on disk by the content of each text.

Parts are written as the encoder goes, so that an encoding that was interrupted goes on where it stopped, and any
selection of the texts finds those that an earlier one needed.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from unrote.checkpoint import write_atomically
from unrote.data.inputs import ArrayInputs
from unrote.errors import DataError
from unrote.progress import progress_bar

Encode = Callable[[list[str]], Float[np.ndarray, "B d"]]
"""Turns a few texts into vectors."""

BATCH = 32
PART = 16 * BATCH
"""Texts between two writes: some seconds of encoding."""

_KEY_BYTES = 16


class TextInputs(ArrayInputs):
    """Vectors of texts, with the texts themselves in reach.

    Args:
        values: (n, d).
        texts: the n texts, in the same order.
    """

    def __init__(self, values: Tensor | np.ndarray, texts: Sequence[str]) -> None:
        super().__init__(values)
        if len(texts) != len(self):
            raise DataError(f"{len(texts)} texts for {len(self)} vectors: one each is wanted")
        self.texts = tuple(texts)

    def subset(self, index: Tensor) -> "TextInputs":
        """The examples at `index` with their texts."""
        return TextInputs(self[index], [self.texts[i] for i in index.tolist()])


def cached_embeddings(
    texts: Sequence[str], load: Callable[[], Encode], folder: Path, description: str = "encoding"
) -> Float[np.ndarray, "n d"]:
    """The vector of each text, in half precision; each distinct text is encoded once, whoever asks for it.

    Args:
        texts: at least one.
        load: makes the encoder; called only if some text has no vector yet.
        folder: of this encoder's vectors; another encoder needs another folder.
        description: of the progress bar, which is shown where standard error is a terminal.

    Raises:
        DataError: if the folder cannot be read or written.
    """
    keys = [_key(text) for text in texts]
    known = _read(folder)
    # texts of like length share a batch, so that little of it is padding
    missing = sorted({t: k for t, k in zip(texts, keys, strict=True) if k not in known}.items(), key=_length)
    if missing:
        encode = load()
        with progress_bar(description, len(missing), show=sys.stderr.isatty()) as advance:
            for start in range(0, len(missing), PART):
                part = missing[start : start + PART]
                vectors = [
                    encode([text for text, _ in part[at : at + BATCH]]).astype(np.float16)
                    for at in range(0, len(part), BATCH)
                ]
                _write(folder, [key for _, key in part], np.concatenate(vectors))
                advance(start + len(part), "sentences")
        known = _read(folder)
    return np.stack([known[key] for key in keys])


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).digest()


def _length(item: tuple[str, bytes]) -> tuple[int, str]:
    return len(item[0]), item[0]


def _read(folder: Path) -> dict[bytes, Float[np.ndarray, " d"]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    known: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("part-*.safetensors")):
        try:
            part = load_file(path)
            known |= {
                key.tobytes(): vector for key, vector in zip(part["keys"], part["vectors"], strict=True)
            }
        except (OSError, SafetensorError, LookupError, ValueError) as error:
            raise DataError(
                f"{path} cannot be read ({error}): delete it, and its texts are encoded again"
            ) from error
    return known


def _write(folder: Path, keys: list[bytes], vectors: Float[np.ndarray, "n d"]) -> None:
    from safetensors.numpy import save

    rows = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), _KEY_BYTES)
    # named by what is in it: two processes that encode the same texts write the same file
    name = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"part-{name}.safetensors", save({"keys": rows.copy(), "vectors": vectors}))
    except OSError as error:
        raise DataError(
            f"cannot write to {folder} ({error.strerror}): free some space, or move it"
        ) from error
