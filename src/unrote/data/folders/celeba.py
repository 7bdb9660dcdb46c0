"""CelebA: 202,599 faces, blond or not; whether the person is a man is the shortcut.

Layouts: list_attr_celeba with list_eval_partition, as .csv (Kaggle, WILDS; some copies have spaces for commas) or
.txt (the original), JTT's metadata.csv (image_id, 40 attributes, split), DFR's (img_filename, y, place, split), and
the benchmark suites' metadata_celeba.csv (id, filename, split, y, a); pictures in img_align_celeba, or in a folder
of that name inside it.

Reference: Liu et al., "Deep learning face attributes in the wild", ICCV (2015).
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from unrote.data.folders.columns import BINARY, SPLITS, header, read_columns, whole
from unrote.data.folders.copies import Copy, Counts, Published, choose, first_file, root_folder
from unrote.data.folders.examples import Pictures
from unrote.data.pictures import PictureForm
from unrote.data.registry import register_task
from unrote.data.task import Task
from unrote.errors import DataError

TARGET, ATTRIBUTE = "Blond_Hair", "Male"
PUBLISHED = Published(
    {"train": 162_770, "validation": 19_867, "test": 19_962},
    {
        "train": (71_629, 66_874, 22_880, 1_387),
        "validation": (8_535, 8_276, 2_874, 182),
        "test": (9_767, 7_535, 2_480, 180),
    },
)
FORM = PictureForm(scale=224, crop=224, cut=178)
WANTED = (
    "list_attr_celeba and list_eval_partition (.csv or .txt), metadata_celeba.csv or metadata.csv is wanted"
)

_SIGNS = {"-1": 0, "0": 0, "1": 1}
_PLACES = (
    "",
    "celebA/",
    "celeba/",
    "CelebA/",
    "celebA_v1.0/",
    "data/",
    "celebA/data/",
    "data/celebA/",
    "data/celebA_v1.0/",
)
_PICTURES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba", "")


@register_task("celeba", "your copy of CelebA: blond or not; being a man is the shortcut")
def celeba(
    *,
    root: "str | os.PathLike[str] | None" = None,
    layout: str | None = None,
    features: Any = None,
    encoder: Any = None,
    pooling: str = "auto",
    batch_size: int = 32,
    device: Any = None,
    workers: int = 0,
    counts: Counts = "published",
) -> Task:
    """Tell whether a person is blond, which hardly any man in the training split is.

    Args:
        root: the folder of the copy, or one above it; default that named by $UNROTE_DATA.
        layout: "lists", "jtt", "dfr" or "suite", where a folder has several.
        features: file of features (.npy or .parquet), a row per row of the metadata.
        encoder: folder or module that makes features of the pictures; see `picture_encoder`.
        pooling: of the encoder.
        batch_size: pictures that are encoded at once.
        device: where to encode.
        workers: processes that read pictures.
        counts: "published" refuses a copy with other numbers of examples.

    Returns:
        A task with x (n, 3, 224, 224) normalised as for ImageNet, or (n, d) features.

    Raises:
        DataError: if the copy cannot be read, or is not as published.
        OptionError: if an option is out of range.
    """
    folder = root_folder(root)
    copy = choose("celeba", find(folder), folder, layout, WANTED)
    return copy.task(
        counts,
        features=features,
        encoder=encoder,
        pooling=pooling,
        batch_size=batch_size,
        device=device,
        workers=workers,
    )


def find(root: Path) -> list[Copy]:
    """The copies of CelebA in a folder, one per layout.

    Raises:
        DataError: if one cannot be read.
    """
    found = []
    for place in _PLACES:
        attributes, partition = (
            first_file(root / place, f"{name}.csv", f"{name}.txt")
            for name in ("list_attr_celeba", "list_eval_partition")
        )
        if attributes is not None and partition is not None:
            found.append(_lists(attributes, partition))
            break
    for path in (root / f"{place}metadata.csv" for place in _PLACES):
        if path.is_file() and (copy := _single(path)) is not None:
            found.append(copy)
            break
    suite = first_file(root, *(f"{place}metadata_celeba.csv" for place in _PLACES))
    if suite is not None:
        columns = read_columns(suite, ("filename", "split", "y", "a"))
        values = (whole(columns, name, suite, codes) for name, codes in _SUITE.items())
        found.append(_copy("suite", suite, columns["filename"], *values))
    return found


_SUITE = {"split": SPLITS, "y": BINARY, "a": BINARY}


def _lists(attributes: Path, partition: Path) -> Copy:
    """Two lists, joined by the pictures' names: their orders need not be the same.

    Raises:
        DataError: if they do not name the same pictures.
    """
    names, y, a = _attributes(attributes)
    splits = _partition(partition)
    unknown = [name for name in names if name not in splits]
    if unknown or len(splits) != len(names):
        raise DataError(
            f"{partition} lists {len(splits):,} pictures, {attributes} {len(names):,}"
            + (f", among them {unknown[0]!r}, which has no split" if unknown else "")
            + ": both files of one copy are wanted"
        )
    return _copy("lists", attributes, names, np.array([splits[name] for name in names]), y, a)


def _attributes(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    if path.suffix == ".csv":
        first = header(path)[0][0]
        columns = read_columns(path, (first, TARGET, ATTRIBUTE))
        return columns[first], whole(columns, TARGET, path, _SIGNS), whole(columns, ATTRIBUTE, path, _SIGNS)
    lines = _lines(path)
    # the original file starts with the number of pictures, and its header has no name for the file names
    start = 1 if lines and len(lines[0].split()) == 1 else 0
    titles = lines[start].split() if len(lines) > start else []
    rows = [line.split() for line in lines[start + 1 :]]
    if TARGET not in titles or ATTRIBUTE not in titles or not rows:
        raise DataError(f"{path} does not list {TARGET} and {ATTRIBUTE} for any picture: copy it again")
    extra = len(rows[0]) - len(titles)
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(rows[0]) or extra not in (0, 1)), None)
    if wrong is not None:
        raise DataError(
            f"row {wrong} of {path} has {len(rows[wrong])} fields for {len(titles)} titles: copy it again"
        )
    columns = {title: [row[titles.index(title) + extra] for row in rows] for title in (TARGET, ATTRIBUTE)}
    y, a = (whole(columns, title, path, _SIGNS) for title in (TARGET, ATTRIBUTE))
    return [row[0] for row in rows], y, a


def _partition(path: Path) -> dict[str, int]:
    if path.suffix == ".csv":
        names = header(path)[0]
        if len(names) != 2:
            raise DataError(
                f"{path} has columns {', '.join(names[:9])}: a picture's name and its split are wanted"
            )
        columns = read_columns(path, names)
        return dict(zip(columns[names[0]], whole(columns, names[1], path, SPLITS).tolist(), strict=True))
    rows = [line.split() for line in _lines(path)]
    wrong = next((i for i, row in enumerate(rows) if len(row) != 2), None)
    if wrong is not None or not rows:
        raise DataError(f"row {wrong or 0} of {path} is not a picture's name and its split: copy it again")
    columns = {"split": [row[1] for row in rows]}
    return dict(zip((row[0] for row in rows), whole(columns, "split", path, SPLITS).tolist(), strict=True))


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): copy it again") from error


def _single(path: Path) -> Copy | None:
    """A metadata.csv of this set, JTT's or DFR's; None for that of another set."""
    names = header(path)[0]
    if {"image_id", TARGET, ATTRIBUTE, "split"} <= set(names):
        columns = read_columns(path, ("image_id", TARGET, ATTRIBUTE, "split"))
        y, a = whole(columns, TARGET, path, _SIGNS), whole(columns, ATTRIBUTE, path, _SIGNS)
        return _copy("jtt", path, columns["image_id"], whole(columns, "split", path, SPLITS), y, a)
    if {"img_filename", "y", "place", "split"} <= set(names) and "place_filename" not in names:
        columns = read_columns(path, ("img_filename", "y", "place", "split"))
        if re.fullmatch(r"\d{6}\.\w+", columns["img_filename"][0].rsplit("/", 1)[-1]) is None:
            return None
        values = (
            whole(columns, c, path, v) for c, v in {"split": SPLITS, "y": BINARY, "place": BINARY}.items()
        )
        return _copy("dfr", path, columns["img_filename"], *values)
    return None


def _copy(
    layout: str, path: Path, names: list[str], split: np.ndarray, y: np.ndarray, attribute: np.ndarray
) -> Copy:
    places = [
        folder / pictures
        for folder in (path.parent, path.parent / "celeba", path.parent.parent)
        for pictures in _PICTURES
    ]
    root = next((place for place in places if (place / names[0]).is_file()), path.parent / "img_align_celeba")
    return Copy(
        name="celeba",
        layout=layout,
        metadata=path,
        examples=Pictures(root, names, FORM),
        split=split,
        y=y,
        attribute=attribute,
        class_names=("not blond", "blond"),
        attribute_names=("woman", "man"),
        shortcut="hardly any man in training is blond; nothing is planted",
        published=PUBLISHED,
    )
