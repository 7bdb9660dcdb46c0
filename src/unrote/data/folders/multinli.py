"""MultiNLI: 412,349 pairs of sentences, of which one contradicts, follows from or does neither to the other.

A negation in the second sentence is the shortcut. Layouts: metadata_random.csv of the authors (gold_label,
sentence2_has_negation, split), JTT's metadata.csv with the same columns, metadata_preset.csv (the official split),
and the benchmark suites' metadata_multinli.csv (id, filename, split, y, a). The sentences stand in
multinli_1.0_*.jsonl; their tokens in the cached_*_bert-base-uncased_128_mnli files, which are read without running
what a pickle may hold.

References: Williams et al., "A broad-coverage challenge corpus for sentence understanding through inference", NAACL
(2018); Sagawa et al., ICLR (2020).
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrote.data.folders.columns import BINARY, SPLITS, header, read_columns, whole
from unrote.data.folders.copies import Copy, Counts, Published, choose, first_file, root_folder
from unrote.data.folders.examples import Absent, Examples, Texts, Tokens
from unrote.data.registry import register_task
from unrote.data.task import Task
from unrote.errors import DataError

LABELS = {"contradiction": 0, "entailment": 1, "neutral": 2}
PUBLISHED = Published(
    {"train": 206_175, "validation": 82_462, "test": 123_712},
    {
        "train": (57_498, 11_158, 67_376, 1_521, 66_630, 1_992),
        "validation": (22_814, 4_634, 26_949, 613, 26_655, 797),
        "test": (34_597, 6_655, 40_496, 886, 39_930, 1_148),
    },
)
PRESET = Published({"train": 392_702, "validation": 9_815, "test": 9_832})
WANTED = "metadata_random.csv, metadata.csv or metadata_multinli.csv is wanted"
MAX_LENGTH = 128

_PLACES = ("", "data/", "multinli/", "multinli/data/", "data/multinli/")
_SENTENCES = ("train", "dev_matched", "dev_mismatched")
_CACHED = (
    "train_bert-base-uncased_128_mnli",
    "dev_bert-base-uncased_128_mnli",
    "dev_bert-base-uncased_128_mnli-mm",
)
_THREE = {"0": 0, "1": 1, "2": 2}


@register_task(
    "multinli", "your copy of MultiNLI: does one sentence follow from another; negation is the shortcut"
)
def multinli(
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
    """Tell whether the second sentence contradicts the first, follows from it, or neither.

    Args:
        root: the folder of the copy, or one above it; default that named by $UNROTE_DATA.
        layout: "random", "jtt", "preset" or "suite", where a folder has several.
        features: file of features (.npy or .parquet), a row per row of the metadata.
        encoder: "minilm", a folder or a module that makes features of the sentences; see `text_encoder`.
        tokenizer: folder or object that makes tokens of the sentences; default the tokens cached by the authors.
        max_length: tokens that are kept of each pair; default 128.
        pooling: of the encoder.
        batch_size: pairs that are encoded at once.
        device: where to encode.
        workers: processes that make tokens.
        counts: "published" refuses a copy with other numbers of examples.

    Returns:
        A task whose x are mappings of tokens as Hugging Face models take them, or (n, d) features.

    Raises:
        DataError: if the copy cannot be read, or is not as published.
        OptionError: if an option is out of range, or nothing makes numbers of the sentences.
    """
    folder = root_folder(root)
    copy = choose("multinli", find(folder, layout), folder, layout, WANTED)
    how: dict[str, Any] = {"features": features}
    if encoder is not None or tokenizer is not None or not isinstance(copy.examples, Tokens):
        how |= {"encoder": encoder, "tokenizer": tokenizer, "max_length": max_length}
    if isinstance(copy.examples, Texts):
        how |= {"pooling": pooling, "batch_size": batch_size, "device": device, "workers": workers}
    elif isinstance(copy.examples, Tokens):
        how |= {"workers": workers}
    return copy.task(counts, **how)


def find(root: Path, layout: str | None = None) -> list[Copy]:
    """The copies of MultiNLI in a folder, one per layout; only one layout's if it is named.

    Raises:
        DataError: if one cannot be read.
    """
    found = []
    for name, kind in (
        ("random", "metadata_random.csv"),
        ("jtt", "metadata.csv"),
        ("suite", "metadata_multinli.csv"),
        ("preset", "metadata_preset.csv"),
    ):
        path = first_file(root, *(f"{place}{kind}" for place in _PLACES))
        if path is None or layout not in (None, name):
            continue
        names = set(header(path)[0])
        label, negation = ("y", "a") if name == "suite" else ("gold_label", "sentence2_has_negation")
        if {label, negation, "split"} <= names:
            found.append(_copy(name, path, read_columns(path, (label, negation, "split")), label, negation))
    return found


def _copy(layout: str, path: Path, columns: dict[str, list[str]], label: str, negation: str) -> Copy:
    y = whole(columns, label, path, _THREE)
    return Copy(
        name="multinli",
        layout=layout,
        metadata=path,
        examples=_examples(path, y),
        split=whole(columns, "split", path, SPLITS),
        y=y,
        attribute=whole(columns, negation, path, BINARY),
        class_names=tuple(LABELS),
        attribute_names=("no negation", "negation"),
        shortcut="whether the second sentence has nobody, no, never or nothing; most such contradict",
        published=PRESET if layout == "preset" else PUBLISHED,
    )


def _examples(path: Path, y: np.ndarray) -> Examples:
    """The sentences if they are there, else their tokens, else nothing but their number."""
    above = (path.parent, path.parent.parent, path.parent / "multinli")
    for folder in (place / name for place in above for name in ("", "data", "multinli_1.0", "raw")):
        files = [folder / f"multinli_1.0_{name}.jsonl" for name in _SENTENCES]
        if all(file.is_file() for file in files):
            return Texts(_read_sentences(files, y), MAX_LENGTH)
    for folder in (place / "glue_data" / "MNLI" for place in above):
        files = [folder / f"cached_{name}" for name in _CACHED]
        if all(file.is_file() for file in files):
            return Tokens(_read_cached(files, y))
    return Absent(len(y), "multinli_1.0_*.jsonl or glue_data/MNLI/cached_*")


def _read_sentences(files: list[Path], y: np.ndarray) -> list[tuple[str, str]]:
    """The pairs that annotators agreed on, in the order of the files, which is that of the metadata.

    Raises:
        DataError: if they are not the metadata's.
    """
    pairs: list[tuple[str, str]] = []
    labels: list[int] = []
    for path in files:
        try:
            with path.open(encoding="utf-8") as file:
                for line in filter(str.strip, file):
                    row = json.loads(line)
                    if row["gold_label"] == "-":
                        continue
                    labels.append(LABELS[row["gold_label"]])
                    pairs.append((str(row["sentence1"]), str(row["sentence2"])))
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path} cannot be read: pair {len(pairs):,} is damaged ({error!r}); copy it again"
            ) from error
    _check_labels(np.array(labels), y, f"the sentences in {files[0].parent}")
    return pairs


class InputFeatures:
    """What the authors' cached files are lists of: one tokenized pair. It does nothing but hold values."""

    input_ids: list[int]
    input_mask: list[int]
    segment_ids: list[int]
    label_id: int


# the name under which a file knows it
InputFeatures.__module__ = "utils_glue"


def _read_cached(files: list[Path], y: np.ndarray) -> dict[str, np.ndarray]:
    """The tokens in the authors' files, by the names that language models use.

    Raises:
        DataError: if they cannot be read, have other objects in them, or are not the metadata's.
    """
    columns: dict[str, list[np.ndarray]] = {"input_ids": [], "attention_mask": [], "token_type_ids": []}
    labels: list[int] = []
    for path in files:
        try:
            with torch.serialization.safe_globals([InputFeatures]):
                rows = torch.load(path, map_location="cpu", weights_only=True)
            for name, own in zip(columns, ("input_ids", "input_mask", "segment_ids"), strict=True):
                columns[name].append(np.array([getattr(row, own) for row in rows], np.int32))
            labels += [int(row.label_id) for row in rows]
        except Exception as error:  # whatever a damaged file makes the loader raise
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{path} is no list of tokenized pairs ({reason}); add multinli_1.0_*.jsonl and pass tokenizer="
            ) from error
    try:
        arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
        if any(values.ndim != 2 or len(values) != len(labels) for values in arrays.values()):
            raise DataError("rows are not all tokens")
    except ValueError as error:
        raise DataError(
            f"the tokens in {files[0].parent} are of different lengths: copy them again"
        ) from error
    _check_labels(np.array(labels), y, f"the tokens in {files[0].parent}")
    return arrays


def _check_labels(found: np.ndarray, y: np.ndarray, what: str) -> None:
    if len(found) != len(y):
        raise DataError(
            f"{what} are {len(found):,} pairs, the metadata {len(y):,}: files of one copy are wanted"
        )
    if (found != y).any():
        raise DataError(
            f"{what} differ from the metadata in the label of row {int((found != y).argmax()):,}: "
            "files of one copy are wanted"
        )
