"""Tables for tests, written as users' files are."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CITIES = ("Lisbon", "Oslo", "Quito", "Łódź")
WORDS = ("late", "early", "broken", "fine", "red", "blue", "slow", "quick", "box", "parcel", "paid", "open")


def people(n: int = 300, seed: int = 0) -> dict[str, list[Any]]:
    """Columns of every kind; the label is mostly in `age`, the colour of the group follows it."""
    random = np.random.default_rng(seed)
    age = random.normal(40, 10, n).round(1)
    label = np.where(age + random.normal(0, 3, n) > 40, "yes", "no")
    colour = np.where((label == "yes") ^ (random.random(n) < 0.2), "red", "blue")
    days = np.datetime64("2020-01-01") + random.integers(0, 1000, n).astype("timedelta64[D]")
    jobs = random.choice(["clerk", "cook", "pilot"], n, p=[0.6, 0.38, 0.02])
    return {
        "age": [
            "" if gone else value for value, gone in zip(age.tolist(), random.random(n) < 0.1, strict=True)
        ],
        "visits": random.integers(0, 50, n).tolist(),
        "city": random.choice(CITIES, n).tolist(),
        "job": ["" if gone else job for job, gone in zip(jobs.tolist(), random.random(n) < 0.1, strict=True)],
        "note": [" ".join(random.choice(WORDS, 5)) + f" {k}" for k in range(n)],
        "joined": days.astype(str).tolist(),
        "colour": colour.tolist(),
        "label": label.tolist(),
    }


def write_csv(
    path: Path, columns: Mapping[str, Sequence[Any]], *, encoding: str = "utf-8", delimiter: str = ","
) -> Path:
    """Write columns as CSV."""
    return write_rows(path, [list(columns), *zip(*columns.values(), strict=True)], encoding, delimiter)


def write_rows(
    path: Path, rows: Iterable[Sequence[Any]], encoding: str = "utf-8", delimiter: str = ","
) -> Path:
    """Write rows as CSV, however long each is."""
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def write_pictures(folder: Path, per_class: int = 12, size: int = 20, seed: int = 0) -> Path:
    """Pictures of two classes, one bright at the top and one at the bottom, a subfolder each."""
    from PIL import Image

    random = np.random.default_rng(seed)
    for name, half in (("sky", slice(0, size // 2)), ("sea", slice(size // 2, size))):
        (folder / name).mkdir(parents=True)
        for k in range(per_class):
            values = random.integers(0, 100, (size, size, 3), dtype=np.uint8)
            values[half] += 100
            Image.fromarray(values).save(folder / name / f"{k}.png")
    return folder
