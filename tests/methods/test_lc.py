"""LC: the moving joint against a loop, the corrected and mixed loss by hand, and the shortcut overcome."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import worst_on_digits

from unrote.api import fit
from unrote.data import load_task
from unrote.errors import OptionError
from unrote.methods.lc import LC, CorrectedObjective
from unrote.models import ModuleStack, Stack, StackedLinear
from unrote.training import Batch

RANDOM = torch.Generator().manual_seed(0)
Y = torch.tensor([0, 1, 0, 1, 2, 0, 1, 0])
X = torch.randn(8, 4, generator=RANDOM)


def objective(settings: LC, total: int = 100) -> CorrectedObjective:
    return CorrectedObjective(Y, 3, settings, total, 7)


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def test_joint_is_a_moving_average_per_class() -> None:
    """The first minibatch has no class 2, which then starts with its own first mean."""
    settings = LC(memory=0.8, temperature=0.5)
    found = objective(settings)
    wanted: dict[int, np.ndarray] = {}
    for index in (torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 7]), torch.tensor([6, 4])):
        logits = torch.randn(len(index), 3, generator=RANDOM)
        found.remember(index, logits)
        p = softmax(logits.double().numpy() / 0.5)
        for label in set(Y[index].tolist()):
            mean = p[(Y[index] == label).numpy()].mean(0)
            wanted[label] = 0.8 * wanted[label] + 0.2 * mean if label in wanted else mean
        assert torch.equal(found.guess[index], logits.argmax(1))
    np.testing.assert_allclose(found.said, np.stack([wanted[label] for label in range(3)]), rtol=1e-5)


def corrected_loss(
    stack: Stack, index: Tensor, joint: np.ndarray, partner: list[int], share: list[float]
) -> tuple[float, float]:
    """Both losses with q = 0.7, example by example."""
    biased, debiased = 0.0, 0.0
    weights = [tuple(part.double().numpy() for part in stack.head(member)) for member in range(2)]

    def logits(member: int, x: Tensor) -> np.ndarray:
        weight, bias = weights[member]
        result: np.ndarray = weight @ x.double().numpy() + bias
        return result

    for place, i in enumerate(index.tolist()):
        j, s, y = int(index[partner[place]]), share[place], int(Y[i])
        biased += (1 - softmax(logits(0, X[i]))[y] ** 0.7) / 0.7
        guesses = [int(logits(0, X[k]).argmax()) for k in (i, j)]
        shift = np.log(s * joint[:, guesses[0]] + (1 - s) * joint[:, guesses[1]] + 1e-6)
        debiased -= np.log(softmax(logits(1, s * X[i] + (1 - s) * X[j]) + shift)[y])
    return biased / len(index), debiased / len(index)


@pytest.mark.parametrize("mixing", [0.0, 0.4])
def test_loss_by_hand(mixing: float) -> None:
    """On the first minibatch the moving average is its mean; of all examples, so that no class is missing."""
    stack, index = StackedLinear(4, 3, (0, 1)), torch.tensor([3, 0, 6, 2, 4, 7, 1, 5])
    found = objective(LC(mixing=mixing, temperature=0.5))
    found.prepare(stack, 8)
    found.guess = stack(X)[0].argmax(-1)  # as an earlier step would have left it
    batch = Batch(index, X[index], 79, 0)
    partner, share = found.mixture(batch, 0.8) if mixing else (torch.arange(8), torch.ones(8))
    losses = found.loss(stack, batch)
    p = softmax(stack(X)[0].detach().double().numpy() / 0.5)
    joint = np.stack([p[(label == Y).numpy()].sum(0) / 8 for label in range(3)])
    wanted = corrected_loss(stack, index, joint, partner.tolist(), share.tolist())
    np.testing.assert_allclose(losses.detach(), wanted, rtol=1e-5)
    assert bool((share < 1).all()) == bool(mixing)


def test_partners_are_exceptions_of_the_same_class_and_shares_are_in_range() -> None:
    found = objective(LC(mixing=0.3))
    found.guess = torch.tensor([0, 2, 1, 1, 2, 2, 1, 0])  # exceptions: 1 of class 1; 2 and 5 of class 0
    seen = set()
    for step in range(60):
        partner, share = found.mixture(Batch(torch.arange(8), X, step, 0), 0.75)
        seen |= {(i, j) for i, j in enumerate(partner.tolist())}
        t = 0.3 * math.exp(-5 * 0.25**2)
        assert 1 - 2 * t <= float(share.min())
        assert float(share.max()) <= 1 - t
    # class 2 has no exception, so its example stays as it is
    assert seen == {(i, j) for i in (0, 2, 5, 7) for j in (2, 5)} | {(1, 1), (3, 1), (6, 1), (4, 4)}


def test_nothing_is_mixed_in_the_first_half() -> None:
    stack, index = StackedLinear(4, 3, (0, 1)), torch.arange(8)
    losses = []
    for mixing in (0.0, 0.5):
        found = objective(LC(mixing=mixing))
        found.prepare(stack, 8)
        found.guess = (Y + 1) % 3
        losses.append(found.loss(stack, Batch(index, X, 49, 0)))  # step 50 of 100
    assert torch.equal(*losses)


def test_the_biased_model_learns_nothing_from_the_debiased_ones_loss() -> None:
    stack = StackedLinear(4, 3, (0, 1))
    found = objective(LC())
    found.prepare(stack, 8)
    found.loss(stack, Batch(torch.arange(8), X, 0, 0))[1].backward()
    assert stack.weight.grad is not None
    assert not stack.weight.grad[0].any()


def test_token_indices_are_mixed_in_the_last_features() -> None:
    tokens = torch.randint(9, (8, 3), generator=RANDOM)
    stack = ModuleStack(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3)), 3, (0, 1))
    found = objective(LC(mixing=0.5))
    found.prepare(stack, 8)
    found.guess = (Y + 1) % 3
    assert bool(torch.isfinite(found.loss(stack, Batch(torch.arange(8), tokens, 99, 0))).all())


def test_the_reverse_of_the_shortcut_is_said_to_be_learned() -> None:
    """With the published mixing, on a task of two classes with an easy shortcut."""
    with pytest.warns(UserWarning, match="lower LC's mixing, now 0.5"):
        fit(load_task("digits"), "lc", mixing=0.5)


@pytest.mark.parametrize("settings", [{"q": 0.0}, {"temperature": 0.0}, {"memory": 1.0}, {"mixing": 0.6}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        LC(**settings)


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("lc") > worst_on_digits("erm") + 0.2
