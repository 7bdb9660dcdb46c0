"""Linear heads and small MLPs on features in memory: one matrix product per layer for all members."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from unrote.models.stack import TensorStack
from unrote.seeding import generator

Init = Literal["uniform", "zeros"]


def _parameters(
    seeds: Sequence[int], layer: str, fan_in: int, fan_out: int, init: Init, dtype: torch.dtype
) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight (S, out, in) and bias (S, out), each member initialised as `torch.nn.Linear` is, by its seed."""
    weight, bias = (
        torch.zeros(len(seeds), fan_out, fan_in, dtype=dtype),
        torch.zeros(len(seeds), fan_out, dtype=dtype),
    )
    if init == "uniform":
        bound = 1 / math.sqrt(fan_in)
        for member, seed in enumerate(seeds):
            random = generator(seed, "init", layer)
            weight[member].uniform_(-bound, bound, generator=random)
            bias[member].uniform_(-bound, bound, generator=random)
    return nn.Parameter(weight), nn.Parameter(bias)


def _shared_product(x: Float[Tensor, "B d"], weight: Float[Tensor, "S o d"]) -> Float[Tensor, "S B o"]:
    """X times every member's weight, as one matrix product over all members."""
    members, out, _ = weight.shape
    product: Tensor = F.linear(x, weight.reshape(members * out, -1))
    return product.view(len(x), members, out).transpose(0, 1)


class StackedLinear(TensorStack):
    """S linear softmax heads.

    Args:
        n_features: d; examples of more dimensions are flattened.
        n_classes: C.
        seeds: one per member.
        bias: whether the heads have a bias.
        init: "uniform" as `torch.nn.Linear`, or "zeros".
        dtype: of the parameters.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        seeds: Sequence[int] = (0,),
        *,
        bias: bool = True,
        init: Init = "uniform",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(seeds, n_classes)
        self.weight, offset = _parameters(seeds, "head", n_features, n_classes, init, dtype)
        self.register_parameter("bias", offset if bias else None)

    @property
    def learns_features(self) -> bool:
        """See `Stack.learns_features`."""
        return False

    def features_and_logits(
        self, x: Tensor, *, per_member: bool = False
    ) -> tuple[Float[Tensor, "S B F"], Float[Tensor, "S B C"]]:
        """See `Stack.features_and_logits`; the features are the examples themselves."""
        logits = self(x, per_member=per_member)
        features = x.flatten(2 if per_member else 1).to(self.weight.dtype)
        return features.expand(self.n_members, *features.shape[-2:]), logits

    def forward(
        self, x: Tensor, where: Bool[Tensor, "*S B"] | None = None, *, per_member: bool = False
    ) -> Float[Tensor, "S B C"]:
        """See `Stack.forward`; all logits are computed, it costs nothing more."""
        x = x.flatten(2 if per_member else 1).to(self.weight.dtype)
        logits = x @ self.weight.mT if per_member else _shared_product(x, self.weight)
        return logits if self.bias is None else logits + self.bias.unsqueeze(1)


class StackedMLP(TensorStack):
    """S perceptrons with one hidden layer of rectified linear units.

    Args:
        n_features: d; examples of more dimensions are flattened.
        n_classes: C.
        seeds: one per member.
        hidden: width of the hidden layer.
        dtype: of the parameters.
    """

    bias: nn.Parameter

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        seeds: Sequence[int] = (0,),
        *,
        hidden: int = 256,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(seeds, n_classes)
        self.hidden_weight, self.hidden_bias = _parameters(
            seeds, "hidden", n_features, hidden, "uniform", dtype
        )
        self.weight, self.bias = _parameters(seeds, "head", hidden, n_classes, "uniform", dtype)

    def features_and_logits(
        self, x: Tensor, *, per_member: bool = False
    ) -> tuple[Float[Tensor, "S B F"], Float[Tensor, "S B C"]]:
        """See `Stack.features_and_logits`; the features are the hidden activations."""
        x = x.flatten(2 if per_member else 1).to(self.weight.dtype)
        hidden = x @ self.hidden_weight.mT if per_member else _shared_product(x, self.hidden_weight)
        features = torch.relu(hidden + self.hidden_bias.unsqueeze(1))
        return features, torch.baddbmm(self.bias.unsqueeze(1), features, self.weight.mT)

    def forward(
        self, x: Tensor, where: Bool[Tensor, "*S B"] | None = None, *, per_member: bool = False
    ) -> Float[Tensor, "S B C"]:
        """See `Stack.forward`; all logits are computed, it costs less than choosing."""
        return self.features_and_logits(x, per_member=per_member)[1]
