import pytest
import torch

from unrote.figures import FIGURES, FigureResult
from unrote.figures.trajectories import _RATE, follow, two_features
from unrote.methods import METHODS, Session
from unrote.models import StackedLinear
from unrote.training import Recipe


@pytest.fixture(scope="module")
def result() -> FigureResult:
    return FIGURES["5"].draw(fast=True)


def test_claims_hold(result: FigureResult) -> None:
    assert all(claim.holds for claim in result.claims), result.claims


@pytest.mark.parametrize("method", ["erm", "rwg", "group_shift"])
def test_path_is_that_of_the_training_loop(method: str) -> None:
    task = two_features(0)
    session = Session(
        task=task.for_regime("train"),
        build=lambda seeds: StackedLinear(2, 2, seeds, bias=False, init="zeros"),
        recipe=Recipe("sgd", _RATE, momentum=0.0, steps=40, batch_size=None),
    )
    made = METHODS[method]()
    weight = made.fit(session).stack.snapshot()["weight"][0]
    (found,) = follow(task.train, made.supervision(session), [40])
    assert found == pytest.approx((weight[1] - weight[0]).tolist(), rel=1e-3, abs=1e-4)


def test_largest_margin_separates_and_is_no_worse_than_any_direction(result: FigureResult) -> None:
    train = two_features(0).train
    z = train.x[torch.arange(len(train))] * (2.0 * train.y - 1).unsqueeze(1)
    degrees = torch.arange(-90, 90, 0.05)
    every = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()])
    best = degrees[(z @ every).min(0).values.argmax()]
    assert result.numbers["largest_margin_degrees"] == pytest.approx(float(best), abs=0.1)
