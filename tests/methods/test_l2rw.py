"""L2RW: weights against the virtual step itself, balanced validation minibatches, the shortcut overcome."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import minority_accuracy, planted_task

from unrote.data import Split
from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.balance import equal_weights
from unrote.methods.l2rw import L2RW, LearnedWeights, learned_weights
from unrote.models import ModuleStack, Stack, StackedMLP
from unrote.seeding import generator
from unrote.training import Batch, Recipe

TASK = planted_task(64)
X, Y = TASK.train.x[torch.arange(64)].double(), TASK.train.y


def mlp(members: int = 1) -> StackedMLP:
    return StackedMLP(8, 2, range(members), hidden=5, dtype=torch.float64)


def objective(validation: Split, size: int = 16, importance: Tensor | None = None) -> LearnedWeights:
    chance = equal_weights(2 * validation.y + validation.attribute)
    return LearnedWeights(Y, validation, chance, size, 3, importance)


def batch(n: int = 12) -> Batch:
    return Batch(torch.arange(n), X[:n], step=5, epoch=0)


def drawn(validation: Split, size: int = 16, step: int = 5) -> Tensor:
    chance = equal_weights(2 * validation.y + validation.attribute)
    return torch.multinomial(chance, size, replacement=True, generator=generator(3, "l2rw", step))


def validation() -> Split:
    assert TASK.validation is not None
    return TASK.validation


def test_weights_are_the_slopes_of_the_validation_loss_in_a_virtual_step() -> None:
    """By finite differences of the step itself, in double precision."""
    stack, split = mlp(), validation()
    rows = drawn(split)
    start = {name: value.clone() for name, value in stack.named_parameters()}
    parameters = dict(stack.named_parameters())

    def validation_loss() -> Tensor:
        return F.cross_entropy(stack(split.x[rows].double())[0], split.y[rows])

    def after(epsilon: Tensor, rate: float = 0.1) -> float:
        losses = F.cross_entropy(stack(X[:12])[0], Y[:12], reduction="none")
        grads = torch.autograd.grad((epsilon * losses).sum(), list(parameters.values()))
        with torch.no_grad():
            for value, grad in zip(parameters.values(), grads, strict=True):
                value -= rate * grad
            found = float(validation_loss())
            for name, value in parameters.items():
                value.copy_(start[name])
        return found

    h = 1e-4
    slopes = [(after(h * row) - after(-h * row)) / (2 * h) for row in torch.eye(12, dtype=torch.float64)]
    losses = F.cross_entropy(stack(X[:12])[0], Y[:12], reduction="none").unsqueeze(0)
    weight = learned_weights(losses, validation_loss(), list(parameters.values()))[0].numpy()
    wanted = np.maximum(0, -np.array(slopes)) / 0.1
    assert 2 < (wanted > 0).sum() < 12
    np.testing.assert_allclose(weight, wanted, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("members", [1, 2])
def test_the_loss_is_the_weighted_mean_and_its_slope_takes_the_weights_as_given(members: int) -> None:
    stack, split = mlp(members), validation()
    made = objective(split)
    made.prepare(stack, 64)
    loss = made.loss(stack, batch())
    loss.sum().backward()
    rows = drawn(split)
    for member in range(members):
        alone = stack.select([member])
        losses = F.cross_entropy(alone(X[:12])[0], Y[:12], reduction="none")
        wanted = F.cross_entropy(alone(split.x[rows].double())[0], split.y[rows])
        weight = learned_weights(losses.unsqueeze(0), wanted, list(alone.parameters()))[0]
        mean = (weight / weight.sum() * losses).sum()
        mean.backward()
        torch.testing.assert_close(loss[member], mean)
        assert stack.weight.grad is not None
        torch.testing.assert_close(stack.weight.grad[member], alone.get_parameter("weight").grad[0])  # type: ignore[index]


def test_a_minibatch_that_only_harms_teaches_nothing() -> None:
    """All examples are equal, and validation says the opposite of training."""
    x, y = torch.ones(64, 8), torch.zeros(64, dtype=torch.long)
    made = LearnedWeights(y, Split(x, 1 - y, y), torch.ones(64), 16, 3)
    stack = mlp()
    made.prepare(stack, 64)
    loss = made.loss(stack, Batch(torch.arange(12), x[:12].double(), 0, 0))
    assert loss.tolist() == [0.0]
    loss.sum().backward()
    assert all(not bool(p.grad.any()) for p in stack.parameters() if p.grad is not None)


def test_groups_are_equally_likely_in_validation_minibatches() -> None:
    split = validation()
    group = torch.cat([(2 * split.y + split.attribute)[drawn(split, 256, step)] for step in range(4)])
    share = torch.bincount(group).double() / len(group)
    assert torch.bincount(2 * split.y + split.attribute).tolist() == [28, 4, 4, 28]
    np.testing.assert_allclose(share.numpy(), 0.25, atol=0.05)


def test_sample_weights_multiply() -> None:
    importance = torch.zeros(64, dtype=torch.float64)
    importance[[0, 1]] = 1.0
    stack, split = mlp(), validation()
    pair = Batch(torch.tensor([0, 1]), X[:2], 5, 0)
    plain, weighted = objective(split), objective(split).with_weight(importance)
    for made in (plain, weighted):
        made.prepare(stack, 64)
    torch.testing.assert_close(weighted.loss(stack, batch()), plain.loss(stack, pair))


def test_what_batch_normalisation_keeps_is_training_alone() -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()

    stacks = [ModuleStack(factory, 2, [0]).train() for _ in range(2)]
    made = objective(validation())
    made.prepare(stacks[0], 64)
    made.validation = Split(validation().x[torch.arange(64)].double(), validation().y, validation().attribute)
    assert bool(torch.isfinite(made.loss(stacks[0], batch())).all())
    assert stacks[0].training
    stacks[1](X[:12])
    for one, other in zip(stacks[0].buffers(), stacks[1].buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("shapes_unchecked")
def test_refuses_an_empty_validation_minibatch() -> None:
    with pytest.raises(OptionError, match="validation_size"):
        L2RW(validation_size=0)


def test_trains_convolutions() -> None:
    def build(seeds: Any) -> Stack:
        return ModuleStack(
            lambda: nn.Sequential(
                nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 2)
            ),
            2,
            seeds,
        )

    fitted = L2RW(validation_size=8).fit(
        Session(TASK.for_regime("val"), build, Recipe("adam", 0.01, batch_size=16, epochs=1))
    )
    assert bool(torch.isfinite(fitted.logits(TASK.train.x)).all())


def test_what_holds_in_every_group_is_learned_where_erm_learns_by_heart() -> None:
    for seed in (0, 1):
        assert minority_accuracy("l2rw", seed) > minority_accuracy("erm", seed) + 0.5
