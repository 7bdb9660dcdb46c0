"""sigma-damp's loss against its definition, the margin it pulls examples to, and its effect on the minority."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from toys import minority_accuracy

from unrote.errors import OptionError
from unrote.methods.sigma_damp import SigmaDamp


def slope(margin: float, temperature: float = 1.0) -> float:
    """Derivative of the loss by the margin."""
    logits = torch.tensor([[[margin, 0.0]]], dtype=torch.float64, requires_grad=True)
    SigmaDamp(temperature).losses(logits, torch.tensor([[0]])).sum().backward()
    assert logits.grad is not None
    return float(logits.grad[0, 0, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_is_the_logistic_loss_of_damped_margins(temperature: float) -> None:
    f, sign = np.random.default_rng(0).normal(size=(2, 6)), np.array([1, -1, -1, 1, 1, -1])
    margin = sign * f
    damped = margin * (1 - 1 / (1 + np.exp(-margin / temperature)))
    logits = torch.from_numpy(np.stack([np.full_like(f, 7.0), f + 7.0], axis=-1))
    found = SigmaDamp(temperature).losses(logits, torch.from_numpy((sign + 1) // 2).unsqueeze(0))
    np.testing.assert_allclose(found, np.log(1 + np.exp(-damped)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_pulls_every_example_to_one_margin(temperature: float) -> None:
    best = temperature * brentq(lambda u: u / (1 + np.exp(-u)) - 1, 0, 5)  # where u * sigmoid(u) is 1
    assert best == pytest.approx(1.2785 * temperature, rel=1e-3)
    assert slope(best, temperature) == pytest.approx(0.0, abs=1e-9)
    for times in (-10.0, -2.0, 0.0, 0.9):  # up from below, even where the example is wrong by far
        assert slope(times * best, temperature) < -1e-3
    assert slope(1.1 * best, temperature) > 1e-3


def test_a_mistake_of_any_size_counts_as_with_cross_entropy() -> None:
    assert slope(-1e4) == pytest.approx(-1.0)
    assert np.isfinite(slope(1e4))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_temperature_out_of_range(temperature: float) -> None:
    with pytest.raises(OptionError, match=r"temperature=.* above 0"):
        SigmaDamp(temperature)


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("sigma_damp", 0) > minority_accuracy("erm", 0) + 0.2
