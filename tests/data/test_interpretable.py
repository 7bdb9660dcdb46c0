import numpy as np
import pytest
import torch

from unrote.data import Task, load_task
from unrote.errors import OptionError


def columns(task: Task, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    part = task.splits[split]
    x = part.x[torch.arange(len(part))].double().numpy()
    return x, 2 * part.y.numpy() - 1, 2 * part.attribute.numpy() - 1


def test_shapes_and_names() -> None:
    task = load_task("interpretable", n_test=600)
    assert {name: (len(s), s.x.shape) for name, s in task.splits.items()} == {
        "train": (1000, (1800,)),
        "validation": (1000, (1800,)),
        "test": (600, (1800,)),
    }
    assert task.train.x[torch.tensor([0])].dtype == torch.float32
    assert task.class_names == task.attribute_names == ("-1", "+1")


@pytest.mark.parametrize(
    ("split", "groups"),
    [("train", [450, 50, 50, 450]), ("validation", [450, 50, 50, 450]), ("test", [250, 250, 250, 250])],
)
def test_group_sizes(split: str, groups: list[int]) -> None:
    task = load_task("interpretable", noise_dims=2)
    assert np.bincount(task.group(task.splits[split])).tolist() == groups


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_features_are_distributed_as_in_the_paper(split: str) -> None:
    x, y, a = columns(load_task("interpretable", sigma=0.5, n=2000, n_test=2000, noise_dims=100), split)
    core, spurious, noise = x[:, 0] - y, x[:, 1] / 5 - a, x[:, 2:]
    for residual, scale in ((core, 0.12), (spurious, 0.12), (noise, 0.5)):
        error = 5 * scale / np.sqrt(residual.size)  # five standard errors
        assert abs(residual.mean()) < error
        assert abs(residual.std() - scale) < error
    # independent of each other and of the labels
    everything = np.column_stack([core, spurious, noise[:, :3], y])
    correlation = np.corrcoef(everything, rowvar=False) - np.eye(6)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_options_reach_the_features() -> None:
    task = load_task(
        "interpretable", sigma=0.0, core_noise=0.0, spurious_scale=3.0, noise_dims=4, alignment=1.0
    )
    x, y, a = columns(task, "train")
    assert np.array_equal(a, y)
    assert np.array_equal(x, np.column_stack([y, 3.0 * y, np.zeros((1000, 4))]))


def test_splits_and_seeds_differ() -> None:
    task, again, other = (load_task("interpretable", n=50, seed=seed) for seed in (3, 3, 4))
    for name in task.splits:
        assert np.array_equal(columns(task, name)[0], columns(again, name)[0])
        assert not np.array_equal(columns(task, name)[0], columns(other, name)[0])
    assert not np.array_equal(columns(task, "train")[0], columns(task, "validation")[0])


def test_gradient_descent_does_what_the_paper_says() -> None:
    """Minority test accuracy of a linear model: about .15 with example features, 1 without (METHODS.md)."""
    minority = {}
    for sigma, learning_rate in ((0.0, 3e-2), (0.5, 1e-2)):
        task = load_task("interpretable", sigma=sigma)
        x, y, _ = columns(task, "train")
        inputs, sign = torch.from_numpy(x).float(), torch.from_numpy(y).float()
        w = torch.zeros(x.shape[1])  # difference of the two classes' weights, so its rate is doubled
        for _ in range(1000):
            w += 2 * learning_rate * (torch.sigmoid(-sign * (inputs @ w)) * sign) @ inputs / len(y)
        x, y, a = columns(task, "test")
        right = np.sign(x @ w.double().numpy()) == y
        minority[sigma] = right[a != y].mean()
        assert right[a == y].mean() > 0.99
    assert minority[0.0] > 0.99
    assert 0.05 < minority[0.5] < 0.25


@pytest.mark.parametrize(
    "options",
    [
        {"n": 2},
        {"n_test": 0},
        {"alignment": 1.5},
        {"test_alignment": -0.5},
        {"sigma": -1.0},
        {"sigma": float("nan")},
        {"noise_dims": -1},
        {"core_noise": -0.1},
        {"spurious_scale": float("inf")},
    ],
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="wanted"):
        load_task("interpretable", **options)
