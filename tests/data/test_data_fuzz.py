"""Files damaged in any way: whatever a loader makes of them, it ends in a result or in an `UnroteError`.

UNROTE_FUZZ sets the number of cases for each kind of file; the default is small enough for every run.
"""

import contextlib
import gzip
import os
import shutil
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_copies as copies
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from unrote.data import load_task, open_features
from unrote.data.folders import recognise
from unrote.data.idx import read_idx
from unrote.errors import UnroteError

CASES = int(os.environ.get("UNROTE_FUZZ", "40"))

# what files of these kinds are made of, so that damage often has a meaning
PIECES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            b",",
            b"\n",
            b'"',
            b"\0",
            b"\r",
            b"-1",
            b"9" * 30,
            b"1e309",
            b"nan",
            b"\xef\xbb\xbf",
            b"../",
            b"\xff",
        ]
    ),
    st.sampled_from(
        [b"{", b"}", b"[", b"null", b"inf", b"1.5", b" ", b"\t", b";", b"split", b"y", b"\x80\x02", b"PK"]
    ),
)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 30), PIECES, st.booleans()), min_size=1, max_size=6
)
Edits = list[tuple[float, int, bytes, bool]]


def damaged(content: bytes, edits: Edits) -> bytes:
    """The content with pieces put in, taken out or written over, or broken off."""
    for place, removed, piece, breaks in edits:
        at = int(place * len(content))
        content = content[:at] + piece + (b"" if breaks and removed == 0 else content[at + removed :])
    return content


def use(root: Path) -> None:
    """Whatever can be done with a folder: look at it, and read from every split of every task."""
    for copy in recognise(root):
        copy.differences()
        copy.group_counts()
        copy.examples.missing()
        for how in ({}, {"features": root / "rows.npy"}):
            try:
                task = load_task(copy.name, root=root, layout=copy.layout, counts="any", **how)
                for split in task.splits.values():
                    split.x[torch.tensor([0, len(split) - 1])]
            except UnroteError:
                continue


class _Features:
    def __init__(self, i: int) -> None:
        self.input_ids, self.input_mask, self.segment_ids = [i, 1, 2], [1, 1, 1], [0, 0, 1]
        self.label_id = copies.PAIRS[i][1]


_Features.__module__, _Features.__qualname__, _Features.__name__ = (
    "utils_glue",
    "InputFeatures",
    "InputFeatures",
)


def tokens(root: Path) -> Path:
    copies.multinli_metadata(root / "metadata.csv")
    sys.modules["utils_glue"] = types.ModuleType("utils_glue")
    sys.modules["utils_glue"].InputFeatures = _Features  # type: ignore[attr-defined]
    folder = root / "glue_data" / "MNLI"
    folder.mkdir(parents=True)
    try:
        rows = [_Features(i) for i in range(len(copies.PAIRS))]
        names = ("train_X_mnli", "dev_X_mnli", "dev_X_mnli-mm")
        for name, part in zip(names, (rows[:20], rows[20:30], rows[30:]), strict=True):
            path = folder / f"cached_{name.replace('X', 'bert-base-uncased_128')}"
            torch.save(part, path, _use_new_zipfile_serialization=False)
    finally:
        del sys.modules["utils_glue"]
    return folder / "cached_dev_bert-base-uncased_128_mnli"


def faces(root: Path) -> Path:
    copies.write_faces(root / "img_align_celeba")
    return root


def birds(root: Path) -> Path:
    copies.waterbirds_authors(root)
    return root / "metadata.csv"


def bird_features(root: Path) -> Path:
    parts = {
        k: {"x": torch.ones(4, 2), "y": torch.ones(4, 1), "m": torch.zeros(4, 1)} for k in ("tr", "va", "te")
    }
    torch.save(parts, root / "features.pt", _use_new_zipfile_serialization=False)
    return root / "features.pt"


def face_list(root: Path) -> Path:
    copies.celeba_csv(faces(root))
    return root / "list_attr_celeba.csv"


def face_text(root: Path) -> Path:
    copies.celeba_txt(faces(root))
    return root / "list_attr_celeba.txt"


def face_splits(root: Path) -> Path:
    copies.celeba_txt(faces(root))
    return root / "list_eval_partition.txt"


def pairs(root: Path) -> Path:
    copies.multinli_metadata(root / "metadata.csv")
    copies.multinli_jsonl(root)
    return root / "metadata.csv"


def sentences(root: Path) -> Path:
    pairs(root)
    return root / "multinli_1.0_train.jsonl"


def comments(root: Path) -> Path:
    copies.civilcomments_wilds(root / "all_data_with_identities.csv", n=30)
    return root / "all_data_with_identities.csv"


def picture(root: Path) -> Path:
    birds(root)
    return next(root.rglob("Bird_0000.jpg"))


FOLDERS: list[Callable[[Path], Path]] = [
    birds, bird_features, picture, face_list, face_text, face_splits, pairs, sentences, tokens, comments,
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries' remarks on what is wrong with a file
        yield


@pytest.mark.parametrize("write", FOLDERS, ids=lambda write: write.__name__)
@settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
@given(edits=EDITS)
def test_folders(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path], Path], edits: Edits
) -> None:
    root = tmp_path_factory.mktemp("copy")
    try:
        path = write(root)
        np.save(root / "rows.npy", np.ones((len(copies.CELLS), 1), np.float32))
        path.write_bytes(damaged(path.read_bytes(), edits))
        with contextlib.suppress(UnroteError):
            use(root)
    finally:
        shutil.rmtree(root)


def npy(path: Path) -> None:
    np.save(path, np.arange(24, dtype=np.float16).reshape(6, 4))


def half_lists(path: Path) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(24, dtype=np.float16)), 4)
    parquet.write_table(pa.table({"x": column}), path, row_group_size=2)


def plain_columns(path: Path) -> None:
    parquet.write_table(pa.table({f"c{j}": np.arange(6.0) for j in range(3)}), path, row_group_size=4)


@pytest.mark.parametrize(
    ("write", "suffix"), [(npy, "npy"), (half_lists, "parquet"), (plain_columns, "parquet")]
)
@settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
@given(edits=EDITS)
def test_features(tmp_path_factory: pytest.TempPathFactory, write: Any, suffix: str, edits: Edits) -> None:
    path = tmp_path_factory.mktemp("features") / f"x.{suffix}"
    write(path)
    path.write_bytes(damaged(path.read_bytes(), edits))
    with contextlib.suppress(UnroteError):
        inputs = open_features(path)
        inputs[torch.tensor([len(inputs) - 1, 0])]


@settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
@given(edits=EDITS, zipped=st.booleans())
def test_idx(tmp_path_factory: pytest.TempPathFactory, edits: Edits, zipped: bool) -> None:
    path = tmp_path_factory.mktemp("idx") / "labels"
    content = bytes([0, 0, 8, 1, 0, 0, 0, 5, 1, 2, 3, 4, 5])
    path.write_bytes(damaged(gzip.compress(content) if zipped else content, edits))
    with contextlib.suppress(UnroteError):
        assert read_idx(path, 1).ndim == 1
