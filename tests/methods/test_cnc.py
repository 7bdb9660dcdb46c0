"""CnC: the contrast by loops, minibatches by hand, models without features, scouts without mistakes, a shortcut."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import assert_same_bits, minority_accuracy, planted_task, worst_on_digits

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.cnc import CnC, Contrasted, contrastive_loss, half_wrong
from unrote.methods.erm import ERM
from unrote.models import Stack, StackedLinear, StackedMLP
from unrote.supervision import Supervision
from unrote.training import Batch, Recipe

TASK = planted_task(64)
X, Y = TASK.train.x[torch.arange(64)], TASK.train.y


def session(hidden: bool = True, epochs: int = 10, rate: float = 0.03) -> Session:
    def build(seeds: Any) -> Stack:
        return StackedMLP(8, 2, seeds, hidden=6) if hidden else StackedLinear(8, 2, seeds)

    return Session(TASK.for_regime("none"), build, Recipe("adam", rate, batch_size=16, epochs=epochs), seed=1)


def contrast_by_hand(features: Tensor, y: Tensor, guess: Tensor, temperature: float) -> float:
    z = features.double().numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    found = []
    for i in range(len(y)):
        positive = [j for j in range(len(y)) if y[j] == y[i] and guess[j] != guess[i]]
        negative = [j for j in range(len(y)) if y[j] != y[i] and guess[j] == guess[i]]
        if positive and negative:
            e = {j: np.exp(z[i] @ z[j] / temperature) for j in positive + negative}
            found.append(np.mean([-np.log(e[p] / sum(e.values())) for p in positive]))
    return float(np.mean(found)) if found else 0.0


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_contrast_of_each_member_by_hand(temperature: float) -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 12, 5, generator=random)
    y, guess = (torch.randint(3, (12,), generator=random) for _ in range(2))
    found = contrastive_loss(features, y.unsqueeze(0), guess.unsqueeze(0), temperature)
    wanted = [contrast_by_hand(features[m], y, guess, temperature) for m in range(2)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)
    other = torch.stack([guess, guess.flip(0)])  # minibatches of their own
    found = contrastive_loss(features, torch.stack([y, y]), other, temperature)
    wanted = [contrast_by_hand(features[m], y, other[m], temperature) for m in range(2)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("y", "guess"), [([0, 1, 0, 1], [0, 1, 0, 1]), ([0, 0, 0, 0], [0, 1, 0, 1]), ([0, 1, 1, 0], [0] * 4)]
)
def test_nothing_to_contrast_is_zero_with_a_finite_slope(y: list[int], guess: list[int]) -> None:
    features = torch.randn(1, 4, 3).requires_grad_()
    loss = contrastive_loss(features, torch.tensor([y]), torch.tensor([guess]), 0.05)
    assert loss.tolist() == [0.0]
    loss.sum().backward()
    assert features.grad is not None
    assert not bool(features.grad.any())


def test_the_loss_is_the_weighted_sum() -> None:
    stack, guess = StackedMLP(8, 2, [0, 1], hidden=6), (X[:, 0] > 0).long()
    objective = Contrasted(Supervision(Y), guess, contrast=0.3, temperature=0.2)
    objective.prepare(stack, 64)
    index = torch.arange(10, 40)
    found = objective.loss(stack, Batch(index, X[index], 0, 0))
    features, logits = (v.detach() for v in stack.features_and_logits(X[index]))
    for m in range(2):
        plain = float(F.cross_entropy(logits[m], Y[index]))
        contrast = contrast_by_hand(features[m], Y[index], guess[index], 0.2)
        assert found[m].item() == pytest.approx(0.7 * plain + 0.3 * contrast, rel=1e-4)
    weighted = objective.with_weight((torch.arange(64) == 11).float())
    plain = float(F.cross_entropy(logits[0, 1:2], Y[11:12]))
    contrast = contrast_by_hand(features[0], Y[index], guess[index], 0.2)
    found = weighted.loss(stack, Batch(index, X[index], 0, 0))
    assert found[0].item() == pytest.approx(0.7 * plain + 0.3 * contrast, rel=1e-4)


def test_half_of_each_class_are_mistakes_and_classes_keep_their_shares() -> None:
    y = torch.tensor([0] * 6 + [1] * 3 + [2])
    wrong = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 0, 1]).bool()
    chance = half_wrong(y, wrong)
    assert chance[:6].tolist() == pytest.approx([3.0] + [0.6] * 5)
    assert chance[6:].tolist() == [1.0] * 4  # only one kind


def test_a_linear_model_has_no_contrast() -> None:
    one, other = (CnC(contrast=c).fit(session(hidden=False)) for c in (0.0, 0.75))
    assert_same_bits(one.stack.state_dict(), other.stack.state_dict())


@pytest.mark.usefixtures("gradients_derived")
def test_a_scout_without_mistakes_makes_erm_and_says_so() -> None:
    run = session(epochs=100)
    with pytest.warns(UserWarning, match="right about all 64 .* lower share=1 of CnC"):
        fitted = CnC(share=1.0).fit(run)
    assert_same_bits(fitted.stack.state_dict(), ERM().fit(run).stack.state_dict())


@pytest.mark.parametrize("settings", [{"contrast": 1.5}, {"contrast": -0.1}, {"temperature": 0.0}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        CnC(**settings)


def test_what_holds_in_every_group_is_learned_where_erm_learns_by_heart() -> None:
    for seed in (0, 1):
        assert minority_accuracy("cnc", seed) > minority_accuracy("erm", seed) + 0.15
    assert worst_on_digits("cnc") > worst_on_digits("erm") + 0.1
