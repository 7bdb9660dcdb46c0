"""Features of pictures and texts: any Hugging Face encoder, computed once, wherever the computation was stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import data_copies as copies
import numpy as np
import pytest
import torch
from torch import nn

from unrote import Recipe, evaluate, fit
from unrote.data import extraction, load_task
from unrote.data.encoders import picture_encoder, picture_form, text_encoder
from unrote.data.extraction import Encoder, Items, extract
from unrote.data.pictures import PictureForm
from unrote.errors import DataError, OptionError

FOLDER = "waterbird_complete95_forest2water2"


class Numbers(Items):
    """Examples that are numbers."""

    def __init__(self, n: int, first: int = 0) -> None:
        self.values = range(first, first + n)

    def __len__(self) -> int:
        return len(self.values)

    def key(self, i: int) -> bytes:
        return self.values[i].to_bytes(8, "big")

    def item(self, i: int) -> int:
        return self.values[i]


def counting(seen: list[int], *, width: int = 3, stop_after: int | None = None) -> Encoder:
    """Gives a number its multiples, and notes what it was asked for."""

    def encode(batch: list[int]) -> np.ndarray:
        if stop_after is not None and len(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.extend(batch)
        return np.outer(batch, np.arange(1, width + 1)).astype(np.float32)

    return Encoder(encode, f"multiples of {width}", batch_size=4)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extraction, "CHUNK", 10)
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path / "cache"))


def test_each_example_has_its_features_and_is_encoded_once(tmp_path: Path) -> None:
    seen: list[int] = []
    path = extract(Numbers(47), counting(seen), folder=tmp_path)
    wanted = np.outer(np.arange(47), [1, 2, 3])
    assert np.array_equal(np.load(path, allow_pickle=False), wanted)
    assert extract(Numbers(47), counting(seen), folder=tmp_path) == path
    assert seen == list(range(47))
    assert [file.name for file in path.parent.iterdir()] == ["features.npy"]


def test_other_examples_and_other_encoders_have_other_features(tmp_path: Path) -> None:
    paths = {
        extract(items, encoder, folder=tmp_path)
        for items in (Numbers(20), Numbers(20, first=1), Numbers(21))
        for encoder in (counting([]), counting([], width=2))
    }
    assert len(paths) == 6


def test_an_interrupted_encoding_goes_on(tmp_path: Path) -> None:
    first: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        extract(Numbers(47), counting(first, stop_after=25), folder=tmp_path)
    second: list[int] = []
    path = extract(Numbers(47), counting(second), folder=tmp_path)
    assert second == list(range(20, 47))  # two chunks of ten were whole
    assert np.array_equal(np.load(path, allow_pickle=False), np.outer(np.arange(47), [1, 2, 3]))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from unrote.data import extraction
from test_extraction import Numbers, counting
extraction.CHUNK = 10
folder, renames, original = Path(sys.argv[1]), 0, Path.replace

def encode(die_at):
    def replace(self, target):
        global renames
        renames += 1
        if renames == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, target)
    Path.replace = replace
    seen = []
    extraction.extract(Numbers(47), counting(seen), folder=folder)
    print(len(seen), flush=True)

for die_at in map(int, sys.argv[3:]):
    if not os.fork():  # a process each, whose imports are made once
        encode(die_at)
        sys.exit()
    code = os.waitstatus_to_exitcode(os.wait()[1])
    print(code, len(list(folder.rglob("features.npy"))), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the encodings to kill are forked")
def test_a_killed_encoding_goes_on(tmp_path: Path) -> None:
    """Killed while it writes a chunk, again at a later one, and while it joins them."""
    # after 1 chunk; after 2 more; after the last 2, while joining; never
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent), *"2330"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    *killed, encoded, last = done.stdout.splitlines()
    assert killed == [f"{-signal.SIGKILL} 0"] * 3
    assert (encoded, last) == ("0", "0 1"), done.stderr  # all chunks were there
    (found,) = tmp_path.rglob("features.npy")
    assert np.array_equal(np.load(found, allow_pickle=False), np.outer(np.arange(47), [1, 2, 3]))


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda batch: np.full((len(batch), 2), np.nan), "not finite"),
        (lambda batch: np.full((len(batch), 2), 1e6), "65,504"),
        (lambda batch: np.zeros((1, 2)), r"shape \(1, 2\) for 4 examples"),
    ],
)
def test_what_an_encoder_must_not_give(tmp_path: Path, give: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        extract(Numbers(9), Encoder(give, "bad", 4), folder=tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


def vision_model(kind: str) -> Any:
    import transformers

    torch.random.manual_seed(0)
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        )
        return transformers.ResNetModel(config).eval()
    if kind == "vit":
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, patch_size=56
        )
        return transformers.ViTModel(config).eval()
    return nn.Sequential(nn.Conv2d(3, 4, 32, stride=32), nn.Flatten(), nn.Linear(196, 6)).eval()


@pytest.mark.parametrize("kind", ["resnet", "vit", "module"])
def test_pictures_of_a_task_through_any_network(tmp_path: Path, kind: str) -> None:
    copies.waterbirds_authors(tmp_path / FOLDER)
    model = vision_model(kind)
    given: Any = model
    if kind != "module":
        given = tmp_path / "model"
        model.save_pretrained(given)
    pixels = load_task("waterbirds", root=tmp_path, counts="any")
    task = load_task("waterbirds", root=tmp_path, counts="any", encoder=given, batch_size=5)
    for name, split in task.splits.items():
        x = pixels.splits[name].x[torch.arange(len(split))]
        with torch.no_grad():
            out = model(x)
        wanted = {
            "resnet": lambda out: out.last_hidden_state.mean((2, 3)),
            "vit": lambda out: out.last_hidden_state[:, 0],
            "module": lambda out: out,
        }[kind](out)
        found = split.x[torch.arange(len(split))]
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)
    fitted = fit(task, "mat", temperature=0.1, recipe=Recipe("adam", 0.01, batch_size=8, epochs=2))
    assert 0 <= evaluate(fitted, task).average <= 1


def test_a_changed_picture_or_weight_is_encoded_again(tmp_path: Path) -> None:
    names = copies.waterbirds_authors(tmp_path / FOLDER)
    model = vision_model("module")

    def files() -> int:
        load_task("waterbirds", root=tmp_path, counts="any", encoder=model)
        return len(list((tmp_path / "cache").rglob("features.npy")))

    assert [files(), files()] == [1, 1]
    copies.write_picture(tmp_path / FOLDER / names[3], (1, 2, 3))
    assert files() == 2
    with torch.no_grad():
        model[0].bias.add_(1)
    assert files() == 3


def test_how_a_folder_wants_its_pictures(tmp_path: Path) -> None:
    default = PictureForm(256, 224)
    assert picture_form(tmp_path, default) == default
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "image_mean": [0, 0, 0], '
        '"image_std": [1, 1, 1]}'
    )
    assert picture_form(tmp_path, default) == PictureForm(40, 32, None, (0, 0, 0), (1, 1, 1))
    for text in (
        "{",
        "[]",
        '{"size": 8, "crop_size": 9}',
        '{"size": "large"}',
        '{"size": 8, "image_std": [0, 0, 0]}',
    ):
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.raises(DataError, match="cannot be read"):
            picture_form(tmp_path, default)


@pytest.fixture
def text_model(tmp_path: Path) -> Path:
    """A folder with a tiny BERT and its tokenizer."""
    import transformers

    torch.random.manual_seed(0)
    words = {word for i in range(len(copies.PAIRS)) for text in copies.sentences(i) for word in text.split()}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    folder = tmp_path / "bert"
    transformers.BertModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def multinli(root: Path) -> Path:
    copies.multinli_metadata(root / "metadata.csv")
    copies.multinli_jsonl(root)
    return root


@pytest.mark.parametrize("pooling", ["auto", "first", "pooler"])
def test_pairs_of_texts_through_a_language_model(tmp_path: Path, text_model: Path, pooling: str) -> None:
    import transformers

    task = load_task(
        "multinli",
        root=multinli(tmp_path / "data"),
        counts="any",
        encoder=text_model,
        pooling=pooling,
        max_length=12,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_model)
    model = transformers.AutoModel.from_pretrained(text_model)
    rows = [i for i, (s, _, _) in enumerate(copies.PAIRS) if s == 0]
    for place in (0, len(rows) - 1):  # one by one, where nothing is padded
        made = tokenizer(*copies.sentences(rows[place]), truncation=True, max_length=12, return_tensors="pt")
        with torch.no_grad():
            out = model(**made)
        wanted = {
            "auto": out.last_hidden_state.mean(1),
            "first": out.last_hidden_state[:, 0],
            "pooler": out.pooler_output,
        }[pooling]
        found = task.train.x[torch.tensor([place])]
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)


def test_tokens_for_a_model_that_trains(tmp_path: Path, text_model: Path) -> None:
    task = load_task("multinli", root=multinli(tmp_path / "data"), counts="any", tokenizer=text_model)
    x = task.train.x[torch.arange(6)]
    assert set(x) == {"input_ids", "attention_mask", "token_type_ids"}
    assert x["input_ids"].shape == x["attention_mask"].shape == (6, int(x["attention_mask"].sum(1).max()))
    assert bool((x["token_type_ids"].sum(1) > 0).all())  # the second sentence is marked as such


class TestRefused:
    def test_no_folder_of_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nothing is downloaded"):
            picture_encoder(tmp_path / "bert-base-uncased")
        with pytest.raises(DataError, match="nothing is downloaded"):
            text_encoder("bert-base-uncased")

    def test_weights_that_are_a_pickle(self, tmp_path: Path, text_model: Path) -> None:
        import transformers

        state = transformers.AutoModel.from_pretrained(text_model).state_dict()
        (text_model / "model.safetensors").unlink()
        torch.save(state, text_model / "pytorch_model.bin")
        with pytest.raises(DataError, match="safetensors"):
            text_encoder(text_model)

    def test_code_in_a_folder_is_not_run(self, tmp_path: Path, text_model: Path) -> None:
        import json

        config = json.loads((text_model / "config.json").read_text())
        config |= {"auto_map": {"AutoModel": "trap.Trap", "AutoConfig": "trap.Trap"}, "model_type": "trap"}
        (text_model / "config.json").write_text(json.dumps(config))
        (text_model / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Trap: pass\n")
        with pytest.raises(DataError, match="cannot be loaded"):
            picture_encoder(text_model)
        assert not (tmp_path / "ran").exists()

    def test_options(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="pooling='max'"):
            picture_encoder(nn.Identity(), pooling="max")
        with pytest.raises(OptionError, match="without its tokenizer"):
            text_encoder(nn.Identity())
        with pytest.raises(OptionError, match="type int"):
            picture_encoder(3)
        with pytest.raises(OptionError, match="nothing to encode"):
            extract(Numbers(0), counting([]), folder=tmp_path)
