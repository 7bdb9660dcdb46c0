"""Waterbirds in every layout: found, counted, and the rows that the folder says."""

from pathlib import Path

import data_copies as copies
import numpy as np
import pytest
import torch

from unrote.data import load_task
from unrote.data.folders import recognise
from unrote.errors import DataError, OptionError

FOLDER = "waterbird_complete95_forest2water2"


def write_features(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {}
    for place, name in enumerate(("tr", "va", "te")):
        rows = [(y, a) for s, y, a in copies.CELLS if s == place]
        y, m = (torch.tensor(column).view(-1, 1) for column in zip(*rows, strict=True))
        x = torch.stack([y.flatten() * 10 + m.flatten(), torch.arange(len(y))], 1).float()
        parts[name] = {"x": x, "y": y, "m": m}
    torch.save(parts, path)


def write(layout: str, root: Path) -> None:
    if layout == "authors":
        copies.waterbirds_authors(root)
    elif layout == "authors below":
        copies.waterbirds_authors(root / "data" / FOLDER)
    elif layout == "semicolons":
        copies.waterbirds_authors(root / FOLDER, delimiter=";")
    elif layout == "wilds":
        copies.waterbirds_authors(root / "waterbirds_v1.0")
    elif layout == "suite":
        names = copies.waterbirds_authors(root / "waterbirds" / FOLDER)
        (root / "waterbirds" / FOLDER / "metadata.csv").unlink()
        copies.suite_metadata(root / "waterbirds" / "metadata_waterbirds.csv", names)
    elif layout == "suite above":
        names = copies.waterbirds_authors(root / "waterbirds" / FOLDER)
        (root / "waterbirds" / FOLDER / "metadata.csv").unlink()
        copies.suite_metadata(root / "metadata_waterbirds.csv", names)
    else:
        write_features(root / "waterbirds" / "features.pt")


LAYOUTS = ["authors", "authors below", "semicolons", "wilds", "suite", "suite above", "features"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_groups(tmp_path: Path, layout: str) -> None:
    write(layout, tmp_path)
    task = load_task("waterbirds", root=tmp_path, counts="any")
    assert task.group_names == ("landbird, land", "landbird, water", "waterbird, land", "waterbird, water")
    for place, (name, split) in enumerate(task.splits.items()):
        wanted = [2 * y + a for s, y, a in copies.CELLS if s == place]
        assert task.group(split).tolist() == wanted, name


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "features"])
def test_each_row_has_its_own_picture(tmp_path: Path, layout: str) -> None:
    write(layout, tmp_path)
    task = load_task("waterbirds", root=str(tmp_path), counts="any")
    assert task.train.x.shape == (3, 224, 224)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for place, split in enumerate(task.splits.values()):
        rows = [i for i, (s, _, _) in enumerate(copies.CELLS) if s == place]
        middle = split.x[torch.tensor([0, len(rows) - 1])][:, :, 112, 112].numpy() * deviation + mean
        wanted = np.array([copies.colour_of(rows[0]), copies.colour_of(rows[-1])]) / 255
        np.testing.assert_allclose(middle, wanted, atol=0.02)  # jpeg loses a little


def test_the_features_of_the_public_code(tmp_path: Path) -> None:
    write("features", tmp_path)
    train = load_task("waterbirds", root=tmp_path, counts="any").train
    x = train.x[torch.arange(len(train))]
    assert x[:, 0].tolist() == (10 * train.y + train.attribute).tolist()
    assert x[:, 1].tolist() == list(range(len(train)))


def test_other_layouts_are_found_beside_each_other(tmp_path: Path) -> None:
    write("authors below", tmp_path)
    write("features", tmp_path)
    assert [copy.layout for copy in recognise(tmp_path)] == ["authors", "features"]
    assert load_task("waterbirds", root=tmp_path, counts="any").train.x.shape == (3, 224, 224)
    task = load_task("waterbirds", root=tmp_path, counts="any", layout="features")
    assert task.train.x.shape == (2,)
    with pytest.raises(OptionError, match="did you mean 'features'"):
        load_task("waterbirds", root=tmp_path, layout="feature")


def test_counts_are_held_against_the_published_ones(tmp_path: Path) -> None:
    write("authors", tmp_path)
    with pytest.raises(DataError, match=r"train has \d+ examples, 4,795 were published.*counts='any'"):
        load_task("waterbirds", root=tmp_path)


def test_published_counts_pass_and_one_moved_example_does_not(tmp_path: Path) -> None:
    published = {0: (3498, 184, 56, 1057), 1: (467, 466, 133, 133), 2: (2255, 2255, 642, 642)}
    cells = [
        (s, g // 2, g % 2) for s, counts in published.items() for g, n in enumerate(counts) for _ in range(n)
    ]
    path = tmp_path / "metadata_waterbirds.csv"
    copies.suite_metadata(path, [f"001.B/{i}.jpg" for i in range(len(cells))], cells)
    features = tmp_path / "mine.npy"
    np.save(features, np.arange(len(cells), dtype=np.float32)[:, None] % 1000)
    task = load_task("waterbirds", root=tmp_path, features=features)
    assert [len(split) for split in task.splits.values()] == [4795, 1199, 5794]
    assert task.validation is not None
    assert task.validation.x[torch.tensor([0, 1198])].flatten().tolist() == [4795 % 1000, 5993 % 1000]
    cells[0] = (0, 0, 1)
    copies.suite_metadata(path, [f"001.B/{i}.jpg" for i in range(len(cells))], cells)
    with pytest.raises(
        DataError, match=r"'landbird, land' of train has 3,497 examples, 3,498 were published"
    ):
        load_task("waterbirds", root=tmp_path, features=features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(",2,", ",3,"), "column 'split' of .* has '3'"),
        (lambda text: text.replace("Bird_0003.jpg", "../../../../etc/passwd"), "leads out of"),
        (lambda text: text + "1,2\n", "has 2 fields, the header 6"),
        (lambda text: text.replace("y,split", "class,split"), "has no copy of it"),
        (lambda text: text.splitlines()[0] + "\n", "a header and no rows"),
        (lambda text: text.replace(",0,", ",x,"), "has 'x' in row"),
    ],
)
def test_damaged_metadata(tmp_path: Path, change: object, message: str) -> None:
    write("authors", tmp_path)
    path = tmp_path / "metadata.csv"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        load_task("waterbirds", root=tmp_path, counts="any")


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    write("authors", tmp_path)
    name = next(tmp_path.rglob("*.jpg"))
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"\.jpg cannot be read as a picture"):
        load_task("waterbirds", root=tmp_path, counts="any")
    assert name.exists()


def test_a_pickle_in_place_of_features_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return Path.write_text, (tmp_path / "ran", "it")  # type: ignore[return-value]

    torch.save({"tr": Trap()}, tmp_path / "features.pt")
    with pytest.raises(DataError, match="no file of features"):
        load_task("waterbirds", root=tmp_path)
    (tmp_path / "features.pt").write_bytes(pickle.dumps({"tr": Trap()}))
    with pytest.raises(DataError, match="no file of features"):
        load_task("waterbirds", root=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNROTE_DATA", raising=False)
    with pytest.raises(OptionError, match="UNROTE_DATA"):
        load_task("waterbirds")
    with pytest.raises(DataError, match="is no folder"):
        load_task("waterbirds", root=tmp_path / "nowhere")
    monkeypatch.setenv("UNROTE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"has no copy of it.*metadata_waterbirds.csv"):
        load_task("waterbirds")
