import numpy as np
import pytest
import torch

from unrote.figures import FIGURES, FigureResult
from unrote.figures.regression import target


@pytest.fixture(scope="module")
def result() -> FigureResult:
    return FIGURES["3"].draw(fast=True)


def test_claims_hold(result: FigureResult) -> None:
    assert all(claim.holds for claim in result.claims), result.claims


def test_error_is_that_of_the_curve_drawn(result: FigureResult) -> None:
    for run in result.numbers["runs"]:
        x, predicted = np.array(run["grid"]), np.array(run["predicted"])
        inner = np.abs(x) <= 1.2
        truth = np.tanh(x) + 0.5 * np.tanh(-5 * x)
        assert run["error"] == pytest.approx(np.sqrt(np.mean((predicted - truth)[inner] ** 2)), rel=0.01)


def test_ugly_passes_through_every_label_and_good_does_not(result: FigureResult) -> None:
    def off(run: dict[str, list[float]]) -> float:
        return float(np.abs(np.interp(run["x"], run["grid"], run["predicted"]) - run["labels"]).max())

    good, bad, ugly = result.numbers["runs"]
    assert off(ugly) < 0.04 < min(off(good), off(bad))


def test_examples_are_the_same_in_all_three(result: FigureResult) -> None:
    good, bad, ugly = result.numbers["runs"]
    assert good["labels"] == bad["labels"] == ugly["labels"]


def test_target_is_odd() -> None:
    x = torch.linspace(-1, 1, 9)
    torch.testing.assert_close(target(-x), -target(x))
