import pytest
import torch

from unrote.figures import FIGURES
from unrote.figures.core_noise import noisy_core


def test_claims_hold() -> None:
    result = FIGURES["noise"].draw(fast=True)
    assert all(claim.holds for claim in result.claims), result.claims


@pytest.mark.parametrize(("place", "width"), [("appended", 52), ("one", 2), ("spread", 51)])
def test_core_and_spurious_feature_are_where_they_should_be(place: str, width: int) -> None:
    train = noisy_core(place, 0.5, 400, 50, seed=0).train
    x = train.x[torch.arange(400)]
    assert x.shape == (400, width)
    y, a = 2.0 * train.y - 1, 2.0 * train.attribute - 1
    # the core feature, read along its own direction, has length 1 and the noise it was given
    core = x[:, :-1].sum(1) / 50**0.5 if place == "spread" else x[:, 0]
    expected = (0.12**2 + (0 if place == "appended" else 0.5**2)) ** 0.5
    assert float((core * y).mean()) == pytest.approx(1.0, abs=0.1)
    assert float((core * y).std()) == pytest.approx(expected, rel=0.15)
    torch.testing.assert_close(x[:, -1] / 5, a, atol=0.6, rtol=0)
