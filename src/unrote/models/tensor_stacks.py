"""Linear heads and small MLPs on features in memory: one matrix product per layer for all members."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from unrote.models.stack import TensorStack
from unrote.seeding import generator
from unrote.supervision import SupervisionBatch

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


def _shared_product(
    x: Float[Tensor, "B d"], weight: Float[Tensor, "S o d"], bias: Float[Tensor, "S o"] | None
) -> Float[Tensor, "S B o"]:
    """Multiply x by every member's weight and add its bias, as one matrix product over all members."""
    members, out, _ = weight.shape
    flat_bias = None if bias is None else bias.reshape(-1)
    product: Tensor = F.linear(x, weight.reshape(members * out, -1), flat_bias)
    return product.view(len(x), members, out).transpose(0, 1)


def _product(
    x: Tensor, weight: Float[Tensor, "S o d"], bias: Float[Tensor, "S o"] | None, *, per_member: bool
) -> Float[Tensor, "S B o"]:
    """A linear layer of every member, on a shared minibatch (B, ...) or on one each (S, B, ...)."""
    x = x.flatten(2 if per_member else 1).to(weight.dtype)
    return _own_product(x, weight, bias) if per_member else _shared_product(x, weight, bias)


def _own_product(
    x: Float[Tensor, "S B d"], weight: Float[Tensor, "S o d"], bias: Float[Tensor, "S o"] | None
) -> Float[Tensor, "S B o"]:
    """Multiply each member's x by its weight and add its bias."""
    product: Tensor = _OwnProduct.apply(x, weight)  # type: ignore[no-untyped-call]
    return product if bias is None else product + bias.unsqueeze(1)


class _OwnProduct(torch.autograd.Function):
    """`x @ weight.mT`, with a gradient of the weight that is ten times as fast where it has few rows.

    Autograd's own multiplies the transposed matrices, (d, B) by (B, o), and transposes the product.
    """

    generate_vmap_rule = True  # gradients of each example by torch.func

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(x, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x = torch.bmm(gradients[0], weight) if ctx.needs_input_grad[0] else None
        return of_x, torch.bmm(gradients[0].mT, x) if ctx.needs_input_grad[1] else None


def _binary_logits(
    x: Tensor, weight: Float[Tensor, "S 2 d"], bias: Float[Tensor, "S 2"] | None
) -> Float[Tensor, "S B 2"]:
    """Logits of binary heads with the first class's at 0, which leaves one column to multiply.

    They lie classes first in memory, as a softmax over so few wants them.
    """
    logits = x.new_zeros(2, len(weight), x.shape[-2])
    difference = weight[:, 1] - weight[:, 0]
    offset = x.new_zeros(1, 1) if bias is None else (bias[:, 1] - bias[:, 0]).unsqueeze(1)
    if x.ndim == 2:
        torch.addmm(offset, difference, x.T, out=logits[1])
    else:
        torch.baddbmm(offset.unsqueeze(1), difference.unsqueeze(1), x.mT, out=logits[1].unsqueeze(1))
    return logits.permute(1, 2, 0)


def _binary_gradients(
    x: Tensor, second: Float[Tensor, "S B"], spare: list[Tensor], *, bias: bool
) -> tuple[Float[Tensor, "S 2 d"], Float[Tensor, "S 2"] | None]:
    """Gradients of weight and bias, from those of the second class's logits; the first class's are the opposite.

    Autograd's own gradient of a difference of slices is several passes over tensors as large as all heads; here
    the product is written where it belongs, and mirrored.
    """
    weight = x.new_empty(0)
    if spare and spare[-1].device == x.device and spare[-1].dtype == x.dtype:
        # taken out of the list: autograd copies a gradient that somebody else holds
        weight = spare.pop()
    weight.resize_(len(second), 2, x.shape[-1])
    if x.ndim == 2:
        torch.mm(second, x, out=weight[:, 1])
    else:
        torch.bmm(second.unsqueeze(1), x, out=weight[:, 1:])
    torch.neg(weight[:, 1], out=weight[:, 0])
    if not bias:
        return weight, None
    total = second.sum(1)
    return weight, torch.stack([-total, total], dim=1)


class _RelativeLogits(torch.autograd.Function):
    """`_binary_logits`, for any loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, spare: list[Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.spare = spare
        return _binary_logits(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor | None, None]:
        (x,) = ctx.saved_tensors
        return (
            None,
            *_binary_gradients(x, gradients[0][..., 1], ctx.spare, bias=ctx.needs_input_grad[2]),
            None,
        )


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
        self._spare: list[Tensor] = []  # at most one: memory for the next gradient

    def recycle_gradients(self) -> None:
        """See `Stack.recycle_gradients`."""
        if self.weight.grad is not None:
            self._spare[:] = [self.weight.grad]

    @property
    def learns_features(self) -> bool:
        """See `Stack.learns_features`."""
        return False

    @property
    def takes_features(self) -> bool:
        """See `Stack.takes_features`."""
        return True

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
        return _product(x, self.weight, self.bias, per_member=per_member)

    def relative_logits(
        self, x: Tensor, where: Bool[Tensor, "*S B"] | None = None, *, per_member: bool = False
    ) -> Float[Tensor, "S B C"]:
        """See `Stack.relative_logits`: of two classes the first gets 0, and the products are half as large."""
        if self.n_classes > 2:
            return super().relative_logits(x, where, per_member=per_member)
        x = x.flatten(2 if per_member else 1).to(self.weight.dtype)
        logits: Tensor = _RelativeLogits.apply(x, self.weight, self.bias, self._spare)  # type: ignore[no-untyped-call]
        return logits

    def write_gradients(
        self, x: Tensor, rows: SupervisionBatch, *, per_member: bool = False
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S B C"]]:
        """See `Stack.write_gradients`."""
        x = x.flatten(2 if per_member else 1).to(self.weight.dtype)
        if self.n_classes == 2:
            return self._write_binary_gradients(x, rows)
        logits = _product(x, self.weight, self.bias, per_member=per_member)
        losses, gradient = rows.loss_and_gradient(logits)
        self.weight.grad = gradient.mT @ x
        if self.bias is not None:
            self.bias.grad = gradient.sum(1)
        return losses, logits

    def _write_binary_gradients(
        self, x: Tensor, rows: SupervisionBatch
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S B 2"]]:
        # With the margin m between the logits, shift included, and the sign s of the target, an example's loss is
        # log(1 + exp(-s m)), and its gradient by m is -s / (1 + exp(s m)).
        logits = _binary_logits(x, self.weight, self.bias)
        sign, shift = rows.margins(self.weight.dtype)
        shares = rows.shares(self.n_members, 2, self.weight.dtype)
        margin = logits[..., 1] if shift is None else logits[..., 1] + shift
        wrong = (margin * sign).neg_()
        losses = F.softplus(wrong).mul_(shares).sum(1)
        second = wrong.sigmoid_().mul_(sign).mul_(-shares)
        self.weight.grad, bias = _binary_gradients(x, second, self._spare, bias=self.bias is not None)
        if self.bias is not None:
            self.bias.grad = bias
        return losses, logits


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
        features = _product(x, self.hidden_weight, self.hidden_bias, per_member=per_member).relu()
        return features, _own_product(features, self.weight, self.bias)

    def forward(
        self, x: Tensor, where: Bool[Tensor, "*S B"] | None = None, *, per_member: bool = False
    ) -> Float[Tensor, "S B C"]:
        """See `Stack.forward`; all logits are computed, it costs less than choosing."""
        return self.features_and_logits(x, per_member=per_member)[1]

    def write_gradients(
        self, x: Tensor, rows: SupervisionBatch, *, per_member: bool = False
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S B C"]]:
        """See `Stack.write_gradients`."""
        x = x.flatten(2 if per_member else 1).to(self.weight.dtype)
        features, logits = self.features_and_logits(x, per_member=per_member)
        losses, gradient = rows.loss_and_gradient(logits)
        self.weight.grad, self.bias.grad = gradient.mT @ features, gradient.sum(1)
        hidden = gradient @ self.weight
        # relu's own derivative, several times as fast as a product with truth values
        torch.ops.aten.threshold_backward.grad_input(hidden, features, 0, grad_input=hidden)
        self.hidden_weight.grad, self.hidden_bias.grad = hidden.mT @ x, hidden.sum(1)
        return losses, logits
