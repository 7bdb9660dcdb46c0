from pathlib import Path

import pytest
import torch

from unrote.errors import DataError
from unrote.figures.rote import task_of_features


def features(n: int) -> dict[str, torch.Tensor]:
    y = (torch.arange(n) % 2).unsqueeze(1)
    return {"x": torch.randn(n, 6), "y": y.float(), "m": y.clone()}


def test_features_of_the_user_are_read(tmp_path: Path) -> None:
    file = tmp_path / "waterbirds.pt"
    parts = {name: features(n) for name, n in (("tr", 12), ("va", 8), ("te", 6))}
    torch.save(parts, file)
    task = task_of_features(file)
    assert task.name == "waterbirds"
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 12,
        "validation": 8,
        "test": 6,
    }
    assert task.train.y.tolist() == parts["tr"]["y"].flatten().long().tolist()
    torch.testing.assert_close(task.train.x[torch.arange(12)], parts["tr"]["x"])


@pytest.mark.parametrize("content", [{"tr": features(4)}, [1, 2], {"tr": 1, "va": 2, "te": 3}])
def test_another_layout_is_refused(tmp_path: Path, content: object) -> None:
    file = tmp_path / "other.pt"
    torch.save(content, file)
    with pytest.raises(DataError, match="holds no features that can be read"):
        task_of_features(file)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no tensors")
    with pytest.raises(DataError, match="holds no features"):
        task_of_features(tmp_path / "text.pt")
    with pytest.raises(DataError, match="holds no features"):
        task_of_features(tmp_path / "missing.pt")
