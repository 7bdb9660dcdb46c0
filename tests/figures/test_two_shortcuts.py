import pytest
import torch

from unrote.figures import FIGURES
from unrote.figures.two_shortcuts import _rows, two_shortcuts


def test_claims_hold() -> None:
    result = FIGURES["two-shortcuts"].draw(fast=True)
    assert all(claim.holds for claim in result.claims), result.claims


def test_each_shortcut_holds_for_nine_in_ten_and_half_in_the_test() -> None:
    task = two_shortcuts(400, 5, seed=0)
    x = task.train.x[torch.arange(400)]
    y = 2.0 * task.train.y - 1
    for column in (1, 2):
        assert float((x[:, column] * y > 0).float().mean()) == pytest.approx(0.9, abs=0.01)
    assert task.test is not None
    shares = [float(rows.float().mean()) for rows in _rows(task.test)]
    assert sum(shares) == pytest.approx(1.0)
    assert all(share == pytest.approx(0.25, abs=0.03) for share in shares)


def test_cases_say_which_shortcut_fails() -> None:
    task = two_shortcuts(400, 5, seed=0)
    x, y = task.train.x[torch.arange(400)], 2.0 * task.train.y - 1
    both, large, small, neither = _rows(task.train)
    assert bool(((x[large, 1] * y[large] < 0) & (x[large, 2] * y[large] > 0)).all())
    assert bool(((x[small, 1] * y[small] > 0) & (x[small, 2] * y[small] < 0)).all())
    assert bool((x[both, 1] * y[both] > 0).all())
    assert bool((x[neither, 2] * y[neither] < 0).all())
