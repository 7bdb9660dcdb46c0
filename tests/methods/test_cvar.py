"""CVaR against the linear programme that defines it, its limits, and its effect on the minority."""

import numpy as np
import pytest
import torch
from imbalance import imbalanced_task, session_of
from scipy.optimize import linprog
from toys import minority_accuracy

from unrote.errors import OptionError
from unrote.methods import METHODS
from unrote.methods.cvar import CVaR

LOGITS = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([[0, 1, 2, 2, 1, 0, 1]])


def risk(alpha: float, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Each member's loss on a minibatch of all examples."""
    method = CVaR(alpha)
    return method.reduce(method.losses(LOGITS, Y), weight)


def losses() -> np.ndarray:
    """Cross-entropy of each member on each example."""
    f = LOGITS.numpy()
    return (np.log(np.exp(f).sum(-1)) - f[:, np.arange(7), Y[0]]).astype(float)


@pytest.mark.parametrize("alpha", [0.2, 0.3, 3 / 7, 0.5, 0.99])
def test_is_the_largest_mean_over_weights_of_at_most_one_over_alpha_n(alpha: float) -> None:
    wanted = [
        -linprog(-member, A_eq=np.ones((1, 7)), b_eq=[1], bounds=[(0, 1 / (alpha * 7))] * 7).fun
        for member in losses()
    ]
    np.testing.assert_allclose(risk(alpha), wanted, rtol=1e-9)


def test_a_share_of_less_than_one_example_is_the_largest_loss() -> None:
    np.testing.assert_allclose(risk(0.01), losses().max(1))


def test_sample_weights_count_as_copies() -> None:
    copies = torch.tensor([1, 3, 2, 1, 1, 2, 4])
    repeated = torch.from_numpy(losses()).repeat_interleave(copies, dim=1)
    torch.testing.assert_close(risk(0.4, copies.double()), CVaR(0.4).reduce(repeated, None))
    assert risk(0.4, torch.zeros(7)).tolist() == [0.0, 0.0]


def test_equal_losses_give_that_loss() -> None:
    torch.testing.assert_close(CVaR(0.3).reduce(torch.full((1, 7), 0.7), None), torch.tensor([0.7]))


def test_alpha_1_is_erm() -> None:
    np.testing.assert_allclose(risk(1.0), losses().mean(1))
    found = CVaR(1.0).fit(session_of(imbalanced_task())).stack.head()
    wanted = METHODS["erm"]().fit(session_of(imbalanced_task())).stack.head()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.1, float("nan")])
def test_refuses_an_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(OptionError, match=r"alpha=.* above 0 and at most 1"):
        CVaR(alpha)


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("cvar", 0) > minority_accuracy("erm", 0) + 0.2
