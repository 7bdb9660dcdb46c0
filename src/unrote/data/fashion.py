"""Real photographs of garments with a planted background or patch: the project's main image task.

70,000 grey photographs of 28 by 28 pixels. Some classes (pullover and coat) are hard to tell apart, so a
tinted background is the easier thing to learn, as a water background is for birds.

Reference: Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv 1708.07747 (2017).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from unrote.data.idx import read_idx
from unrote.data.options import check_count
from unrote.data.planted import COLOURS, colours, patch, plant_attribute, stripes, tint
from unrote.data.registry import register_task
from unrote.data.task import Split, Task
from unrote.errors import DataError, OptionError, UnknownNameError
from unrote.seeding import derive_seed, generator

Plant = Literal["tint", "patch", "stripes"]

_CUES: dict[Plant, str] = {
    "tint": "colour of the background",
    "patch": "colour of the patch",
    "stripes": "direction of the background's stripes",
}

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""The ten classes in the order of the labels in the files."""

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
ENVIRONMENT = "UNROTE_FASHION"
_FILES = {"train": "train", "test": "t10k"}


@register_task(
    "fashion",
    "28x28 photographs of garments, pullover against coat; tinted or striped background, or a patch",
)
def fashion(
    *,
    path: "str | os.PathLike[str] | None" = None,
    classes: Sequence[str] = ("pullover", "coat"),
    plant: Plant = "tint",
    alignment: float = 0.95,
    strength: float = 1.0,
    n_train: int = 6000,
    n_validation: int = 1000,
    seed: int = 0,
) -> Task:
    """Tell garments apart, where the background (or a coloured patch) mostly gives the answer away.

    Classes are equally frequent in training and validation (within one). Both are drawn from the training
    files and agree with the shortcut equally often. The test split holds all images of the classes in the
    test files, with every attribute equally often in each class (within one).

    Args:
        path: folder with the four IDX files, gzipped or not; by default the folder named by the environment
            variable UNROTE_FASHION, else that of the Debian package dataset-fashion-mnist.
        classes: two to ten of `CLASSES`, in the order of their labels; a string is split at commas.
        plant: "tint" colours the background, "patch" paints a 4-pixel square whose place and colour differ, "stripes"
            covers the background with stripes whose direction differs, and which begin anywhere.
        alignment: share of each class, in training and validation, whose attribute is that of the class, in
            [0, 1]; 1 / len(classes) plants no shortcut.
        strength: brightness of the tint or stripes, or opacity of the patch, in [0, 1].
        n_train: training examples.
        n_validation: validation examples.
        seed: of the draw and of the planting.

    Returns:
        A task with x (n, 3, 28, 28) float32 in [0, 1].

    Raises:
        UnknownNameError: if there is no such class.
        OptionError: if an option is out of range or the files have too few images.
        DataError: if the files are missing, damaged or do not fit together.
    """
    chosen = _choose_classes(classes)
    if plant not in get_args(Plant):
        raise OptionError(f"plant={plant!r}: 'tint', 'patch' or 'stripes' is wanted")
    check_count("n_train", n_train, len(chosen))
    check_count("n_validation", n_validation, len(chosen))
    folder = find_folder(path)
    seen = read_photographs(folder, "train").of_classes(chosen)
    unseen = read_photographs(folder, "test").of_classes(chosen)
    palette = colours(len(chosen))

    def planted(name: str, source: Photographs, rows: Int[Tensor, " m"], aligned: float) -> Split:
        y = source.y[rows]
        attribute = plant_attribute(y, len(chosen), aligned, derive_seed(seed, "fashion", name))
        images = source.images[rows].float() / 255
        if plant == "stripes":
            phase = torch.rand(len(y), generator=generator(seed, "fashion", "stripes", name))
            grey = stripes(images, attribute, len(chosen), strength, phase)
            return Split(grey.expand(-1, 3, -1, -1).contiguous(), y, attribute)
        draw = tint if plant == "tint" else patch
        return Split(draw(images, attribute, palette, strength), y, attribute)

    train, validation = _sample(seen, chosen, n_train, n_validation, seed)
    return Task(
        name="fashion",
        train=planted("train", seen, train, alignment),
        validation=planted("validation", seen, validation, alignment),
        test=planted("test", unseen, torch.arange(len(unseen.y)), 1 / len(chosen)),
        class_names=tuple(CLASSES[c] for c in chosen),
        attribute_names=_attribute_names(plant, len(chosen)),
        shortcut=f"the {_CUES[plant]} is that of the class in {alignment:.0%} of training",
    )


def _attribute_names(plant: Plant, n: int) -> tuple[str, ...]:
    if plant == "stripes":
        return tuple(f"stripes at {180 * k / n:.0f} degrees" for k in range(n))
    what = "background" if plant == "tint" else "patch"
    return tuple(f"{colour} {what}" for colour in list(COLOURS)[:n])


@dataclass(frozen=True)
class Photographs:
    """Grey images with the index of their class, as they stand in the files."""

    images: UInt8[Tensor, "n H W"]
    y: Int[Tensor, " n"]

    def of_classes(self, chosen: Sequence[int]) -> "Photographs":
        """The images of these classes, relabelled 0, 1, ... in the order given."""
        new_label = torch.full((len(CLASSES),), -1)
        new_label[list(chosen)] = torch.arange(len(chosen))
        y = new_label[self.y]
        return Photographs(self.images[y >= 0], y[y >= 0])


def find_folder(path: "str | os.PathLike[str] | None" = None) -> Path:
    """The folder with the four IDX files: `path`, else $UNROTE_FASHION, else Debian's.

    Raises:
        DataError: if the folder lacks one of them.
    """
    given = path or os.environ.get(ENVIRONMENT)
    folder = Path(given).expanduser() if given else DEBIAN_FOLDER
    missing = [name for name in _file_names() if not _present(folder, name)]
    if missing:
        raise DataError(
            f"the fashion task needs four IDX files, gzipped or not; {folder} lacks {', '.join(missing)}. "
            f"Either run `apt-get install dataset-fashion-mnist` (Debian, Ubuntu), or give a folder that has "
            f"{', '.join(_file_names())} by path=... or the environment variable {ENVIRONMENT}"
        )
    return folder


def read_photographs(folder: Path, name: Literal["train", "test"]) -> Photographs:
    """All images and labels of the "train" or the "test" files.

    Raises:
        DataError: if a file is damaged, or images and labels do not belong together.
    """
    images_name, labels_name = _file_names(_FILES[name])
    images_file, labels_file = _present(folder, images_name), _present(folder, labels_name)
    if images_file is None or labels_file is None:
        raise DataError(f"{folder} lacks {images_name} or {labels_name}: give a folder that has both")
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_file} has {len(images)} images, {labels_file} {len(labels)} labels: "
            "one label per image is wanted; the files do not belong together"
        )
    if len(labels) and int(labels.max()) >= len(CLASSES):
        raise DataError(
            f"{labels_file} has label {int(labels.max())}: labels from 0 to {len(CLASSES) - 1} are wanted"
        )
    # frombuffer's arrays are read-only; a copy is what torch may own
    return Photographs(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))


def _file_names(*prefixes: str) -> list[str]:
    endings = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return [f"{prefix}-{ending}" for prefix in prefixes or _FILES.values() for ending in endings]


def _present(folder: Path, name: str) -> Path | None:
    candidates = (folder / f"{name}.gz", folder / name)
    return next((file for file in candidates if file.is_file()), None)


def _choose_classes(classes: Sequence[str]) -> list[int]:
    names = classes.split(",") if isinstance(classes, str) else list(classes)
    names = [str(name).strip().lower() for name in names]
    for name in names:
        if name not in CLASSES:
            raise UnknownNameError("fashion class", name, CLASSES)
    if not 2 <= len(names) == len(set(names)):
        raise OptionError(f"classes={', '.join(names) or 'none'}: two to ten different ones are wanted")
    return [CLASSES.index(name) for name in names]


def _sample(
    source: Photographs, chosen: Sequence[int], n_train: int, n_validation: int, seed: int
) -> tuple[Int[Tensor, " t"], Int[Tensor, " v"]]:
    """Rows for training and validation, disjoint, each with its classes equally frequent within one.

    Raises:
        OptionError: if a class has too few images.
    """
    train, validation = [], []
    for c, original in enumerate(chosen):
        rows = (source.y == c).nonzero().squeeze(1)
        wanted = [n // len(chosen) + (c < n % len(chosen)) for n in (n_train, n_validation)]
        if sum(wanted) > len(rows):
            raise OptionError(
                f"n_train={n_train} and n_validation={n_validation} need {sum(wanted)} images of class "
                f"{CLASSES[original]!r}, the files have {len(rows)}: choose fewer, or more classes"
            )
        # drawn per class by its own name, so that a class keeps its images when other classes join the task
        rows = rows[torch.randperm(len(rows), generator=generator(seed, "fashion", CLASSES[original]))]
        train.append(rows[: wanted[0]])
        validation.append(rows[wanted[0] : sum(wanted)])
    random = generator(seed, "fashion", "order")
    shuffled = [
        torch.cat(rows)[torch.randperm(sum(map(len, rows)), generator=random)] for rows in (train, validation)
    ]
    return shuffled[0], shuffled[1]
