"""MAT for a small network on sentences of different lengths: good or bad, whatever is being reviewed?

In training nearly all bad sentences are about films and nearly all good ones about products, so that words of the
subject give the sentiment away; in the test they do not. Neither run is told what a sentence is about. The network
averages learned vectors of words and pairs of words, which two thousand sentences are few to learn from. The vectors
begin at random and show little of the subject, so that MAT's twins are networks too, by themselves. Test accuracy in
the worst group, as measured: ERM 0.15, MAT 0.25. About ten seconds on one core; the sentences come from

    unrote data fetch reviews

    python examples/text.py
    python examples/text.py --workers 2     sentences are read by two processes; the result is the same
"""

import argparse
import itertools
import re
import zlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

import unrote
from unrote.data.inputs import DatasetInputs
from unrote.data.reviews import read_sentences
from unrote.errors import UnroteError

DOMAINS = ("film", "product")
N_TRAIN, ALIGNED, N_TEST = 2000, 0.95, 200
BUCKETS = 1 << 14  # words are told apart by their hash


class Sentences(Dataset[Any]):
    """Sentences as numbers of words and pairs of words, from 1; 0 is for padding."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        words = re.findall(r"[a-z']+|[!?]", self.texts[i].lower()) or ["?"]
        words += [f"{a} {b}" for a, b in itertools.pairwise(words)]
        return {"words": torch.tensor([1 + zlib.crc32(word.encode()) % (BUCKETS - 1) for word in words])}


def padded(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A minibatch, as long as its longest sentence."""
    return {"words": pad_sequence([item["words"] for item in items], batch_first=True)}


class WordVectors(nn.Module):
    """The mean of the words' vectors, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(BUCKETS, 32, padding_idx=0)
        self.head = nn.Linear(32, 2)

    def forward(self, words: Tensor) -> Tensor:
        """Logits of sentences (B, length)."""
        there = (words > 0).float().unsqueeze(-1)
        return self.head((self.vectors(words) * there).sum(1) / there.sum(1))


parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
parser.add_argument("--workers", type=int, default=0, help="processes that read sentences")
parser.add_argument("--epochs", type=int, default=4)
given = parser.parse_args()

try:
    domains = [read_sentences(domain) for domain in DOMAINS]
except UnroteError as error:
    raise SystemExit(f"skipped: {error}") from None
random = torch.Generator().manual_seed(0)
parts: dict[str, list[tuple[str, int, int]]] = {"train": [], "validation": [], "test": []}
for y in (0, 1):
    for about, domain in enumerate(domains):
        texts = domain.of_class(y)
        texts = [texts[i] for i in torch.randperm(len(texts), generator=random)]
        share = ALIGNED if y == about else 1 - ALIGNED  # bad about films, good about products
        sizes = {"test": N_TEST, "validation": N_TEST, "train": round(share * N_TRAIN / 2)}
        for name, size in sizes.items():
            parts[name] += [(text, y, about) for text in texts[:size]]
            texts = texts[size:]


def split(rows: list[tuple[str, int, int]]) -> unrote.Split:
    """Sentences, sentiments and subjects."""
    texts, y, about = zip(*rows, strict=True)
    inputs = DatasetInputs(Sentences(list(texts)), given.workers, padded, pin=True)
    return unrote.Split(inputs, torch.tensor(y), torch.tensor(about))


task = unrote.Task("sentences", **{name: split(rows) for name, rows in parts.items()})
recipe = unrote.Recipe("adam", 5e-3, batch_size=64, epochs=given.epochs)
worst = {}
# "auto", MAT's default temperature, would find no shortcut: of so few sentences no two pairs of twins learn the
# subject alike
for name, settings in (("erm", {}), ("mat", {"temperature": 0.1})):
    fitted = unrote.fit(task, name, model=WordVectors, recipe=recipe, **settings)
    report = unrote.evaluate(fitted, task)
    worst[name] = report.worst_group.accuracy
    print(f"{name.upper()}: worst-group test accuracy {worst[name]:.2f}", flush=True)
assert worst["mat"] > worst["erm"]
