"""Clipping, member by member, against torch's own on separate models."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import clusters

from unrote.errors import OptionError
from unrote.models import ModuleStack, Stack, StackedLinear
from unrote.supervision import Supervision
from unrote.training import Order, Recipe, Supervised, train

X, Y = clusters(23, 3, 6)


@pytest.mark.parametrize("kind", ["tensors", "modules"])
@pytest.mark.parametrize("norm", [0.05, 0.5, 1e6])
def test_each_member_is_clipped_by_its_own_norm(kind: str, norm: float) -> None:
    stack: Stack = (
        StackedLinear(6, 3, (4, 5), dtype=torch.float64)
        if kind == "tensors"
        else ModuleStack(lambda: nn.Linear(6, 3).double(), 3, (4, 5))
    )
    weight = torch.ones(2, 23, dtype=torch.float64)
    weight[1, ::2] = 0  # so that their norms differ
    alone = [nn.Linear(6, 3).double() for _ in range(2)]
    for member, module in enumerate(alone):
        w, b = stack.head(member)
        module.load_state_dict({"weight": w, "bias": b})
    recipe = Recipe("sgd", 0.3, batch_size=8, epochs=2, clip_norm=norm)
    train(stack, X.double(), Supervised(Supervision(Y, weight)), recipe, seed=1)
    for member, module in enumerate(alone):
        update = torch.optim.SGD(module.parameters(), lr=0.3, momentum=0.9)
        for index in Order(23, 8, 1).minibatches(0, 6):
            rows = index[weight[member, index] > 0]
            update.zero_grad()
            F.cross_entropy(module(X.double()[rows]), Y[rows]).backward()
            nn.utils.clip_grad_norm_(module.parameters(), norm)
            update.step()
        w, b = stack.head(member)
        torch.testing.assert_close(w, module.weight.detach(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(b, module.bias.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("norm", [0.0, -1.0, float("inf"), float("nan"), "1", True])
def test_refuses_norms_to_which_nothing_can_be_clipped(norm: Any) -> None:
    with pytest.raises(OptionError, match="clip_norm"):
        Recipe(epochs=1, clip_norm=norm)


def test_recipes_without_what_came_later_are_described_as_before() -> None:
    """Checkpoints of earlier versions go on."""
    assert "clip_norm" not in Recipe(epochs=1).described()
    assert Recipe(epochs=1, clip_norm=0.5).described()["clip_norm"] == 0.5
    assert Recipe(**Recipe(epochs=1).described()) == Recipe(epochs=1)
