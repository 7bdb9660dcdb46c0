"""CivilComments: 448,000 online comments, toxic or not; mentions of people's identities are the shortcut.

Four tasks of different names, whose results are not to be compared with each other:

  - civilcomments: as WILDS scores it, over 16 overlapping groups (8 identities, toxic or not); a comment is in the
    groups of all identities that it mentions, or in none;
  - civilcomments-4: 4 groups, whether any of the 8 identities is mentioned, toxic or not;
  - civilcomments-fine: the benchmark suites' table, a row per comment and identity: comments that mention none are
    gone, others stand there several times;
  - civilcomments-coarse: likewise for validation and test; training has every comment once, and its attribute is
    whether NO identity is mentioned. Here that attribute has names of its own, apart from the 8 identities.

Layouts: all_data_with_identities.csv (WILDS, JTT), of which all four are made; and the suites' own
metadata_civilcomments_{coarse,fine}.csv with civilcomments_{coarse,fine}.csv.

References: Borkan et al., "Nuanced metrics for measuring unintended bias with real data for text classification", WWW
(2019); Koh et al., "WILDS", ICML (2021).
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unrote.data.folders.columns import BINARY, SPLITS, read_columns, shares, whole
from unrote.data.folders.copies import Copy, Counts, Published, choose, first_file, root_folder
from unrote.data.folders.examples import Absent, Examples, Texts
from unrote.data.registry import register_task
from unrote.data.task import Task
from unrote.errors import DataError

IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
CLASSES = ("not toxic", "toxic")
SIZES = {"train": 269_038, "validation": 45_180, "test": 133_782}
PUBLISHED = Published(SIZES, {"train": (148_186, 90_337, 12_731, 17_784)})
WANTED = "all_data_with_identities.csv or metadata_civilcomments_{coarse,fine}.csv is wanted"
MAX_LENGTH = 300
NAMES = ("civilcomments", "civilcomments-4", "civilcomments-fine", "civilcomments-coarse")

_PLACES = (
    "",
    "civilcomments_v1.0/",
    "civilcomments/",
    "data/civilcomments_v1.0/",
    "data/civilcomments/",
    "jigsaw/data/",
    "data/",
)
_WORDS = {"train": 0, "val": 1, "test": 2}


def _loader(name: str) -> Callable[..., Task]:
    def load(
        *,
        root: "str | os.PathLike[str] | None" = None,
        layout: str | None = None,
        features: Any = None,
        encoder: Any = None,
        tokenizer: Any = None,
        max_length: int | None = None,
        pooling: str = "auto",
        batch_size: int = 32,
        device: Any = None,
        workers: int = 0,
        counts: Counts = "published",
    ) -> Task:
        """Tell toxic comments from others.

        Args:
            root: the folder of the copy, or one above it; default that named by $UNROTE_DATA.
            layout: "wilds" or "suite", where a folder has both.
            features: file of features (.npy or .parquet), a row per row of the table.
            encoder: "minilm", a folder or a module that makes features of the comments; see `text_encoder`.
            tokenizer: folder or object that makes tokens of the comments.
            max_length: tokens that are kept of each comment; default 300.
            pooling: of the encoder.
            batch_size: comments that are encoded at once.
            device: where to encode.
            workers: processes that make tokens.
            counts: "published" refuses a copy with other numbers of examples.

        Returns:
            A task whose x are mappings of tokens as Hugging Face models take them, or (n, d) features.

        Raises:
            DataError: if the copy cannot be read, or is not as published.
            OptionError: if an option is out of range, or nothing makes numbers of the comments.
        """
        folder = root_folder(root)
        copy = choose(name, find(folder, name), folder, layout, WANTED)
        how: dict[str, Any] = {"features": features, "encoder": encoder, "tokenizer": tokenizer}
        how |= {"max_length": max_length}
        if not isinstance(copy.examples, Absent):
            how |= {"pooling": pooling, "batch_size": batch_size, "device": device, "workers": workers}
        return copy.task(counts, **how)

    return load


civilcomments = register_task(
    "civilcomments", "your copy of CivilComments: toxic or not; scored over WILDS's 16 overlapping groups"
)(_loader("civilcomments"))
civilcomments_4 = register_task(
    "civilcomments-4", "your copy of CivilComments: toxic or not; 4 groups by any identity being mentioned"
)(_loader("civilcomments-4"))
civilcomments_fine = register_task(
    "civilcomments-fine", "your copy of CivilComments: a row per comment and identity, 16 groups"
)(_loader("civilcomments-fine"))
civilcomments_coarse = register_task(
    "civilcomments-coarse", "your copy of CivilComments: as fine, but training by any identity"
)(_loader("civilcomments-coarse"))


def find(root: Path, name: str | None = None) -> list[Copy]:
    """The copies of CivilComments in a folder, one per task and layout; only one task's if it is named.

    Raises:
        DataError: if one cannot be read.
    """
    found = []
    for grain in ("coarse", "fine"):
        path = first_file(root, *(f"{place}metadata_civilcomments_{grain}.csv" for place in _PLACES))
        if path is not None and name in (None, f"civilcomments-{grain}"):
            found.append(_suite(grain, path))
    path = first_file(root, *(f"{place}all_data_with_identities.csv" for place in _PLACES))
    if path is not None:
        table = _Table(path)
        made: dict[str, Callable[[], Copy]] = {
            "civilcomments": table.overlapping,
            "civilcomments-4": table.any_identity,
            "civilcomments-fine": partial(table.repeated, "fine"),
            "civilcomments-coarse": partial(table.repeated, "coarse"),
        }
        found += [make() for task, make in made.items() if name in (None, task)]
    return found


class _Table:
    """WILDS's table: a row per comment."""

    def __init__(self, path: Path) -> None:
        columns = read_columns(path, ("comment_text", "split", "toxicity", *IDENTITIES))
        self.path, self.texts = path, columns["comment_text"]
        self.split = whole(columns, "split", path, _WORDS)
        self.y = (shares(columns, "toxicity", path) >= 0.5).astype(np.int64)
        self.identity = np.stack([shares(columns, name, path) >= 0.5 for name in IDENTITIES], axis=1)

    def overlapping(self) -> Copy:
        """16 overlapping groups to score by; whether any identity is mentioned, where a partition is needed."""
        member = np.concatenate([self.identity & (self.y == y)[:, None] for y in range(2)], axis=1)
        names = tuple(f"{c}, {identity}" for c in CLASSES for identity in IDENTITIES)
        return self._copy("civilcomments", membership=member, membership_names=names)

    def any_identity(self) -> Copy:
        """4 groups that every comment is in one of."""
        return self._copy("civilcomments-4")

    def _copy(self, name: str, **more: Any) -> Copy:
        return Copy(
            name=name,
            layout="wilds",
            metadata=self.path,
            examples=Texts(self.texts, MAX_LENGTH),
            split=self.split,
            y=self.y,
            attribute=np.any(self.identity, axis=1).astype(np.int64),
            class_names=CLASSES,
            attribute_names=("no identity", "identity"),
            shortcut="whether people's identities are mentioned; nothing is planted",
            published=PUBLISHED,
            **more,
        )

    def repeated(self, grain: str) -> Copy:
        """A row per comment and identity, in the order in which the benchmark suites write them."""
        rows, attribute = [], []
        if grain == "coarse":
            train = np.flatnonzero(self.split == 0)
            rows.append(train)
            attribute.append(1 - self.identity[train].any(1).astype(np.int64))
        # groupby sorts: test, train, val
        for split in (2, 1) if grain == "coarse" else (2, 0, 1):
            for place in range(len(IDENTITIES)):
                mentioned = np.flatnonzero((self.split == split) & self.identity[:, place])
                rows.append(mentioned)
                attribute.append(np.full(len(mentioned), place))
        index = np.concatenate(rows)
        texts = Texts([self.texts[i] for i in index], MAX_LENGTH)
        return _grained(
            grain, "wilds", self.path, texts, self.split[index], self.y[index], np.concatenate(attribute)
        )


def _suite(grain: str, path: Path) -> Copy:
    """The benchmark suites' metadata, with the comments in a table of their own.

    Raises:
        DataError: if the tables do not belong together.
    """
    columns = read_columns(path, ("filename", "split", "y", "a"))
    limit = {str(place): place for place in range(len(IDENTITIES))}
    name = f"civilcomments_{grain}.csv"
    texts_path = first_file(path.parent, name, f"civilcomments/{name}")
    examples: Examples = Absent(len(columns["y"]), name)
    if texts_path is not None:
        texts = read_columns(texts_path, ("comment_text",))["comment_text"]
        # a row of the metadata names the row of its comment
        index = whole(columns, "filename", path, {str(i): i for i in range(len(texts))})
        examples = Texts([texts[i] for i in index], MAX_LENGTH)
    return _grained(
        grain,
        "suite",
        path,
        examples,
        whole(columns, "split", path, SPLITS),
        whole(columns, "y", path, BINARY),
        whole(columns, "a", path, limit),
    )


def _grained(
    grain: str, layout: str, path: Path, examples: Examples, split: np.ndarray, y: np.ndarray, a: np.ndarray
) -> Copy:
    """The suites' table, whose training attribute means something else than the others' if it is coarse.

    Raises:
        DataError: if that attribute is neither 0 nor 1.
    """
    names: tuple[str, ...] = IDENTITIES
    if grain == "coarse":
        if a[split == 0].max(initial=0) > 1:
            raise DataError(f"{path}: training attributes run to {a[split == 0].max()}: 0 and 1 are wanted")
        names = (*IDENTITIES, "identity", "no identity")
        a = np.where(split == 0, a + len(IDENTITIES), a)
    return Copy(
        name=f"civilcomments-{grain}",
        layout=layout,
        metadata=path,
        examples=examples,
        split=split,
        y=y,
        attribute=a,
        class_names=CLASSES,
        attribute_names=names,
        shortcut="which identity is mentioned; comments that mention several stand there as often",
        published=Published({"train": SIZES["train"]}) if grain == "coarse" else None,
    )
