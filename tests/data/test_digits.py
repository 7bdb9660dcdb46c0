import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from unrote.data import Split, Task, load_task
from unrote.errors import OptionError

GREY, TARGET = load_digits().images / 16, load_digits().target


def images(split: Split) -> np.ndarray:
    return split.x[torch.arange(len(split))].numpy()


def originals(task: Task) -> dict[str, list[int]]:
    """Which digit of scikit-learn each example is: found by its grey image, the darker channel of the two."""
    known = {np.float32(image).tobytes(): i for i, image in enumerate(GREY)}
    return {name: [known[x.tobytes()] for x in images(s).min(1)] for name, s in task.splits.items()}


def test_every_digit_is_used_once_with_its_class() -> None:
    task = load_task("digits")
    assert [len(split) for split in task.splits.values()] == [1000, 297, 500]
    index = originals(task)
    assert sorted(i for rows in index.values() for i in rows) == list(range(1797))
    for name, split in task.splits.items():
        assert np.array_equal(split.y.numpy(), TARGET[index[name]] >= 5)


def test_channels_by_hand() -> None:
    task = load_task("digits", strength=0.7)
    index = originals(task)["train"]
    for i, x, a in zip(index[:50], images(task.train), task.train.attribute.tolist(), strict=False):
        grey = GREY[i]
        raised = np.where(grey < 0.5, grey + 0.7 * (1 - 2 * grey), grey)
        np.testing.assert_allclose(x[a], raised, atol=1e-6)
        np.testing.assert_allclose(x[1 - a], grey, atol=1e-6)


@pytest.mark.parametrize("alignment", [0.5, 0.95, 1.0])
def test_alignment(alignment: float) -> None:
    task = load_task("digits", alignment=alignment)
    for split, wanted in ((task.train, alignment), (task.validation, alignment), (task.test, 0.5)):
        assert split is not None
        y, a = split.y.numpy(), split.attribute.numpy()
        for c in (0, 1):
            assert abs((a[y == c] == c).sum() - wanted * (y == c).sum()) <= 0.5


def test_values_are_those_of_an_image() -> None:
    for split in load_task("digits", strength=1.0).splits.values():
        x = images(split)
        assert x.dtype == np.float32
        assert x.shape[1:] == (2, 8, 8)
        assert 0 <= x.min() <= x.max() <= 1


def test_seed() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (load_task("digits", seed=seed) for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    for name in first.splits:
        assert np.array_equal(images(first.splits[name]), images(again.splits[name]))
        assert torch.equal(first.splits[name].attribute, again.splits[name].attribute)
    assert originals(first) != originals(other)


def test_the_strength_changes_nothing_else() -> None:
    weak, strong = (load_task("digits", strength=strength) for strength in (0.1, 1.0))
    assert originals(weak) == originals(strong)
    assert torch.equal(weak.train.attribute, strong.train.attribute)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 1500}, "1797 digits"),
        ({"n_train": 0}, "n_train=0"),
        ({"n_validation": 1790}, "n_validation"),
        ({"alignment": 2.0}, "alignment"),
        ({"strength": -1.0}, "strength"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_task("digits", **options)
