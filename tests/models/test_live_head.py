"""`live_head` gives the parameters themselves, `head` copies of them."""

import pytest
import torch
from torch import nn

from unrote.models import ModuleStack, Stack, StackedLinear, StackedMLP

STACKS = {
    "linear": lambda: StackedLinear(3, 2, (0, 1)),
    "linear, no bias": lambda: StackedLinear(3, 2, (0, 1), bias=False),
    "mlp": lambda: StackedMLP(3, 2, (0, 1), hidden=4),
    "module": lambda: ModuleStack(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), 2, (0, 1)
    ),
    "module, no bias": lambda: ModuleStack(lambda: nn.Linear(3, 2, bias=False), 2, (0, 1)),
}


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Stack:
    return STACKS[request.param]()


def test_logits_are_features_times_the_live_head(stack: Stack) -> None:
    features, logits = stack.features_and_logits(torch.randn(5, 3))
    for member in range(2):
        weight, bias = stack.live_head(member)
        found = features[member] @ weight.mT + (0 if bias is None else bias)
        torch.testing.assert_close(found, logits[member])


def test_what_is_written_to_it_is_the_models(stack: Stack) -> None:
    with torch.no_grad():
        stack.live_head(1)[0].zero_()
    assert stack.head(1)[0].abs().sum() == 0
    assert stack.head(0)[0].abs().sum() > 0


def test_gradients_reach_the_member_and_no_other(stack: Stack) -> None:
    stack.live_head(1)[0].sum().backward()
    touched = [p.grad for p in stack.parameters() if p.grad is not None]
    assert len(touched) == 1
    assert float(touched[0].sum()) == stack.head(1)[0].numel()


def test_copies_are_apart_and_a_bias_that_is_not_there_is_zero(stack: Stack) -> None:
    weight, bias = stack.head(0)
    assert not weight.requires_grad
    weight += 1.0
    bias += 1.0
    assert not torch.equal(stack.head(0)[0], weight)
    if stack.live_head(0)[1] is None:
        assert stack.head(0)[1].tolist() == [0.0, 0.0]
