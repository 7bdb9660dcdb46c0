"""The focal loss against its definition, its limit ERM, and its gradient at certainty."""

import numpy as np
import pytest
import torch
from imbalance import imbalanced_task, session_of
from toys import minority_accuracy

from unrote.errors import OptionError
from unrote.methods import METHODS
from unrote.methods.focal import Focal

LOGITS = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([[0, 1, 2, 2, 1, 0]])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_is_the_discounted_cross_entropy(gamma: float) -> None:
    f = LOGITS.numpy()
    p = (np.exp(f) / np.exp(f).sum(-1, keepdims=True))[:, np.arange(6), Y[0]]
    np.testing.assert_allclose(Focal(gamma).losses(LOGITS, Y), -((1 - p) ** gamma) * np.log(p))


def test_gamma_0_is_erm() -> None:
    found = Focal(0.0).fit(session_of(imbalanced_task())).stack.head()
    wanted = METHODS["erm"]().fit(session_of(imbalanced_task())).stack.head()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("lead", [1e3, 20.0, 0.0, -1e3])
def test_the_gradient_is_finite_however_certain_the_model(gamma: float, lead: float) -> None:
    logits = torch.tensor([[[lead, 0.0]]], requires_grad=True)
    Focal(gamma).losses(logits, torch.tensor([[0]])).sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    if lead == -1e3:  # a certain mistake counts as with cross-entropy: 1 - p is 1
        torch.testing.assert_close(logits.grad, torch.tensor([[[-1.0, 1.0]]]))


def test_refuses_a_gamma_below_0() -> None:
    with pytest.raises(OptionError, match=r"gamma=-0.1"):
        Focal(-0.1)


def test_the_minority_counts_more_than_with_erm() -> None:
    assert minority_accuracy("focal", 0) > minority_accuracy("erm", 0) + 0.03
