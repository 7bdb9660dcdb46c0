"""From columns to the numbers a model is shown, learned on the training rows and the same ever after."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, hstack
from torch import Tensor

from unrote.data import Inputs
from unrote.errors import DataError, TableWarning
from unrote.tables.columns import (
    Column,
    Dates,
    Numbers,
    Pictures,
    Strings,
    Table,
    Unusable,
    as_dates,
    as_numbers,
    as_strings,
)
from unrote.tables.inputs import PictureInputs, as_examples
from unrote.tables.kinds import Kind, warn_lost
from unrote.tables.parts import DATE_ASPECTS, Arrays, CategoryPart, NumberPart, Source, TextPart

_SHOWN = 5


@dataclass(frozen=True)
class PicturePart:
    """Pictures of one size, standardised per channel."""

    column: str
    shape: tuple[int, ...]
    mean: Float[np.ndarray, " c"]
    scale: Float[np.ndarray, " c"]

    @staticmethod
    def fit(name: str, column: Pictures, rows: Int[np.ndarray, " m"]) -> "PicturePart":
        """Learn the mean and spread of each channel over the training rows."""
        chunks = [
            column.values[part].astype(np.float64) for part in np.array_split(rows, len(rows) // 256 + 1)
        ]
        means, squares = (np.stack([(c**p).mean((2, 3)).sum(0) for c in chunks]).sum(0) for p in (1, 2))
        mean = means / len(rows)
        deviation = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
        return PicturePart(name, column.values.shape[1:], mean, np.where(deviation > 0, deviation, 1.0))


@dataclass(frozen=True)
class Preprocessor:
    """What was learned of the columns.

    Args:
        kinds: of the columns that a model is shown, by name, in the order of the training table.
        ignored: columns that the training table had and a model is not shown; new data may have them or not.
        numbers: numbers and dates; None if there are none.
        categories: one each.
        texts: one each.
        picture: the only column, if there is one.
    """

    kinds: Mapping[str, Kind]
    ignored: tuple[str, ...]
    numbers: NumberPart | None
    categories: tuple[CategoryPart, ...]
    texts: tuple[TextPart, ...]
    picture: PicturePart | None

    @staticmethod
    def fit(table: Table, kinds: Mapping[str, Kind], rows: Int[np.ndarray, " m"]) -> "Preprocessor":
        """Learn from the training rows of a table.

        Args:
            table: with all columns of `kinds`.
            kinds: see `unrote.tables.kinds.choose_kinds`.
            rows: of the training examples.

        Raises:
            DataError: if a column cannot be handled; the message names it.
        """
        prepared = _Prepared(table, kinds)
        sources = _sources(kinds)
        pictures = [name for name, kind in kinds.items() if kind == "picture"]
        return Preprocessor(
            kinds=dict(kinds),
            ignored=tuple(name for name in table.columns if name not in kinds),
            numbers=NumberPart.fit(sources, [v[rows] for v in prepared.numbers(sources)])
            if sources
            else None,
            categories=tuple(
                CategoryPart.fit(n, prepared.strings(n).take(rows)) for n in _of(kinds, "category")
            ),
            texts=tuple(TextPart.fit(name, prepared.strings(name).take(rows)) for name in _of(kinds, "text")),
            picture=PicturePart.fit(pictures[0], prepared.pictures(pictures[0]), rows) if pictures else None,
        )

    @property
    def n_features(self) -> int:
        """Number of features of a row that is not a picture."""
        sparse = sum(part.width for part in self.categories) + sum(part.width for part in self.texts)
        return sparse + (self.numbers.width if self.numbers else 0)

    def transform(self, table: Table, rows: Int[np.ndarray, " m"] | None = None) -> Tensor | Inputs:
        """What a model is shown of some rows, by default all.

        Columns may stand in any order; those that training did not have are ignored with a warning.

        Raises:
            DataError: if columns are missing, or one does not hold what it held in training.
        """
        self._check(table)
        rows = np.arange(len(table)) if rows is None else rows
        prepared = _Prepared(table, self.kinds)
        if self.picture is not None:
            pictures = prepared.pictures(self.picture.column)
            if pictures.values.shape[1:] != self.picture.shape:
                raise DataError(
                    f"{table.source}: {self.picture.column!r} has pictures of shape {pictures.values.shape[1:]}, "
                    f"the model was trained on {self.picture.shape}: scale them to it"
                )
            return PictureInputs(pictures.values[rows], self.picture.mean, self.picture.scale)
        dense = np.empty((len(rows), self.numbers.width if self.numbers else 0), np.float32)
        if self.numbers is not None:
            self.numbers.transform(prepared.numbers(self.numbers.sources), dense, rows)
        return as_examples(dense, self._sparse(prepared, rows))

    def _sparse(self, prepared: "_Prepared", rows: Int[np.ndarray, " m"]) -> csr_matrix | None:
        """Categories and texts of some rows, (m, width); None if there are no such columns."""
        blocks = [_one_hot(self.categories, prepared, rows)] if self.categories else []
        blocks += [part.transform(prepared.strings(part.column).take(rows)) for part in self.texts]
        if not blocks:
            return None
        return csr_matrix(hstack(blocks, format="csr", dtype=np.float32)) if len(blocks) > 1 else blocks[0]

    def _check(self, table: Table) -> None:
        """All columns are there; others than those of training are pointed out.

        Raises:
            DataError: if columns are missing.
        """
        missing = [name for name in self.kinds if name not in table.columns]
        if missing:
            raise DataError(
                f"{table.source} lacks column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}, "
                f"which the model was trained on; it has {', '.join(map(repr, list(table.columns)[:20]))}"
            )
        known = {*self.kinds, *self.ignored}
        extra = [name for name in table.columns if name not in known]
        if extra:
            shown = ", ".join(map(repr, extra[:_SHOWN])) + (" ..." if len(extra) > _SHOWN else "")
            warnings.warn(
                f"{table.source}: {len(extra)} column{'s' if len(extra) > 1 else ''} that the model was not "
                f"trained on ignored: {shown}",
                TableWarning,
                stacklevel=3,
            )

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """Everything learned: a JSON-ready record and arrays by name."""
        record: dict[str, Any] = {"kinds": dict(self.kinds), "ignored": list(self.ignored)}
        arrays: Arrays = {}
        if self.numbers is not None:
            record["numbers"], found = self.numbers.state()
            arrays |= {f"numbers.{name}": value for name, value in found.items()}
        record["categories"] = [
            {"column": part.column, "levels": list(part.levels), "frequent": sum(part.frequent)}
            for part in self.categories
        ]
        record["texts"] = []
        for place, part in enumerate(self.texts):
            text, found = part.state()
            record["texts"].append(text)
            arrays |= {f"texts.{place}.{name}": value for name, value in found.items()}
        if self.picture is not None:
            record["picture"] = {"column": self.picture.column, "shape": list(self.picture.shape)}
            arrays |= {"picture.mean": self.picture.mean, "picture.scale": self.picture.scale}
        return record, arrays

    @staticmethod
    def restore(record: Mapping[str, Any], arrays: Arrays) -> "Preprocessor":
        """The preprocessor whose state this is; it transforms bit for bit as that one did."""

        def of(prefix: str) -> Arrays:
            return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}

        picture = record.get("picture")
        return Preprocessor(
            kinds=dict(record["kinds"]),
            ignored=tuple(record["ignored"]),
            numbers=NumberPart.restore(record["numbers"], of("numbers.")) if "numbers" in record else None,
            categories=tuple(
                CategoryPart(
                    one["column"],
                    tuple(one["levels"]),
                    tuple(place < one["frequent"] for place in range(len(one["levels"]))),
                )
                for one in record["categories"]
            ),
            texts=tuple(
                TextPart.restore(one, of(f"texts.{place}.")) for place, one in enumerate(record["texts"])
            ),
            picture=None
            if picture is None
            else PicturePart(
                picture["column"], tuple(picture["shape"]), arrays["picture.mean"], arrays["picture.scale"]
            ),
        )


@dataclass(frozen=True)
class _Prepared:
    """The columns of a table, read as the kinds they are."""

    table: Table
    kinds: Mapping[str, Kind]

    def numbers(self, sources: Sequence[Source]) -> list[np.ndarray]:
        """The number that each source gives, (n,), of the type it is held in."""
        columns = {name: self._number(name) for name in {source.column: None for source in sources}}
        return [source.values(columns[source.column]) for source in sources]

    def _number(self, name: str) -> Column:
        column, kind = self._usable(name), self.kinds[name]
        if kind == "date":
            moments, lost = as_dates(column)
            warn_lost(name, column, lost, "dates")
            return Dates(moments)
        if isinstance(column, Numbers):
            if column.values.dtype.kind == "f" and np.isinf(column.values).any():
                raise DataError(
                    f"{self.table.source}: column {name!r} has infinite values: correct or empty them"
                )
            return column
        numbers, lost = as_numbers(column)
        warn_lost(name, column, lost, "numbers")
        return Numbers(numbers)

    def strings(self, name: str) -> Strings:
        """A column of categories or texts."""
        return as_strings(self._usable(name))

    def pictures(self, name: str) -> Pictures:
        """A column of pictures.

        Raises:
            DataError: if it holds something else.
        """
        column = self.table[name]
        if not isinstance(column, Pictures):
            raise DataError(f"{self.table.source}: column {name!r} holds no pictures, but did in training")
        return column

    def _usable(self, name: str) -> Column:
        column = self.table[name]
        if isinstance(column, (Pictures, Unusable)):
            raise DataError(
                f"{self.table.source}: column {name!r} holds no {self.kinds[name]}, as it did in training, but "
                + (column.what if isinstance(column, Unusable) else "pictures")
            )
        return column


def _of(kinds: Mapping[str, Kind], kind: Kind) -> list[str]:
    return [name for name, one in kinds.items() if one == kind]


def _sources(kinds: Mapping[str, Kind]) -> list[Source]:
    sources = [Source(name) for name in _of(kinds, "number")]
    return sources + [Source(name, aspect) for name in _of(kinds, "date") for aspect in DATE_ASPECTS]


def _one_hot(parts: Sequence[CategoryPart], prepared: _Prepared, rows: Int[np.ndarray, " m"]) -> csr_matrix:
    """The categories of some rows, each part's features after those of the one before."""
    place = np.empty((len(rows), len(parts)), np.int32)
    start, unseen = 0, {}
    for part, column in zip(parts, (prepared.strings(part.column) for part in parts), strict=True):
        taken = Strings(column.codes[rows], column.levels)
        found = part.positions(taken)
        place[:, parts.index(part)] = np.where(found < 0, -1, found + start)
        start += part.width
        if new := part.unseen(taken):
            unseen[part.column] = new
    for name, levels in unseen.items():
        warnings.warn(
            f"column {name!r} has {len(levels)} categor{'ies' if len(levels) > 1 else 'y'} unseen in training, "
            f"taken as rare: {', '.join(map(repr, levels[:_SHOWN]))}",
            TableWarning,
            stacklevel=2,
        )
    present = place >= 0
    ends = np.concatenate([[0], present.sum(1).cumsum()])
    indices = place[present]
    return csr_matrix((np.ones(len(indices), np.float32), indices, ends), shape=(len(rows), start))
