"""CelebA in every layout."""

from pathlib import Path

import data_copies as copies
import numpy as np
import pytest
import torch

from unrote.data import load_task
from unrote.data.folders import recognise
from unrote.errors import DataError


def write(layout: str, root: Path) -> None:
    names = copies.face_names()
    header = ["image_id", *copies.ATTRIBUTES]
    pictures = root / "img_align_celeba"
    if layout in ("kaggle", "blanks", "tabs"):
        copies.celeba_csv(root, {"kaggle": ",", "blanks": " ", "tabs": "\t"}[layout])
    elif layout == "wilds":
        copies.celeba_csv(root / "celebA_v1.0")
        pictures = root / "celebA_v1.0" / "img_align_celeba"
    elif layout == "nested":
        copies.celeba_csv(root)
        pictures = root / "img_align_celeba" / "img_align_celeba"
    elif layout == "original":
        copies.celeba_txt(root / "celeba")
        pictures = root / "celeba" / "img_align_celeba"
    elif layout == "jtt":
        rows = [[n, *copies.face_attributes(i), copies.CELLS[i][0]] for i, n in enumerate(names)]
        copies.write_csv(root / "metadata.csv", [*header, "split"], rows)
    elif layout == "dfr":
        rows = [[n, y, a, s] for n, (s, y, a) in zip(names, copies.CELLS, strict=True)]
        copies.write_csv(root / "metadata.csv", ("img_filename", "y", "place", "split"), rows)
    else:
        copies.suite_metadata(root / "celeba" / "metadata_celeba.csv", names)
        pictures = root / "celeba" / "img_align_celeba"
    copies.write_faces(pictures)


@pytest.mark.parametrize(
    "layout", ["kaggle", "blanks", "tabs", "wilds", "nested", "original", "jtt", "dfr", "suite"]
)
def test_every_layout_gives_the_same_groups_and_pictures(tmp_path: Path, layout: str) -> None:
    write(layout, tmp_path)
    copy, *others = recognise(tmp_path)
    assert (copy.name, others) == ("celeba", [])
    assert copy.examples.missing() == []
    task = load_task("celeba", root=tmp_path, counts="any")
    assert task.group_names[3] == "blond, man"
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for place, split in enumerate(task.splits.values()):
        rows = [i for i, (s, _, _) in enumerate(copies.CELLS) if s == place]
        assert task.group(split).tolist() == [2 * y + a for s, y, a in copies.CELLS if s == place]
        middle = split.x[torch.tensor([0])][0, :, 112, 112].numpy() * deviation + mean
        np.testing.assert_allclose(middle, np.array(copies.colour_of(rows[0])) / 255, atol=0.02)


def test_the_middle_is_cut_out_of_a_face(tmp_path: Path) -> None:
    """178 by 218 pixels: the upper and lower 20 go, and the rest is scaled without a change of shape."""
    from PIL import Image

    write("kaggle", tmp_path)
    picture = Image.new("RGB", (178, 218), (255, 255, 255))
    picture.paste((0, 0, 0), (0, 20, 178, 198))
    for name in copies.face_names():
        picture.save(tmp_path / "img_align_celeba" / name, quality=100)
    task = load_task("celeba", root=tmp_path, counts="any")
    x = task.train.x[torch.tensor([0])]
    black = -torch.tensor([0.485, 0.456, 0.406]) / torch.tensor([0.229, 0.224, 0.225])
    assert x.shape == (1, 3, 224, 224)
    assert float((x - black.view(1, 3, 1, 1)).abs().max()) < 0.2


def test_lists_of_different_copies(tmp_path: Path) -> None:
    write("kaggle", tmp_path)
    path = tmp_path / "list_eval_partition.csv"
    path.write_text(path.read_text().replace("000003.jpg", "999999.jpg"))
    with pytest.raises(DataError, match=r"'000003.jpg', which has no split"):
        load_task("celeba", root=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not list"),
        ("3\nBlond_Hair Male\n", "does not list"),
        ("2\nBlond_Hair Male\na.jpg 1 1 1\n", "fields"),
    ],
)
def test_damaged_lists(tmp_path: Path, text: str, message: str) -> None:
    copies.celeba_txt(tmp_path)
    (tmp_path / "list_attr_celeba.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_task("celeba", root=tmp_path)


def test_counts(tmp_path: Path) -> None:
    write("dfr", tmp_path)
    with pytest.raises(DataError, match=r"162,770 were published"):
        load_task("celeba", root=tmp_path)
