"""Waterbirds: 11,788 birds, waterbird or landbird, on pictures of water or land; the background is the shortcut.

Layouts: the authors' folder waterbird_complete95_forest2water2 with metadata.csv (img_id, img_filename, y, split,
place, place_filename), WILDS's waterbirds_v1.0 with the same, the benchmark suites' metadata_waterbirds.csv (id,
filename, split, y, a) beside or above that folder, and features.pt of the public code of XRM and MAT.

Reference: Sagawa et al., "Distributionally robust neural networks for group shifts", ICLR (2020).
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrote.data.folders.columns import BINARY, SPLITS, header, read_columns, whole
from unrote.data.folders.copies import Copy, Counts, Published, choose, first_file, root_folder
from unrote.data.folders.examples import Examples, Features, Pictures
from unrote.data.pictures import PictureForm
from unrote.data.registry import register_task
from unrote.data.task import Task
from unrote.errors import DataError

FOLDER = "waterbird_complete95_forest2water2"
PUBLISHED = Published(
    {"train": 4795, "validation": 1199, "test": 5794},
    {"train": (3498, 184, 56, 1057), "validation": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)},
)
FORM = PictureForm(scale=256, crop=224)
WANTED = f"metadata.csv in {FOLDER} or waterbirds_v1.0, metadata_waterbirds.csv, or features.pt is wanted"

_PLACES = (
    "",
    f"{FOLDER}/",
    f"data/{FOLDER}/",
    f"waterbirds/{FOLDER}/",
    f"waterbirds/data/{FOLDER}/",
    f"cub/data/{FOLDER}/",
)
_WILDS = ("waterbirds_v1.0/", "data/waterbirds_v1.0/")
_SUITE = ("metadata_waterbirds.csv", "waterbirds/metadata_waterbirds.csv")


@register_task("waterbirds", "your copy of Waterbirds: waterbird or landbird; the background is the shortcut")
def waterbirds(
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
    """Tell waterbirds from landbirds, most of which are shown on water or on land.

    Validation and test have every background equally often in each class, training does not: choosing by
    validation accuracy knows more than a user's own validation set would.

    Args:
        root: the folder of the copy, or one above it; default that named by $UNROTE_DATA.
        layout: "authors", "wilds", "suite" or "features", where a folder has several.
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
    copy = choose("waterbirds", find(folder), folder, layout, WANTED)
    how: dict[str, Any] = {"features": features}
    if not isinstance(copy.examples, Features):
        how |= {
            "encoder": encoder,
            "pooling": pooling,
            "batch_size": batch_size,
            "device": device,
            "workers": workers,
        }
    return copy.task(counts, **how)


def find(root: Path) -> list[Copy]:
    """The copies of Waterbirds in a folder, one per layout.

    Raises:
        DataError: if one cannot be read.
    """
    found = []
    for path in (root / f"{place}metadata.csv" for place in (*_PLACES, *_WILDS)):
        if path.is_file() and _is_authors(path):
            wilds = path.parent.name.startswith("waterbirds_v")
            columns = read_columns(path, ("img_filename", "y", "split", "place"))
            names = columns["img_filename"]
            pictures = Pictures(path.parent, names, FORM)
            found.append(_copy("wilds" if wilds else "authors", path, columns, "place", pictures))
            break
    if (suite := first_file(root, *_SUITE)) is not None:
        path, columns = suite, read_columns(suite, ("filename", "y", "split", "a"))
        above = (path.parent, path.parent / "waterbirds")
        folders = [folder / name for folder in above for name in (FOLDER, f"data/{FOLDER}")]
        folder = next((f for f in folders if (f / columns["filename"][0]).is_file()), folders[0])
        found.append(_copy("suite", path, columns, "a", Pictures(folder, columns["filename"], FORM)))
    features = first_file(root, "features.pt", "waterbirds/features.pt")
    if features is not None:
        found.append(read_features(features))
    return found


def _is_authors(path: Path) -> bool:
    """Whether a metadata.csv is this set's: one of CelebA's has the same columns, but no folders of species."""
    names, _ = header(path)
    if not {"img_filename", "y", "split", "place"} <= set(names):
        return False
    if "place_filename" in names:
        return True
    first = read_columns(path, ("img_filename",))["img_filename"][0]
    return re.match(r"\d{3}\.[^/]+/", first) is not None


def _copy(layout: str, path: Path, columns: dict[str, list[str]], place: str, examples: Examples) -> Copy:
    return _made(
        layout,
        path,
        examples,
        whole(columns, "split", path, SPLITS),
        whole(columns, "y", path, BINARY),
        whole(columns, place, path, BINARY),
    )


def _made(
    layout: str, path: Path, examples: Examples, split: np.ndarray, y: np.ndarray, attribute: np.ndarray
) -> Copy:
    return Copy(
        name="waterbirds",
        layout=layout,
        metadata=path,
        examples=examples,
        split=split,
        y=y,
        attribute=attribute,
        class_names=("landbird", "waterbird"),
        attribute_names=("land", "water"),
        shortcut="the background, that of the class for 95% of training",
        published=PUBLISHED,
    )


def read_features(path: Path) -> Copy:
    """The features of the public code of XRM and MAT: {"tr", "va", "te"} of x (n, d), y (n, 1) and m (n, 1).

    Raises:
        DataError: if the file is something else; nothing in it is unpickled but tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        parts = [content[name] for name in ("tr", "va", "te")]
        x = [torch.as_tensor(part["x"]).flatten(1).float() for part in parts]
        y, m = ([torch.as_tensor(part[name]).flatten().long() for part in parts] for name in ("y", "m"))
        if not all(len(a) == len(b) == len(c) for a, b, c in zip(x, y, m, strict=True)):
            raise DataError("x, y and m differ in length")
        values = torch.cat(x)
        labels, attribute = torch.cat(y).numpy(), torch.cat(m).numpy()
        if min(labels.min(), attribute.min()) < 0 or max(labels.max(), attribute.max()) > 1:
            raise DataError("y and m are 0 or 1")
    except Exception as error:  # whatever a damaged file makes the loader raise
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is no file of features: tr, va and te, each with x (n, d), y (n, 1) and m (n, 1) of 0 or 1, "
            f"are wanted ({reason})"
        ) from error
    split = np.repeat(np.arange(3), [len(part) for part in x])
    return _made("features", path, Features(values), split, labels, attribute)
