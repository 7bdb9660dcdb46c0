"""Spectral decoupling's loss against its definition, its limit ERM, and its effect on the minority."""

import numpy as np
import pytest
import torch
from imbalance import imbalanced_task, session_of
from toys import minority_accuracy

from unrote.errors import OptionError
from unrote.methods import METHODS
from unrote.methods.spectral_decoupling import SpectralDecoupling


def test_is_cross_entropy_and_half_the_squared_logits() -> None:
    f, y = np.random.default_rng(0).normal(size=(2, 6, 3)), np.array([0, 1, 2, 2, 1, 0])
    entropy = np.log(np.exp(f).sum(-1)) - f[:, np.arange(6), y]
    wanted = entropy + 0.3 / 2 * (f**2).sum(-1)
    found = SpectralDecoupling(0.3).losses(torch.from_numpy(f), torch.from_numpy(y).unsqueeze(0))
    np.testing.assert_allclose(found, wanted)


def test_penalty_0_is_erm() -> None:
    found = SpectralDecoupling(0.0).fit(session_of(imbalanced_task())).stack.head()
    wanted = METHODS["erm"]().fit(session_of(imbalanced_task())).stack.head()
    torch.testing.assert_close(found, wanted)


def test_examples_that_are_all_the_same_have_one_best_logit() -> None:
    """Where the pull 1 - p of a growing margin m meets the penalty's: with logits (m, -m)/2, m * penalty / 2."""
    logits = torch.zeros(1, 4, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=4.0)
    for _ in range(500):
        optimizer.zero_grad()
        SpectralDecoupling(0.2).losses(logits, torch.zeros(1, 4, dtype=torch.long)).sum().backward()
        optimizer.step()
    margin = (logits[0, :, 0] - logits[0, :, 1]).detach()
    torch.testing.assert_close(torch.sigmoid(-margin), 0.2 / 2 * margin)


def test_refuses_a_penalty_below_0() -> None:
    with pytest.raises(OptionError, match="penalty=-1"):
        SpectralDecoupling(-1)


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("spectral_decoupling", 0) > minority_accuracy("erm", 0) + 0.2
