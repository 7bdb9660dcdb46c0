"""EIIL's split against the paper's ascent by autograd, every split there is, and a planted shortcut."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from unrote.errors import DataError
from unrote.heldout import infer_environments
from unrote.heldout.eiil import slopes


def penalty(share: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    """IRM's penalty over the two environments, by differentiating the loss of each with respect to w."""
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = F.cross_entropy(w * logits, y, reduction="none")
    risks = [(part * losses).sum() / len(y) for part in (share, 1 - share)]
    total = torch.zeros((), dtype=torch.float64)
    for risk in risks:
        (slope,) = torch.autograd.grad(risk, w, create_graph=True)
        total = total + slope**2
    return total


def drawn(seed: int, n: int, n_classes: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(n_classes, (n,), generator=random)
    return 2 * torch.randn(n, n_classes, generator=random, dtype=torch.float64), y


@pytest.mark.parametrize("n_classes", [2, 4])
def test_is_where_the_papers_ascent_ends(n_classes: int) -> None:
    """Adam over a soft split from a random start; which environment is which is left to chance there."""
    logits, y = drawn(0, 40, n_classes)
    score = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([score], lr=0.02)
    for _ in range(600):
        optimizer.zero_grad()
        (-penalty(score.sigmoid(), logits, y)).backward()
        optimizer.step()
    ascended = (score.detach().sigmoid() > 0.5).long()
    found = infer_environments(logits, y)
    assert 5 < int(found.sum()) < 35
    assert torch.equal(found, ascended) or torch.equal(found, 1 - ascended)


@pytest.mark.filterwarnings("ignore:EIIL puts all")
@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 4))
def test_no_split_has_a_larger_penalty(seed: int, n_classes: int) -> None:
    logits, y = drawn(seed, 5, n_classes)
    found = penalty(infer_environments(logits, y).double(), logits, y).detach()
    for split in itertools.product((0.0, 1.0), repeat=5):
        other = penalty(torch.tensor(split, dtype=torch.float64), logits, y).detach()
        assert float(other) <= float(found) * (1 + 1e-9) + 1e-15


@given(st.integers(0, 2**32), st.integers(2, 4))
def test_slopes_are_those_of_autograd(seed: int, n_classes: int) -> None:
    logits, y = drawn(seed, 5, n_classes)
    for i in range(5):
        w = torch.ones((), dtype=torch.float64, requires_grad=True)
        (wanted,) = torch.autograd.grad(F.cross_entropy(w * logits[i : i + 1], y[i : i + 1]), w)
        assert float(slopes(logits, y)[i]) == pytest.approx(float(wanted), rel=1e-9, abs=1e-12)


def test_with_two_classes_environment_1_holds_the_mistakes() -> None:
    logits, y = drawn(3, 50, 2)
    assert torch.equal(infer_environments(logits, y), (logits.argmax(1) != y).long())


def test_with_more_classes_a_wrong_answer_may_be_better_than_expected() -> None:
    """The expected logit is about 0.77 and 0.95: below and above the label's own 0.9."""
    logits = torch.tensor([[1.0, 0.9, 0.0], [1.0, 0.9, -9.0]])
    assert infer_environments(logits, torch.tensor([1, 1])).tolist() == [0, 1]


def test_planted_shortcut() -> None:
    """A reference that goes by the attribute alone puts its exceptions into environment 1."""
    random = np.random.default_rng(0)
    y = torch.from_numpy(random.integers(2, size=400))
    attribute = torch.where(torch.from_numpy(random.random(400) < 0.9), y, 1 - y)
    logits = 3.0 * F.one_hot(attribute, 2) + 0.1 * torch.from_numpy(random.normal(size=(400, 2)))
    assert torch.equal(infer_environments(logits, y), (attribute != y).long())


def test_sure_predictions_keep_their_sign() -> None:
    """In single precision, and with logits so large that their exponentials overflow."""
    logits = torch.tensor([[400.0, -400.0], [-400.0, 400.0], [1e4, -1e4]])
    assert infer_environments(logits, torch.tensor([0, 0, 1])).tolist() == [0, 1, 1]


@pytest.mark.parametrize(("sign", "environment"), [(1.0, 0), (-1.0, 1)])
def test_a_reference_that_fits_all_alike_is_said_to(sign: float, environment: int) -> None:
    y = torch.tensor([0, 1, 1])
    with pytest.warns(UserWarning, match=f"all 3 examples into environment {environment}.*groups='xrm'"):
        assert infer_environments(sign * F.one_hot(y, 2).float(), y).tolist() == [environment] * 3


@pytest.mark.filterwarnings("ignore:EIIL puts all")
def test_logits_that_are_all_equal_have_no_slope() -> None:
    assert infer_environments(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])).tolist() == [0] * 4


def test_a_diverged_reference_is_refused() -> None:
    with pytest.raises(DataError, match="lower its learning rate"):
        infer_environments(torch.tensor([[0.0, float("nan")]]), torch.tensor([0]))
