"""What training tells the loss about each example: a target, a weight and a shift.

    loss_s = sum_i  weight[s,i] * CE(logits_s(x_i) + shift[s,i,:], target[s,i])

`s` runs over the members of a stack, `i` over examples. Nearly every method of the field differs only in how
it fills these three arrays, so this file is the meeting point of methods (which fill them), models (which give
logits) and the training loop (which adds the two up).
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.errors import DataError

Reduction = Literal["mean", "class_balanced"]

_FEW_CLASSES = 32


def take_examples(values: Tensor, index: Int[Tensor, "*S B"], member_dim: bool) -> Tensor:
    """The rows of `values` for a minibatch, always with a leading member dimension.

    Args:
        values: (n, ...) shared by all members, or (S, n, ...) if `member_dim`.
        index: (B,) when the members share the minibatch, (S, B) when each has its own.
        member_dim: whether `values` has a leading member dimension.

    Returns:
        (1, B, ...) where nothing depends on the member, else (S, B, ...).
    """
    if not member_dim:
        rows = values[index]
        return rows if index.ndim == 2 else rows.unsqueeze(0)
    if index.ndim == 1:
        return values.index_select(1, index)  # several times as fast as indexing with a slice
    members = torch.arange(values.shape[0], device=values.device).unsqueeze(1)
    return values[members, index]


def cross_entropy(
    logits: Float[Tensor, "S B C"],
    target: Int[Tensor, "s B"],
    shift: Float[Tensor, "t B C"] | None = None,
) -> Float[Tensor, "S B"]:
    """Cross-entropy of each member on each example; `target` and `shift` may be shared (leading 1)."""
    if shift is not None:
        logits = logits + shift
    target = target.expand(logits.shape[:2])
    return -_log_softmax(logits).gather(-1, target.unsqueeze(-1)).squeeze(-1)


def _log_softmax(logits: Float[Tensor, "S B C"]) -> Float[Tensor, "S B C"]:
    if len(logits) > 1 and logits.shape[-1] <= _FEW_CLASSES:
        # a softmax over a short last dimension runs one example at a time; over the first it is vectorised,
        # which pays for the copy several times over
        return F.log_softmax(logits.movedim(-1, 0).contiguous(), dim=0).movedim(0, -1)
    return F.log_softmax(logits, dim=-1)


def class_balance(
    target: Int[Tensor, "s B"], weight: Float[Tensor, "S B"], n_classes: int
) -> Float[Tensor, "S B"]:
    """Weights under which a sum is "the mean over each class present, summed over classes" (XRM's loss).

    A class that no weighted example of the minibatch has adds nothing.
    """
    target = target.expand(weight.shape)
    mass = weight.new_zeros(weight.shape[0], n_classes).scatter_add_(1, target, weight)
    own = mass.gather(1, target)
    return weight / own.clamp_min_(torch.finfo(own.dtype).tiny)


@dataclass(frozen=True)
class Supervision:
    """Targets, weights and shifts of all n training examples, shared by all members or one set per member.

    Args:
        target: (n,) or (S, n) class indices.
        weight: (n,) or (S, n), at least 0; None means 1 everywhere. Only ratios matter: a minibatch's loss is
            divided by its total weight, so that weighting never changes the effective learning rate.
        shift: (n, C) or (S, n, C) added to the logits in the training loss only; None means 0.
        reduction: "mean", the weighted mean over the minibatch, or "class_balanced", the weighted mean over
            each class present, summed over classes.
    """

    target: Int[Tensor, "..."]
    weight: Float[Tensor, "..."] | None = None
    shift: Float[Tensor, "..."] | None = None
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        for name, plain in (("weight", 1), ("shift", 2)):
            value = getattr(self, name)
            n = None if value is None else value.shape[value.ndim - plain]
            if n is not None and n != self.n_examples:
                raise DataError(f"{name} has {n} examples, the target {self.n_examples}: they must be equal")
        if self.weight is not None and not bool(((self.weight >= 0) & self.weight.isfinite()).all()):
            raise DataError(
                "weights must be at least 0, finite and not NaN; clip them or mask the examples out"
            )
        if self.shift is not None and not bool(torch.isfinite(self.shift).all()):
            raise DataError("the shift has NaN or infinity; floor the probabilities before the logarithm")

    @property
    def n_examples(self) -> int:
        """Number of training examples."""
        return self.target.shape[-1]

    def check(self, n_examples: int, n_members: int, n_classes: int) -> None:
        """Refuse examples or models that do not fit, before indexing and broadcasting go astray.

        Raises:
            DataError: if the number of examples, members or classes is another.
        """
        if self.n_examples != n_examples:
            raise DataError(f"{self.n_examples} labels for {n_examples} examples: one each is wanted")
        low, high = int(self.target.min()), int(self.target.max())
        if not 0 <= low <= high < n_classes:
            raise DataError(f"labels run from {low} to {high}: 0 to {n_classes - 1} is wanted, one per class")
        if self.shift is not None and self.shift.shape[-1] != n_classes:
            raise DataError(f"the shift has {self.shift.shape[-1]} columns for {n_classes} classes: one each")
        for name, plain in (("target", 1), ("weight", 1), ("shift", 2)):
            value = getattr(self, name)
            if value is not None and value.ndim > plain and len(value) not in (1, n_members):
                raise DataError(f"{name} is for {len(value)} members, the stack has {n_members}")

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Supervision":
        """The same supervision on another device, weight and shift as numbers of another type."""
        moved: dict[str, Any] = {
            f.name: value.to(device, dtype if value.is_floating_point() else None)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def weighted(self, weight: Float[Tensor, " n"]) -> "Supervision":
        """The same supervision with every example's weight multiplied by one more."""
        return replace(self, weight=weight if self.weight is None else self.weight * weight)

    def batch(self, index: Int[Tensor, "*S B"]) -> "SupervisionBatch":
        """The rows of one minibatch; `index` is (B,), or (S, B) when members have minibatches of their own."""
        weight, shift = self.weight, self.shift
        return SupervisionBatch(
            target=take_examples(self.target, index, self.target.ndim == 2),
            weight=None if weight is None else take_examples(weight, index, weight.ndim == 2),
            shift=None if shift is None else take_examples(shift, index, shift.ndim == 3),
            reduction=self.reduction,
        )

    @staticmethod
    def stack(items: "list[Supervision]") -> "Supervision":
        """One supervision whose members are those of `items` in order, each item one member.

        What all items share (the very same tensor) stays shared, so that a sweep over weights does not hold
        one copy of the targets per member.

        Raises:
            DataError: if the items differ in their reduction.
        """
        first = items[0]
        if any(item.reduction != first.reduction for item in items):
            raise DataError("members of one stack must share the reduction; train the two kinds apart")

        def join(name: str, fill: float) -> Tensor | None:
            values = [getattr(item, name) for item in items]
            if all(value is values[0] for value in values):
                return values[0]  # type: ignore[no-any-return]
            like = next(value for value in values if value is not None)
            return torch.stack([torch.full_like(like, fill) if value is None else value for value in values])

        target = join("target", 0)
        assert target is not None
        return Supervision(target, join("weight", 1.0), join("shift", 0.0), first.reduction)


@dataclass(frozen=True)
class SupervisionBatch:
    """Supervision of one minibatch; leading dimension 1 where all members share it."""

    target: Int[Tensor, "_ B"]
    weight: Float[Tensor, "_ B"] | None
    shift: Float[Tensor, "_ B _"] | None
    reduction: Reduction

    def loss(self, logits: Float[Tensor, "S B C"]) -> Float[Tensor, " S"]:
        """The loss of each member. A member with no weighted example in the minibatch has loss 0."""
        if self.weight is not None:
            # an unseen example's logits may be anything, NaN too: this keeps them out of loss and gradient
            logits = torch.where((self.weight > 0).unsqueeze(-1), logits, 0.0)
        losses = cross_entropy(logits, self.target, self.shift)
        if self.weight is None and self.reduction == "mean":
            return losses.mean(1)
        return (self.shares(len(losses), logits.shape[-1], losses.dtype) * losses).sum(1)

    def loss_and_gradient(
        self, logits: Float[Tensor, "S B C"]
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S B C"]]:
        """The loss of each member and its gradient by the logits, of which all have to be numbers; makes no graph."""
        shares = self.shares(len(logits), logits.shape[-1], logits.dtype)
        log_p = _log_softmax(logits if self.shift is None else logits + self.shift)
        target = self.target.expand(log_p.shape[:2]).unsqueeze(-1)
        losses = log_p.gather(-1, target).squeeze(-1).mul_(-shares).sum(1)
        gradient = log_p.exp_().sub_(torch.zeros_like(log_p).scatter_(-1, target, 1.0))
        return losses, gradient.mul_(shares.unsqueeze(-1))

    def shares(self, n_members: int, n_classes: int, dtype: torch.dtype) -> Float[Tensor, "_ _"]:
        """What the examples' losses are multiplied by in the sum that is the loss; (1, 1) if all by 1 / B."""
        if self.weight is None and self.reduction == "mean":
            return self.target.new_full((1, 1), 1 / self.target.shape[-1], dtype=dtype)
        weight = self.target.new_ones(1, 1, dtype=dtype) if self.weight is None else self.weight.to(dtype)
        if self.reduction == "mean":
            return weight / weight.sum(1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
        return class_balance(self.target, weight.expand(n_members, self.target.shape[-1]), n_classes)

    def margins(self, dtype: torch.dtype) -> tuple[Float[Tensor, "_ B"], Float[Tensor, "_ B"] | None]:
        """Of two classes: +1 where the target is the second, else -1; how much the shift speaks for the second."""
        sign = self.target.to(dtype).mul_(2).sub_(1)
        return sign, None if self.shift is None else self.shift[..., 1] - self.shift[..., 0]
