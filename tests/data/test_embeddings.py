"""Vectors of texts are computed once, wherever the computation stopped, and belong to their texts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unrote.data import Split
from unrote.data import embeddings as module
from unrote.data.embeddings import Encode, TextInputs, cached_embeddings
from unrote.errors import DataError


class Encoder:
    """Gives each text a vector by its letters; counts its work, and can be made to stop."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[str] = []
        self.stop_after, self.loads = stop_after, 0

    def load(self) -> Encode:
        self.loads += 1
        return self.encode

    def encode(self, texts: list[str]) -> np.ndarray:
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += texts
        return np.stack([vector(text) for text in texts])


def vector(text: str) -> np.ndarray:
    return np.array([len(text), sum(map(ord, text)) % 997, 1.0], dtype=np.float32)


TEXTS = [f"{'word ' * (i % 7)}{i}" for i in range(40)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(module, "PART", 8)


def test_each_text_has_its_vector_and_is_encoded_once(tmp_path: Path) -> None:
    encoder = Encoder()
    found = cached_embeddings([*TEXTS, *TEXTS[:5]], encoder.load, tmp_path)
    np.testing.assert_array_equal(found, np.stack([vector(t) for t in [*TEXTS, *TEXTS[:5]]]))
    assert sorted(encoder.seen) == sorted(TEXTS)


def test_what_is_there_needs_no_encoder(tmp_path: Path) -> None:
    whole = cached_embeddings(TEXTS, Encoder().load, tmp_path)
    second = Encoder()
    np.testing.assert_array_equal(cached_embeddings(TEXTS[::-3], second.load, tmp_path), whole[::-3])
    assert second.loads == 0
    cached_embeddings([*TEXTS, "new"], second.load, tmp_path)
    assert second.seen == ["new"]


def test_an_interrupted_encoding_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first, second = Encoder(stop_after=20), Encoder()
    with pytest.raises(KeyboardInterrupt):
        cached_embeddings(TEXTS, first.load, tmp_path)
    found = cached_embeddings(TEXTS, second.load, tmp_path)
    np.testing.assert_array_equal(found, np.stack([vector(t) for t in TEXTS]))
    assert len(second.seen) == 40 - 16  # the third part of 8 was begun but not finished


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    cached_embeddings(TEXTS, Encoder().load, tmp_path)
    part = sorted(tmp_path.iterdir())[0]
    part.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=part.name):
        cached_embeddings(TEXTS, Encoder().load, tmp_path)
    part.unlink()
    encoder = Encoder()
    cached_embeddings(TEXTS, encoder.load, tmp_path)
    assert len(encoder.seen) == 8


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        cached_embeddings(TEXTS, Encoder().load, tmp_path / "file")


def test_texts_go_with_their_vectors() -> None:
    values = torch.arange(8.0).view(4, 2)
    split = Split(TextInputs(values, ["a", "b", "c", "d"]), [0, 1, 0, 1])
    part = split.subset(torch.tensor([3, 1])).x
    assert isinstance(part, TextInputs)
    assert part.texts == ("d", "b")
    assert torch.equal(part[torch.tensor([0, 1])], values[[3, 1]])
    hidden = split.without_attribute("none").x
    assert isinstance(hidden, TextInputs)
    assert hidden.texts == ("a", "b", "c", "d")
    with pytest.raises(DataError, match="3 texts for 4 vectors"):
        TextInputs(values, ["a", "b", "c"])
