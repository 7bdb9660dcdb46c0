"""What the library is for, on real pictures: without group labels MAT does what reweighting does with them."""

from pathlib import Path
from statistics import fmean

import pytest

from unrote import evaluate, fit, load_task

pytestmark = pytest.mark.usefixtures(
    "shapes_unchecked"
)  # thousands of steps, of which other tests check every shape

FASHION = Path("/usr/share/datasets/fashion-mnist")


def worst_group(task_name: str, method: str, seed: int, **options: object) -> float:
    task = load_task(task_name, seed=seed)
    accuracy = evaluate(fit(task, method, seed=seed, **options), task).worst_group.accuracy
    assert accuracy is not None
    return accuracy


def test_digits() -> None:
    seeds = range(3)
    erm, rwg = (fmean(worst_group("digits", m, seed) for seed in seeds) for m in ("erm", "rwg"))
    # without the look for a shortcut, which takes most of the time; with it: cli/test_demo.py
    mat = fmean(worst_group("digits", "mat", seed, temperature=0.1) for seed in seeds)
    assert mat > erm + 0.25
    assert mat >= rwg


@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion() -> None:
    mat = worst_group("fashion", "mat", 0, temperature=0.1)  # "auto" would train ten networks more
    assert mat > worst_group("fashion", "erm", 0) + 0.3
