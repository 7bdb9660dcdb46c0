"""Real sentences rated by real people; the shortcut is where a sentence comes from, and nothing is planted.

23,703 tweets and sentences from film reviews, product reviews and newspaper editorials, each with the mean of
twenty people's ratings of its sentiment from -4 to 4. Film and product reviews speak of different things; where
most negative sentences are about films and most positive ones about products, the topic is easier to learn than
the sentiment. The correlation alone is made, by leaving sentences out.

The sentences come in the source archive of the Python package vaderSentiment, which is read in place; none of its
code runs here. Features are those of a sentence encoder (unrote.data.minilm).

Reference: Hutto and Gilbert, "VADER: A parsimonious rule-based model for sentiment analysis of social media
text", ICWSM (2014).
"""

import io
import tarfile
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from unrote.data.download import PackageFile, read_member
from unrote.data.embeddings import TextInputs
from unrote.data.minilm import embed
from unrote.data.options import check_number
from unrote.data.registry import register_task
from unrote.data.task import Split, Task
from unrote.errors import DataError, OptionError, UnknownNameError
from unrote.seeding import generator

ARCHIVE = PackageFile(
    requirement="vaderSentiment==3.3.2",
    file="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    folder="vadersentiment",
)
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
DOMAINS = {
    "tweets": "tweets_GroundTruth.txt",
    "film": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "editorial": "nytEditorialSnippets_GroundTruth.txt",
}
"""Where sentences come from, and the file that has them."""

NEUTRAL = 0.5
"""Ratings no further from 0 than this are neither class."""


@dataclass(frozen=True)
class Sentences:
    """The distinct sentences of one domain, with the mean rating of each."""

    texts: tuple[str, ...]
    ratings: tuple[float, ...]

    def of_class(self, y: int) -> list[str]:
        """The clearly negative (0) or clearly positive (1) ones."""
        sign = 2 * y - 1
        pairs = zip(self.texts, self.ratings, strict=True)
        return [text for text, rating in pairs if sign * rating > NEUTRAL]


@register_task(
    "reviews", "film reviews against product reviews, negative or positive; the topic is the shortcut"
)
def reviews(
    *,
    negative_domain: str = "film",
    positive_domain: str = "product",
    alignment: float = 0.95,
    validation: float = 0.15,
    test: float = 0.25,
    seed: int = 0,
) -> Task:
    """Tell negative sentences from positive ones, where most of each come from one domain.

    Classes are equally frequent. Training and validation agree with the shortcut equally often; in the test split
    every class has both domains equally often. The first use fetches the sentences (2 MB) and the encoder (84 MB)
    and encodes the sentences that the task needs, about a minute; later uses, and other seeds, read most of them
    from the cache. The sentences themselves are at hand as `task.train.x.texts`.

    Args:
        negative_domain: where most negative sentences are from: tweets, film, product or editorial.
        positive_domain: where most positive ones are from; another.
        alignment: share of each class, in training and validation, that is from its own domain, in [0, 1]; 0.5
            makes no shortcut.
        validation: share of what the test leaves that goes into validation, in [0, 0.5].
        test: share of the rarest group that goes into the test, and as many sentences of each other group, in
            [0.05, 0.5].
        seed: of the draw.

    Returns:
        A task with x (n, 384) float32 of unit length.

    Raises:
        UnknownNameError: if there is no such domain.
        OptionError: if an option is out of range.
        DataError: if the sentences or the encoder cannot be had.
        MissingPackageError: if sentences must be encoded and transformers is not installed.
    """
    domains = (negative_domain, positive_domain)
    for domain in domains:
        if domain not in DOMAINS:
            raise UnknownNameError("domain of sentences", domain, DOMAINS)
    if negative_domain == positive_domain:
        raise OptionError(f"negative_domain and positive_domain are both {negative_domain!r}: two are wanted")
    check_number("alignment", alignment, 0.0, 1.0)
    check_number("validation", validation, 0.0, 0.5)
    check_number("test", test, 0.05, 0.5)
    sentences = [read_sentences(domain) for domain in domains]
    groups = [[source.of_class(y) for source in sentences] for y in range(2)]
    counts = torch.tensor([[len(group) for group in row] for row in groups])
    sizes = split_sizes(counts, alignment, validation, test)
    parts = _deal(groups, sizes, seed)
    encoded = sorted({text for texts, _, _ in parts.values() for text in texts})
    features = dict(zip(encoded, torch.from_numpy(embed(encoded)), strict=True))
    splits = {
        name: Split(TextInputs(torch.stack([features[text] for text in texts]), texts), y, attribute)
        for name, (texts, y, attribute) in parts.items()
    }
    return Task(
        name="reviews",
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        class_names=("negative", "positive"),
        attribute_names=domains,
        shortcut=f"where the sentence is from; where its class mostly is from in {alignment:.0%} of training",
    )


def read_sentences(domain: str) -> Sentences:
    """The sentences of a domain, fetched if they are not in the cache.

    Raises:
        DataError: if they cannot be had or read.
    """
    path = ARCHIVE.fetch()
    try:
        with tarfile.open(path) as outer:
            content = io.BytesIO(read_member(outer, INNER))
        with tarfile.open(fileobj=content) as inner:
            table = read_member(inner, f"hutto_ICWSM_2014/{DOMAINS[domain]}").decode()
        found: dict[str, float] = {}
        for line in filter(None, table.split("\r\n")):
            _, rating, text = line.split("\t")
            # some stand there twice, and must not get into two splits
            found.setdefault(text.strip(), float(rating))
    except (tarfile.TarError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it and try again") from error
    return Sentences(tuple(found), tuple(found.values()))


def split_sizes(
    counts: Int[Tensor, "2 2"], alignment: float, validation: float, test: float
) -> dict[str, Int[Tensor, "2 2"]]:
    """How many sentences of each class (row) and domain (column) each split gets, as many as the rarest allow.

    Args:
        counts: sentences there are.
        alignment: share of each class that is from its own domain, but in the test.
        validation: share of what the test leaves.
        test: share of the rarest group.

    Raises:
        OptionError: if too few sentences are left to train on.
    """
    tested = round(test * int(counts.min()))

    def aligned(size: int) -> Int[Tensor, "2 2"]:
        own = round(alignment * size)
        return torch.tensor([[own, size - own], [size - own, own]])

    left = counts - tested
    size = int(left.sum(1).min())
    while size > 0:
        sizes = {
            "train": aligned(size - round(validation * size)),
            "validation": aligned(round(validation * size)),
        }
        if bool((sizes["train"] + sizes["validation"] <= left).all()):
            break
        size -= 1
    if size < 20 or not tested:
        raise OptionError(
            f"alignment={alignment:g} leaves {size} sentences of each class: lower test= or choose other domains"
        )
    return {**sizes, "test": torch.full((2, 2), tested)}


def _deal(
    groups: list[list[list[str]]], sizes: dict[str, Int[Tensor, "2 2"]], seed: int
) -> dict[str, tuple[list[str], Int[Tensor, " n"], Int[Tensor, " n"]]]:
    """The texts, classes and domains of each split that has any, in random order."""
    drawn: dict[str, list[tuple[str, int, int]]] = {name: [] for name in ("test", "validation", "train")}
    for y in range(2):
        for domain in range(2):
            texts, start = groups[y][domain], 0
            order = torch.randperm(len(texts), generator=generator(seed, "reviews", y, domain)).tolist()
            for name, rows in drawn.items():
                stop = start + int(sizes[name][y, domain])
                rows += [(texts[i], y, domain) for i in order[start:stop]]
                start = stop
    result = {}
    for name, rows in drawn.items():
        order = torch.randperm(len(rows), generator=generator(seed, "reviews", name)).tolist()
        if rows:
            label, attribute = (torch.tensor([rows[i][column] for i in order]) for column in (1, 2))
            result[name] = [rows[i][0] for i in order], label, attribute
    return result
