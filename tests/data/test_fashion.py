import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrote.data import Split, Task, load_task
from unrote.data.fashion import CLASSES, DEBIAN_FOLDER
from unrote.errors import DataError, OptionError, UnknownNameError

PER_CLASS = {"train": 40, "t10k": 12}
TEN = ",".join(CLASSES)
SMALL: dict[str, Any] = {"n_train": 60, "n_validation": 20}


def write(path: Path, values: np.ndarray) -> None:
    content = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the real folder: random bright pixels with a black margin; part zipped, part not.

    Row 1, column 1 holds the label in the real numbering (times 10), row 1, column 2 a serial number.
    """
    folder = tmp_path_factory.mktemp("fashion")
    random = np.random.default_rng(0)
    for prefix, size in PER_CLASS.items():
        labels = random.permutation(np.repeat(np.arange(10, dtype=np.uint8), size))
        images = random.integers(128, 256, (len(labels), 28, 28), dtype=np.uint8)
        images[:, :, 20:] = 0
        images[:, 1, 1] = 10 * labels + 150
        for c in range(10):
            images[labels == c, 1, 2] = 150 + np.arange(size)
        write(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return folder


def images(split: Split) -> np.ndarray:
    return split.x[torch.arange(len(split))].numpy()


def identity(split: Split) -> list[tuple[int, int]]:
    """(label in the files, serial number) of each example, read off two pixels that no tint reaches."""
    pixels = np.rint(images(split)[:, 0, 1, 1:3] * 255).astype(int) - 150
    return [(int(label) // 10, int(serial)) for label, serial in pixels]


@pytest.mark.parametrize("classes", ["pullover,coat", "Coat, T-shirt ,bag", TEN])
def test_content_keeps_its_class_and_is_used_once(folder: Path, classes: str) -> None:
    task = load_task("fashion", path=folder, classes=classes, **SMALL)
    names = [name.strip().lower() for name in classes.split(",")]
    assert task.class_names == tuple(names)
    found = {name: identity(split) for name, split in task.splits.items()}
    for name, split in task.splits.items():
        assert [CLASSES[label] for label, _ in found[name]] == [names[c] for c in split.y.tolist()]
        assert len(set(found[name])) == len(split)
    assert not set(found["train"]) & set(found["validation"])
    assert sorted(found["test"]) == sorted(
        (CLASSES.index(c), i) for c in names for i in range(PER_CLASS["t10k"])
    )


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("alignment", [0.9, None])
def test_groups(folder: Path, n_classes: int, alignment: float | None) -> None:
    wanted = 1 / n_classes if alignment is None else alignment
    task = load_task("fashion", path=folder, classes=CLASSES[:n_classes], alignment=wanted, **SMALL)
    shares = {"train": wanted, "validation": wanted, "test": 1 / n_classes}
    for name, split in task.splits.items():
        table = np.zeros((n_classes, n_classes), dtype=int)
        np.add.at(table, (split.y.numpy(), split.attribute.numpy()), 1)
        sizes = table.sum(1)
        assert sizes.max() - sizes.min() <= 1
        assert np.abs(np.diag(table) - shares[name] * sizes).max() <= 0.5
        others = table[~np.eye(n_classes, dtype=bool)].reshape(n_classes, n_classes - 1)
        assert (others.max(1) - others.min(1)).max() <= 1
    assert [len(task.train), len(task.validation or ())] == [60, 20]


def test_tint_leaves_the_garment_and_colours_the_background(tmp_path: Path) -> None:
    """Images that are white but for a black left half and a column of grey 51/255."""
    picture = np.full((28, 28), 255, dtype=np.uint8)
    picture[:, :14] = 0
    picture[:, 14] = 51
    for prefix in PER_CLASS:
        write(tmp_path / f"{prefix}-images-idx3-ubyte", np.repeat(picture[None], 40, 0))
        write(tmp_path / f"{prefix}-labels-idx1-ubyte", np.repeat(np.array([2, 4], dtype=np.uint8), 20))
    task = load_task("fashion", path=tmp_path, strength=0.5, n_train=20, n_validation=4)
    assert task.attribute_names == ("red background", "blue background")
    for x, a in zip(images(task.train), task.train.attribute.tolist(), strict=True):
        lit = {0: 0, 1: 2}[a]  # red is channel 0, blue is channel 2
        for channel in range(3):
            np.testing.assert_allclose(x[channel, :, :14], 0.5 if channel == lit else 0.0)
            np.testing.assert_allclose(
                x[channel, :, 14], 0.2 + (0.5 * 0.6 if channel == lit else 0.0), rtol=1e-6
            )
            np.testing.assert_allclose(x[channel, :, 15:], 1.0)


def test_patch(folder: Path) -> None:
    task = load_task("fashion", path=folder, plant="patch", **SMALL)
    assert task.attribute_names == ("red patch", "blue patch")
    for x, a in zip(images(task.train), task.train.attribute.tolist(), strict=True):
        square = x[:, :4, :4] if a == 0 else x[:, 24:, 24:]
        colour = [1.0, 0.0, 0.0] if a == 0 else [0.0, 0.0, 1.0]
        np.testing.assert_array_equal(square, np.broadcast_to(np.reshape(colour, (3, 1, 1)), (3, 4, 4)))
        rest = x[:, 4:24, 4:24]
        np.testing.assert_array_equal(rest[0], rest[1])
        np.testing.assert_array_equal(rest[0], rest[2])


def test_stripes(folder: Path) -> None:
    task = load_task("fashion", path=folder, plant="stripes", **SMALL)
    assert task.attribute_names == ("stripes at 0 degrees", "stripes at 90 degrees")
    x = images(task.train)
    np.testing.assert_array_equal(x[:, 0], x[:, 2])
    for a in range(2):
        own = x[task.train.attribute.numpy() == a, 0]
        # down the columns, along the rows
        changes = [np.abs(np.diff(own, axis=axis)).mean() for axis in (1, 2)]
        assert changes[a] > 1.2 * changes[1 - a]


def test_seed(folder: Path) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (load_task("fashion", path=folder, seed=seed, **SMALL) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    for name in first.splits:
        assert np.array_equal(images(first.splits[name]), images(again.splits[name]))
        assert not np.array_equal(images(first.splits[name]), images(other.splits[name]))
        assert torch.equal(first.splits[name].attribute, again.splits[name].attribute)
    assert set(identity(first.train)) != set(identity(other.train))


def test_the_plant_does_not_change_which_images_are_drawn(folder: Path) -> None:
    tinted, plain = (load_task("fashion", path=folder, alignment=share, **SMALL) for share in (0.95, 0.5))
    assert identity(tinted.train) == identity(plain.train)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": "pullover,cot"}, UnknownNameError, "did you mean 'coat'"),
        ({"classes": "coat"}, OptionError, "two to ten"),
        ({"classes": "coat,coat"}, OptionError, "two to ten"),
        ({"classes": ()}, OptionError, "none: two to ten"),
        ({"n_train": 70}, OptionError, "45 images of class 'pullover', the files have 40"),
        ({"n_train": 1}, OptionError, "n_train=1"),
        ({"n_validation": 0}, OptionError, "n_validation=0"),
        ({"alignment": 1.01}, OptionError, "alignment"),
        ({"strength": 2.0}, OptionError, "strength"),
    ],
)
def test_options_out_of_range(folder: Path, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        load_task("fashion", path=folder, **{**SMALL, **options})


@pytest.mark.usefixtures("shapes_unchecked")
def test_unknown_plant(folder: Path) -> None:
    with pytest.raises(OptionError, match="'tint', 'patch' or 'stripes'"):
        load_task("fashion", path=folder, plant="squares")


class TestWhereTheFilesAre:
    def test_the_message_names_both_ways_and_all_files(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("UNROTE_FASHION", raising=False)
        monkeypatch.setattr("unrote.data.fashion.DEBIAN_FOLDER", tmp_path / "nowhere")
        with pytest.raises(DataError) as caught:
            load_task("fashion")
        message = str(caught.value)
        assert "apt-get install dataset-fashion-mnist" in message
        assert "path=" in message
        assert "UNROTE_FASHION" in message
        for prefix in ("train", "t10k"):
            assert f"{prefix}-images-idx3-ubyte" in message
            assert f"{prefix}-labels-idx1-ubyte" in message

    def test_the_variable_and_the_argument(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("unrote.data.fashion.DEBIAN_FOLDER", tmp_path / "nowhere")
        monkeypatch.setenv("UNROTE_FASHION", str(folder))
        by_variable = load_task("fashion", **SMALL)
        monkeypatch.setenv("UNROTE_FASHION", str(tmp_path))
        by_argument = load_task("fashion", path=str(folder), **SMALL)  # the argument wins
        assert np.array_equal(images(by_variable.train), images(by_argument.train))
        with pytest.raises(DataError, match="lacks"):
            load_task("fashion", **SMALL)

    def test_only_what_lacks_is_called_lacking(self, folder: Path, tmp_path: Path) -> None:
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"):
            (tmp_path / name).symlink_to(folder / name)
        with pytest.raises(DataError, match=r"lacks t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte\."):
            load_task("fashion", path=tmp_path)

    def test_counts_that_do_not_match(self, folder: Path, tmp_path: Path) -> None:
        for file in folder.iterdir():
            (tmp_path / file.name).symlink_to(file)
        (tmp_path / "t10k-labels-idx1-ubyte").unlink()
        write(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(119, dtype=np.uint8))
        with pytest.raises(DataError, match=r"120 images, .* 119 labels"):
            load_task("fashion", path=tmp_path, **SMALL)

    def test_a_label_that_is_no_class(self, folder: Path, tmp_path: Path) -> None:
        for file in folder.iterdir():
            (tmp_path / file.name).symlink_to(file)
        (tmp_path / "train-labels-idx1-ubyte").unlink()
        write(tmp_path / "train-labels-idx1-ubyte", np.full(400, 10, dtype=np.uint8))
        with pytest.raises(DataError, match="label 10"):
            load_task("fashion", path=tmp_path, **SMALL)


@pytest.fixture(scope="module")
def real_task() -> Task:
    return load_task("fashion", path=DEBIAN_FOLDER)


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
class TestTheRealFiles:
    def test_sizes(self, real_task: Task) -> None:
        groups = {
            name: np.bincount(real_task.group(split)).tolist() for name, split in real_task.splits.items()
        }
        assert groups == {
            "train": [2850, 150, 150, 2850],
            "validation": [475, 25, 25, 475],
            "test": [500, 500, 500, 500],
        }
        assert real_task.train.x.shape == (3, 28, 28)

    def test_test_images_are_those_of_the_file(self, real_task: Task) -> None:
        """Parsed without our reader: the header is 16 bytes, then 784 a picture; labels after 8 bytes."""
        raw = gzip.decompress((DEBIAN_FOLDER / "t10k-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((DEBIAN_FOLDER / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
        rows = [i for i, label in enumerate(labels) if label in (2, 4)]
        assert real_task.test is not None
        x = images(real_task.test)
        assert real_task.test.y.tolist() == [int(labels[i] == 4) for i in rows]
        for k in range(0, 2000, 97):
            grey = np.frombuffer(raw, np.uint8, 784, 16 + 784 * rows[k]).reshape(28, 28) / np.float32(255)
            np.testing.assert_array_equal(x[k, 1], grey)  # neither red nor blue has green in it
            lit = 2 * int(real_task.test.attribute[k])
            np.testing.assert_array_equal(x[k, 2 - lit], grey)
            assert (x[k, lit][grey == 0] == 1).all()
