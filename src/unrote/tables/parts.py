"""The parts of a preprocessor, one per kind of column, each around a transformer of scikit-learn.

    numbers     SimpleImputer(median, with indicators of what was missing), then StandardScaler
    categories  OneHotEncoder with rare categories as one, missing a category of its own
    texts       TfidfVectorizer

A part gives its state as JSON and arrays, and a part made from that state transforms bit for bit as the one it
came from. Nothing is pickled: a transformer is put together again from what it learned, through its public face.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from unrote.errors import DataError
from unrote.tables.columns import Column, Dates, Strings, as_numbers

CHUNK = 1 << 16
"""Rows transformed at once."""

MISSING_CATEGORY = "(missing)"
Arrays = dict[str, np.ndarray]

_BLOCK_VALUES = 1 << 24  # of numbers imputed at once: 128 MB
_FARTHEST = 100.0  # standard deviations: what lies beyond says no more, and may not fit 32 bits
_MAX_CATEGORIES = 256
_MAX_RARE_LEVELS = 10_000
_MAX_TERMS = 2_000
_MAX_TEXTS = 200_000

Aspect = Literal["value", "days", "month", "weekday", "hour"]
DATE_ASPECTS: tuple[Aspect, ...] = ("days", "month", "weekday", "hour")


@dataclass(frozen=True)
class Source:
    """A number that a column gives: itself, or an aspect of a date."""

    column: str
    aspect: Aspect = "value"

    def values(self, column: Column) -> Shaped[np.ndarray, " n"]:
        """The number of each row, NaN where it is missing."""
        if not isinstance(column, Dates):
            plain = getattr(column, "values", None)
            return plain if plain is not None else as_numbers(column)[0]
        seconds = column.values.astype("datetime64[s]").astype(np.int64)
        days = seconds // 86_400
        month = column.values.astype("datetime64[M]").astype(np.int64) % 12 + 1
        number = {
            "days": seconds / 86_400,
            "month": month,
            "weekday": (days + 3) % 7,  # the first of January 1970 was a Thursday
            "hour": (seconds % 86_400) / 3_600,
        }[self.aspect]
        return np.where(column.missing, np.nan, number)


@dataclass(frozen=True)
class NumberPart:
    """Numbers with the missing ones filled in, scaled to mean 0 and variance 1."""

    sources: tuple[Source, ...]
    imputer: SimpleImputer
    scaler: StandardScaler

    @staticmethod
    def fit(sources: Sequence[Source], values: Sequence[Shaped[np.ndarray, " n"]]) -> "NumberPart":
        """Learn medians, means and variances.

        Args:
            sources: d of them.
            values: the training rows of each.

        Raises:
            DataError: if numbers are too large for their variance to be a number.
        """
        width = max(1, _BLOCK_VALUES // max(len(values[0]), 1))
        medians, gaps = [], []
        for start in range(0, len(values), width):
            block = _matrix(values[start : start + width])
            absent = np.isnan(block)
            block[:, absent.all(0)] = 0.0  # nothing known of it in training: any value will do
            medians.append(SimpleImputer(strategy="median").fit(block).statistics_)
            gaps.append(absent.any(0))
        imputer = _imputer(np.concatenate(medians), np.concatenate(gaps))
        scaler = StandardScaler()
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(values[0]), CHUNK):
                scaler.partial_fit(imputer.transform(_matrix([v[start : start + CHUNK] for v in values])))
        for source, mean, variance in zip(sources, scaler.mean_, scaler.var_, strict=False):
            if not (np.isfinite(mean) and np.isfinite(variance)):
                raise DataError(
                    f"column {source.column!r} has numbers too large to scale (beyond about 1e154): take their "
                    "logarithm or leave the column out"
                )
        return NumberPart(tuple(sources), imputer, scaler)

    def transform(
        self,
        values: Sequence[Shaped[np.ndarray, " n"]],
        out: Float[np.ndarray, "m d"],
        rows: Int[np.ndarray, " m"],
    ) -> None:
        """Write the scaled numbers of m of n rows to `out`, chunk by chunk."""
        for start in range(0, len(rows), CHUNK):
            chunk = _matrix([v[rows[start : start + CHUNK]] for v in values])
            scaled = self.scaler.transform(self.imputer.transform(chunk))
            out[start : start + CHUNK] = np.clip(scaled, -_FARTHEST, _FARTHEST)

    @property
    def width(self) -> int:
        """Number of features: one per source and one per indicator."""
        return len(self.scaler.mean_)

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """What `restore` needs."""
        gaps = np.zeros(len(self.sources), bool)
        gaps[self.imputer.indicator_.features_] = True
        return {
            "sources": [[source.column, source.aspect] for source in self.sources],
            "rows": int(self.scaler.n_samples_seen_),
        }, {
            "median": self.imputer.statistics_,
            "gaps": gaps,
            "mean": self.scaler.mean_,
            "variance": self.scaler.var_,
            "scale": self.scaler.scale_,
        }

    @staticmethod
    def restore(record: dict[str, Any], arrays: Arrays) -> "NumberPart":
        """The part whose state this is."""
        scaler = StandardScaler()
        scaler.mean_, scaler.var_, scaler.scale_ = arrays["mean"], arrays["variance"], arrays["scale"]
        scaler.n_samples_seen_, scaler.n_features_in_ = record["rows"], len(arrays["mean"])
        sources = tuple(Source(column, aspect) for column, aspect in record["sources"])
        return NumberPart(sources, _imputer(arrays["median"], arrays["gaps"]), scaler)


def _matrix(values: Sequence[Shaped[np.ndarray, " n"]]) -> Float[np.ndarray, "n d"]:
    result = np.empty((len(values[0]), len(values)))
    for place, column in enumerate(values):
        result[:, place] = column
    return result


def _imputer(median: Float[np.ndarray, " d"], gaps: Shaped[np.ndarray, " d"]) -> SimpleImputer:
    """An imputer with these medians, and with indicators for the features that have gaps.

    Fitted on two rows that have just these medians and gaps: its private state is then scikit-learn's own
    business, whatever version.
    """
    rows = np.stack([median, np.where(gaps, np.nan, median)])
    return SimpleImputer(strategy="median", add_indicator=True).fit(rows)


@dataclass(frozen=True)
class CategoryPart:
    """One column of categories, one feature for each that is frequent and one for all that are rare."""

    column: str
    levels: tuple[str, ...]
    frequent: tuple[bool, ...]

    @staticmethod
    def fit(name: str, column: Strings) -> "CategoryPart":
        """Learn the categories of the training rows. Frequent is 5 rows, or 1 in 2,000 if that is more."""
        counts = dict(zip(column.levels, column.counts.tolist(), strict=True))
        if column.missing.any():
            counts[MISSING_CATEGORY] = counts.get(MISSING_CATEGORY, 0) + int(column.missing.sum())
        seen = sorted((level for level, count in counts.items() if count), key=lambda v: (-counts[v], v))
        enough = max(5, len(column) / 2000)
        frequent = [level for level in seen if counts[level] >= enough][: _MAX_CATEGORIES - 1]
        rare = seen[len(frequent) :][:_MAX_RARE_LEVELS]
        return CategoryPart(name, (*frequent, *rare), (True,) * len(frequent) + (False,) * len(rare))

    @cached_property
    def encoder(self) -> OneHotEncoder:
        """The encoder, fitted on a column that has each rare category once and each frequent one twice."""
        sample = [
            level for level, often in zip(self.levels, self.frequent, strict=True) for _ in range(1 + often)
        ]
        encoder = OneHotEncoder(min_frequency=2, handle_unknown="infrequent_if_exist", dtype=np.float32)
        return encoder.fit(np.array(sample, object).reshape(-1, 1))

    @property
    def width(self) -> int:
        """Number of features."""
        return sum(self.frequent) + (not all(self.frequent))

    def positions(self, column: Strings) -> Int[np.ndarray, " n"]:
        """Which feature is 1 in each row, -1 where none is (a category unseen in training, and none is rare)."""
        levels = np.array([*column.levels, MISSING_CATEGORY], object).reshape(-1, 1)
        encoded = self.encoder.transform(levels).tocsr()
        position = np.where(np.diff(encoded.indptr) > 0, np.asarray(encoded.argmax(1)).ravel(), -1)
        # code -1 finds the missing category at the end
        return np.asarray(position.astype(np.int32)[column.codes])

    def unseen(self, column: Strings) -> list[str]:
        """The categories of a column that no training row had."""
        known = set(self.levels)
        used = column.counts > 0
        return [
            level
            for level, is_used in zip(column.levels, used, strict=True)
            if is_used and level not in known
        ]


@dataclass(frozen=True)
class TextPart:
    """One column of texts as word weights."""

    column: str
    vectorizer: TfidfVectorizer

    @staticmethod
    def fit(name: str, column: Strings) -> "TextPart":
        """Learn the words of the training rows.

        Raises:
            DataError: if there are none.
        """
        texts = list(_texts(Strings(column.codes[:_MAX_TEXTS], column.levels)))
        # a word of one text alone is learned by rote
        vectorizer = _vectorizer(max_features=_MAX_TERMS, min_df=2)
        try:
            vectorizer.fit(texts)
        except ValueError as error:
            raise DataError(
                f"column {name!r} has no word that two texts share: leave it out with --ignore {name!r}"
            ) from error
        return TextPart(name, vectorizer)

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.vectorizer.vocabulary_)

    def transform(self, column: Strings) -> csr_matrix:
        """Word weights, (n, width)."""
        starts = range(0, len(column), CHUNK)
        chunks = (Strings(column.codes[start : start + CHUNK], column.levels) for start in starts)
        return csr_matrix(vstack([self.vectorizer.transform(list(_texts(chunk))) for chunk in chunks]))

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """What `restore` needs."""
        terms = sorted(self.vectorizer.vocabulary_, key=self.vectorizer.vocabulary_.__getitem__)
        return {"column": self.column, "terms": terms}, {"idf": self.vectorizer.idf_}

    @staticmethod
    def restore(record: dict[str, Any], arrays: Arrays) -> "TextPart":
        """The part whose state this is."""
        vectorizer = _vectorizer(vocabulary={term: place for place, term in enumerate(record["terms"])})
        vectorizer.idf_ = arrays["idf"]
        return TextPart(record["column"], vectorizer)


def _vectorizer(**options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(strip_accents="unicode", sublinear_tf=True, dtype=np.float32, **options)


def _texts(column: Strings) -> "map[str]":
    levels = [*column.levels, ""]  # code -1 finds the empty text at the end
    return map(levels.__getitem__, column.codes.tolist())
