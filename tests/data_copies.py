"""Small copies of the field's data sets, in each layout that is about, for tests to write and read."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
ATTRIBUTES = [f"Attribute_{i}" for i in range(40)]
ATTRIBUTES[9], ATTRIBUTES[20] = "Blond_Hair", "Male"

# (split, y, a) of each example, in an order in which nothing is sorted
CELLS = [(s, y, a) for s in (2, 0, 1) for a in (1, 0) for y in (0, 1) for _ in range(1 + s + 2 * y + a)]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (60, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def colour_of(row: int) -> tuple[int, int, int]:
    """A colour that tells which row a picture belongs to."""
    return (10 * (row % 20), 50, 5 * row)


def waterbirds_authors(folder: Path, delimiter: str = ",") -> list[str]:
    """metadata.csv and pictures in the authors' layout; gives the pictures' names."""
    names = [f"{i % 3 + 1:03d}.Some_Bird/Bird_{i:04d}.jpg" for i in range(len(CELLS))]
    rows = [
        (i + 1, name, y, s, a, f"/lake/{i}.jpg")
        for i, (name, (s, y, a)) in enumerate(zip(names, CELLS, strict=True))
    ]
    header = ("img_id", "img_filename", "y", "split", "place", "place_filename")
    write_csv(folder / "metadata.csv", header, rows, delimiter)
    for i, name in enumerate(names):
        write_picture(folder / name, colour_of(i))
    return names


def suite_metadata(path: Path, names: Sequence[Any], cells: Sequence[tuple[int, int, int]] = CELLS) -> None:
    rows = [(i + 1, name, s, y, a) for i, (name, (s, y, a)) in enumerate(zip(names, cells, strict=True))]
    write_csv(path, ("id", "filename", "split", "y", "a"), rows)


def face_names() -> list[str]:
    return [f"{i + 1:06d}.jpg" for i in range(len(CELLS))]


def face_attributes(i: int, minus: str = "-1") -> list[str]:
    """The 40 attributes of a face; all but the two that count are noise."""
    values = [("1", minus)[(7 * i + j) % 3 == 0] for j in range(40)]
    _, y, a = CELLS[i]
    values[9], values[20] = (("1" if v else minus) for v in (y, a))
    return values


def write_faces(folder: Path) -> None:
    for i, name in enumerate(face_names()):
        write_picture(folder / name, colour_of(i), (178, 218))


def celeba_csv(folder: Path, delimiter: str = ",") -> None:
    """Kaggle's and WILDS's layout; the partition lists the faces in another order."""
    rows = [[name, *face_attributes(i)] for i, name in enumerate(face_names())]
    write_csv(folder / "list_attr_celeba.csv", ["image_id", *ATTRIBUTES], rows, delimiter)
    splits = [(name, s) for name, (s, _, _) in zip(face_names(), CELLS, strict=True)][::-1]
    write_csv(folder / "list_eval_partition.csv", ("image_id", "partition"), splits, delimiter)


def celeba_txt(folder: Path) -> None:
    """The original layout: a count, a header without a name for the first column, columns of blanks."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [str(len(CELLS)), " ".join(ATTRIBUTES) + " "]
    lines += [
        f"{name} " + " ".join(f"{v:>2}" for v in face_attributes(i)) for i, name in enumerate(face_names())
    ]
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    splits = [f"{name} {s}" for name, (s, _, _) in zip(face_names(), CELLS, strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join(splits) + "\n")


# (split, y, a) of pairs of sentences, three classes
PAIRS = [(s, y, a) for s in (1, 0, 2) for y in (2, 0, 1) for a in (0, 1) for _ in range(1 + s + y)]


def sentences(i: int) -> tuple[str, str]:
    return f"premise number {i}", f"hypothesis number {i}" + (" is never true" if PAIRS[i][2] else "")


def multinli_metadata(path: Path) -> None:
    rows = [(i, y, a, s) for i, (s, y, a) in enumerate(PAIRS)]
    write_csv(path, ("", "gold_label", "sentence2_has_negation", "split"), rows)


def multinli_jsonl(folder: Path) -> None:
    """The three files of sentences; some pairs have no label that annotators agreed on, and are in no metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ("contradiction", "entailment", "neutral")
    lines = []
    for i, (_, y, _) in enumerate(PAIRS):
        first, second = sentences(i)
        lines.append(json.dumps({"gold_label": words[y], "sentence1": first, "sentence2": second}))
        if i % 5 == 0:
            lines.append(json.dumps({"gold_label": "-", "sentence1": "nobody", "sentence2": "agreed"}))
    thirds = (lines[:20], lines[20:30], lines[30:])
    for name, part in zip(("train", "dev_matched", "dev_mismatched"), thirds, strict=True):
        (folder / f"multinli_1.0_{name}.jsonl").write_text("\n".join(part) + "\n")


def comments(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits (0, 1, 2), toxicity and identities (n, 8) of comments; many mention none, some several."""
    random = np.random.default_rng(seed)
    identity = np.where(random.random((n, 8)) < 0.2, random.choice([0.5, 0.6, 1.0], (n, 8)), 0.0)
    identity[random.random((n, 8)) < 0.1] = 0.49
    return random.integers(0, 3, n), random.choice([0.0, 0.2, 0.5, 0.8], n), identity


def comment(i: int) -> str:
    return f'comment {i}, "quoted"\nand on a second line'


def civilcomments_wilds(path: Path, n: int = 90) -> None:
    split, toxicity, identity = comments(n)
    rows = [
        [i, comment(i), ("train", "val", "test")[split[i]], toxicity[i], *identity[i], 0.1] for i in range(n)
    ]
    # among other columns, and in another order than they are used in
    header = ["", "comment_text", "split", "toxicity", *IDENTITIES, "identity_any"]
    write_csv(path, header, rows)
