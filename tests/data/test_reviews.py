"""The reviews task on a small archive that the tests write, and once on the real one where it is in the cache."""

import hashlib
import io
import sys
import tarfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrote.data import Split, Task, load_task, minilm, reviews
from unrote.data.embeddings import TextInputs
from unrote.data.reviews import DOMAINS, read_sentences, split_sizes
from unrote.errors import DataError, MissingPackageError, OptionError, UnknownNameError

COUNTS = {"tweets": (40, 70), "film": (120, 110), "product": (60, 90), "editorial": (30, 30)}
"""Negative and positive sentences of each domain in the small archive."""

HAVE_REAL = reviews.ARCHIVE.path.is_file() and minilm.ARCHIVE.path.is_file()


def lines(domain: str) -> list[str]:
    negative, positive = COUNTS[domain]
    rated = [(f"{domain} bad {i}", -0.51 - i / 50) for i in range(negative)]
    rated += [(f"{domain} good {i} café", 0.51 + i / 50) for i in range(positive)]
    rated += [(f"{domain} dull {i}", rating) for i, rating in enumerate((-0.5, -0.1, 0.0, 0.5))]
    rated += [(f"{domain} bad 0", 3.0)]  # a sentence that stands there twice: the first counts
    return [f"{i}\t{rating}\t{text}" for i, (text, rating) in enumerate(rated)]


def pack(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def install(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an archive into the cache as if pip had, and expect its hash."""
    archive = replace(reviews.ARCHIVE, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(reviews, "ARCHIVE", archive)
    archive.path.parent.mkdir(parents=True, exist_ok=True)
    archive.path.write_bytes(content)


def fake_vector(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=384).astype(np.float32)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small archive and an encoder that costs nothing; gives the list of what was encoded."""
    encoded: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        encoded.extend(texts)
        return np.stack([fake_vector(text) for text in texts])

    tables = {
        f"hutto_ICWSM_2014/{file}": "\r\n".join([*lines(domain), ""]).encode()
        for domain, file in DOMAINS.items()
    }
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    monkeypatch.setattr(minilm, "load", lambda: encode)
    install(pack({reviews.INNER: pack(tables)}), monkeypatch)
    return encoded


def texts(split: Split) -> tuple[str, ...]:
    assert isinstance(split.x, TextInputs)
    return split.x.texts


def counts(task: Task, split: Split) -> list[int]:
    return torch.bincount(task.group(split), minlength=4).tolist()


@pytest.mark.usefixtures("archive")
class TestSmallArchive:
    def test_sentences_are_read_with_their_ratings(self) -> None:
        film = read_sentences("film")
        assert len(film.texts) == len(set(film.texts)) == 120 + 110 + 4
        assert film.ratings[0] == -0.51
        assert film.of_class(0) == [f"film bad {i}" for i in range(120)]
        assert film.of_class(1) == [f"film good {i} café" for i in range(110)]

    @pytest.mark.parametrize("domains", list(combinations(DOMAINS, 2)))
    @pytest.mark.parametrize("turned", [False, True])
    def test_labels_attributes_and_features_belong_to_the_sentences(
        self, domains: tuple[str, str], turned: bool
    ) -> None:
        first, second = domains[::-1] if turned else domains
        task = load_task("reviews", negative_domain=first, positive_domain=second, alignment=0.8)
        assert task.attribute_names == (first, second)
        for split in task.splits.values():
            for row, text in enumerate(texts(split)):
                domain, mood, *_ = text.split()
                assert mood == ("bad", "good")[int(split.y[row])]
                assert domain == (first, second)[int(split.attribute[row])]
                wanted = fake_vector(text).astype(np.float16).astype(np.float32)
                assert np.array_equal(split.x[torch.tensor([row])][0].numpy(), wanted)

    def test_no_sentence_is_in_two_splits(self) -> None:
        task = load_task("reviews")
        every = [text for split in task.splits.values() for text in texts(split)]
        assert len(every) == len(set(every))

    @pytest.mark.parametrize("alignment", [0.5, 0.8, 0.95, 1.0, 0.0])
    def test_groups_are_as_large_as_the_options_say(self, alignment: float) -> None:
        task = load_task("reviews", alignment=alignment, test=0.3, validation=0.2)
        assert task.validation is not None
        assert task.test is not None
        assert counts(task, task.test) == [18] * 4  # 30% of the 60 negative product sentences
        for split in (task.train, task.validation):
            own = round(alignment * len(split) / 2)
            other = len(split) // 2 - own
            assert counts(task, split) == [own, other, other, own]
        assert len(task.validation) / (len(task.train) + len(task.validation)) == pytest.approx(0.2, abs=0.02)

    def test_only_what_the_task_needs_is_encoded_and_only_once(self, archive: list[str]) -> None:
        task = load_task("reviews", seed=1)
        assert sorted(archive) == sorted(text for split in task.splits.values() for text in texts(split))
        archive.clear()
        again = load_task("reviews", seed=1)
        assert archive == []
        assert again.fingerprint() == task.fingerprint()
        assert [texts(s) for s in again.splits.values()] == [texts(s) for s in task.splits.values()]

    def test_another_seed_draws_others(self) -> None:
        one, other = (load_task("reviews", seed=seed) for seed in (0, 1))
        assert texts(one.train) != texts(other.train)
        assert counts(one, one.train) == counts(other, other.train)

    def test_without_validation(self) -> None:
        assert load_task("reviews", validation=0.0).validation is None

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"negative_domain": "films"}, UnknownNameError, "did you mean 'film'"),
            ({"positive_domain": "film"}, OptionError, "both 'film'"),
            ({"alignment": 1.2}, OptionError, "alignment"),
            ({"validation": 0.6}, OptionError, "validation"),
            ({"test": 0.0}, OptionError, "test"),
            (
                {"negative_domain": "editorial", "positive_domain": "tweets", "test": 0.5},
                OptionError,
                "leaves 16",
            ),
        ],
        ids=["unknown domain", "one domain", "alignment", "validation", "test", "too few"],
    )
    def test_bad_options(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            load_task("reviews", **options)


@pytest.mark.parametrize(
    "members",
    [{}, {reviews.INNER: b"no archive"}, {reviews.INNER: pack({})}],
    ids=["empty", "no archive within", "no tables"],
)
def test_a_wrong_archive_is_told(
    members: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    install(pack(members), monkeypatch)
    with pytest.raises(DataError, match="delete it and try again"):
        load_task("reviews")


def test_a_line_that_is_no_rating_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    table = {f"hutto_ICWSM_2014/{DOMAINS['film']}": b"1\tgood\ttext\r\n"}
    install(pack({reviews.INNER: pack(table)}), monkeypatch)
    with pytest.raises(DataError, match="cannot be read"):
        read_sentences("film")


def test_split_sizes_use_all_that_fits() -> None:
    sizes = split_sizes(torch.tensor([[100, 40], [30, 100]]), 0.9, 0.25, 0.2)
    assert sizes["test"].tolist() == [[6, 6], [6, 6]]
    used = sizes["train"] + sizes["validation"]
    # all 94 sentences that the test leaves of a class's own domain, which are 0.9 of 105
    assert used.tolist() == [[94, 11], [11, 94]]


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackageError, match=r"unrote\[transformers\]"):
        minilm.load()


@pytest.mark.skipif(
    not HAVE_REAL, reason="the cache lacks sentences or encoder; the task 'reviews' fetches them"
)
class TestRealArchive:
    def test_has_all_sentences(self) -> None:
        found = {domain: len(read_sentences(domain).texts) for domain in DOMAINS}
        assert found == {"tweets": 4200, "film": 10603, "product": 3697, "editorial": 5119}

    def test_the_encoder_knows_what_is_alike(self) -> None:
        pytest.importorskip("transformers")
        before = torch.get_rng_state()
        encode = minilm.load()
        assert torch.equal(torch.get_rng_state(), before)
        alike = ["The film was wonderful.", "A marvellous movie!", "The charger broke after two days."]
        one, other, third = encode(alike)
        assert np.linalg.norm(one) == pytest.approx(1.0, abs=1e-5)
        assert float(one @ other) > float(one @ third) + 0.3
        np.testing.assert_allclose(encode(alike[:1])[0], one, atol=1e-5)  # padding changes nothing
