"""MARG-LOG's loss against the paper's for one output, its limit ERM, and its effect on the minority."""

import numpy as np
import pytest
import torch
from imbalance import imbalanced_task, session_of
from toys import minority_accuracy

from unrote.errors import OptionError
from unrote.methods import METHODS
from unrote.methods.marg_log import MargLog


def test_of_two_classes_is_the_papers_for_one_output() -> None:
    f, sign = np.random.default_rng(0).normal(size=(2, 6)), np.array([1, -1, -1, 1, 1, -1])
    wanted = np.log(1 + np.exp(-sign * f)) + 0.3 * np.log(1 + f**2)
    logits = torch.from_numpy(np.stack([np.full_like(f, 7.0), f + 7.0], axis=-1))  # a constant is not seen
    found = MargLog(0.3).losses(logits, torch.from_numpy((sign + 1) // 2).unsqueeze(0))
    np.testing.assert_allclose(found, wanted)


def test_of_three_classes_penalises_the_log_odds() -> None:
    logits = torch.tensor([[[2.0, 1.0, 0.0]]], dtype=torch.float64)
    p = np.exp(1) / np.exp([2, 1, 0]).sum()
    wanted = -np.log(p) + 0.3 * np.log(1 + np.log(p / (1 - p)) ** 2)
    assert float(MargLog(0.3).losses(logits, torch.tensor([[1]]))) == pytest.approx(wanted)


def test_penalty_0_is_erm() -> None:
    found = MargLog(0.0).fit(session_of(imbalanced_task())).stack.head()
    wanted = METHODS["erm"]().fit(session_of(imbalanced_task())).stack.head()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lead", [1e4, -1e4])
def test_margins_of_any_size_are_harmless(lead: float) -> None:
    logits = torch.tensor([[[lead, 0.0]]], requires_grad=True)
    loss = MargLog(0.1).losses(logits, torch.tensor([[0]]))
    loss.sum().backward()
    assert bool(loss.isfinite().all())
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_refuses_a_penalty_below_0() -> None:
    with pytest.raises(OptionError, match="penalty=-1"):
        MargLog(-1)


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("marg_log", 0) > minority_accuracy("erm", 0) + 0.2
