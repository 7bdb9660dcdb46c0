"""MultiNLI in every layout: sentences and tokens belong to their rows, and no pickle is run."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import data_copies as copies
import numpy as np
import pytest
import torch

from unrote.data import load_task
from unrote.data.folders import recognise
from unrote.data.folders.examples import Texts
from unrote.errors import DataError, OptionError


@pytest.fixture
def utils_glue(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class that the authors' script pickled, in the module it had there."""

    class InputFeatures:
        def __init__(self, input_ids: Any, input_mask: Any, segment_ids: Any, label_id: int) -> None:
            self.input_ids, self.input_mask = input_ids, input_mask
            self.segment_ids, self.label_id = segment_ids, label_id

    module = types.ModuleType("utils_glue")
    InputFeatures.__module__, InputFeatures.__qualname__ = "utils_glue", "InputFeatures"
    module.InputFeatures = InputFeatures  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "utils_glue", module)
    return InputFeatures


def write_cached(folder: Path, kind: Any, *, zipped: bool = True) -> None:
    folder.mkdir(parents=True)
    rows = [kind([i, y, 102, 0], [1, 1, 1, 0], [0, 0, 1, 0], y) for i, (_, y, _) in enumerate(copies.PAIRS)]
    names = ("train", "dev", "dev"), ("mnli", "mnli", "mnli-mm")
    for first, last, part in zip(*names, (rows[:30], rows[30:40], rows[40:]), strict=True):
        path = folder / f"cached_{first}_bert-base-uncased_128_{last}"
        torch.save(part, path, _use_new_zipfile_serialization=zipped)


LAYOUTS = {
    "random": "data/metadata_random.csv",
    "jtt": "metadata.csv",
    "suite": "multinli/metadata_multinli.csv",
    "preset": "data/metadata_preset.csv",
}


def write(layout: str, root: Path) -> None:
    path = root / LAYOUTS[layout]
    if layout == "suite":
        copies.suite_metadata(path, range(len(copies.PAIRS)), copies.PAIRS)
    else:
        copies.multinli_metadata(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_groups_and_sentences(tmp_path: Path, layout: str) -> None:
    write(layout, tmp_path)
    copies.multinli_jsonl((tmp_path / LAYOUTS[layout]).parent)
    (copy,) = recognise(tmp_path)
    assert (copy.name, copy.layout) == ("multinli", layout)
    assert copy.group_names[:2] == ("contradiction, no negation", "contradiction, negation")
    assert list(zip(copy.split, copy.y, copy.attribute, strict=True)) == copies.PAIRS
    assert isinstance(copy.examples, Texts)
    assert list(copy.examples.texts) == [copies.sentences(i) for i in range(len(copies.PAIRS))]


@pytest.mark.usefixtures("utils_glue")
@pytest.mark.parametrize("zipped", [True, False], ids=["zipped", "of 2019"])
def test_the_authors_tokens(tmp_path: Path, utils_glue: Any, zipped: bool) -> None:
    write("random", tmp_path)
    write_cached(tmp_path / "glue_data" / "MNLI", utils_glue, zipped=zipped)
    task = load_task("multinli", root=tmp_path, counts="any")
    for place, split in enumerate(task.splits.values()):
        rows = [i for i, (s, _, _) in enumerate(copies.PAIRS) if s == place]
        x = split.x[torch.arange(len(split))]
        assert x["input_ids"][:, 0].tolist() == rows
        assert x["input_ids"][:, 1].tolist() == split.y.tolist()
        assert x["token_type_ids"].sum(1).tolist() == [1] * len(rows)
        assert x["attention_mask"].sum(1).tolist() == [3] * len(rows)
        assert x["input_ids"].dtype == torch.int64


def test_tokens_of_other_rows(tmp_path: Path, utils_glue: Any) -> None:
    write("random", tmp_path)
    write_cached(tmp_path / "glue_data" / "MNLI", utils_glue)
    path = tmp_path / "data" / "metadata_random.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[:0:-1]]))
    with pytest.raises(DataError, match="differ from the metadata in the label of row"):
        load_task("multinli", root=tmp_path, counts="any")


def test_other_objects_in_a_cached_file_are_not_made(tmp_path: Path, utils_glue: Any) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.write_text, (tmp_path / "ran", "it")

    write("random", tmp_path)
    write_cached(tmp_path / "glue_data" / "MNLI", utils_glue)
    torch.save([Trap()], tmp_path / "glue_data" / "MNLI" / "cached_train_bert-base-uncased_128_mnli")
    with pytest.raises(DataError, match="no list of tokenized pairs"):
        load_task("multinli", root=tmp_path, counts="any")
    assert not (tmp_path / "ran").exists()


def test_sentences_need_something_that_makes_numbers_of_them(tmp_path: Path) -> None:
    write("random", tmp_path)
    with pytest.raises(DataError, match=r"only the metadata are there, not multinli_1.0"):
        load_task("multinli", root=tmp_path, counts="any")
    features = tmp_path / "x.npy"
    np.save(features, np.arange(len(copies.PAIRS), dtype=np.float16)[:, None])
    train = load_task("multinli", root=tmp_path, counts="any", features=features).train
    rows = [i for i, (s, _, _) in enumerate(copies.PAIRS) if s == 0]
    assert train.x[torch.arange(len(train))].flatten().tolist() == rows
    copies.multinli_jsonl(tmp_path / "data")
    with pytest.raises(OptionError, match="encoder='minilm'"):
        load_task("multinli", root=tmp_path, counts="any")


def test_features_of_another_length(tmp_path: Path) -> None:
    write("random", tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match="3 rows for the metadata's"):
        load_task("multinli", root=tmp_path, counts="any", features=tmp_path / "x.npy")


@pytest.mark.parametrize("line", ["{", "[]", '{"gold_label": "maybe"}', '{"gold_label": "neutral"}'])
def test_damaged_sentences(tmp_path: Path, line: str) -> None:
    write("jtt", tmp_path)
    copies.multinli_jsonl(tmp_path)
    with (tmp_path / "multinli_1.0_train.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match="is damaged"):
        load_task("multinli", root=tmp_path, counts="any")


def test_a_pair_more(tmp_path: Path) -> None:
    write("jtt", tmp_path)
    copies.multinli_jsonl(tmp_path)
    with (tmp_path / "multinli_1.0_train.jsonl").open("a") as file:
        file.write(json.dumps({"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}) + "\n")
    n = len(copies.PAIRS)
    with pytest.raises(DataError, match=f"are {n + 1} pairs, the metadata {n}"):
        load_task("multinli", root=tmp_path, counts="any")
