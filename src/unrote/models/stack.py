"""A stack: S models of one kind, trained at once and asked at once.

Everything above this layer sees one interface whether the members are 2,000 linear heads held in one tensor or
two ResNets held in a list: `stack(x)` gives (S, B, C) logits, and `stack.optimizer(...)` an optimiser with a
learning rate and weight decay per member.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from unrote.data.inputs import ArrayInputs, Example, as_inputs, map_tensors
from unrote.errors import OptionError
from unrote.models.optimizers import Optimizer, stacked_optimizer
from unrote.supervision import SupervisionBatch

StackBuilder = Callable[[Sequence[int]], "Stack"]
"""Makes a stack with one member per seed; a member depends on its seed alone, not on its neighbours."""

AnyStack = TypeVar("AnyStack", bound="Stack")


class Stack(nn.Module, ABC):
    """S models with the same classes.

    Args:
        seeds: one per member; a member's initial parameters depend on its seed alone.
        n_classes: number of classes C.

    Raises:
        OptionError: if there is no member, or fewer than two classes.
    """

    predict_batch_size = 1024
    """How many examples are predicted at once unless told otherwise; a deep network has memory for fewer."""

    computes_all = False
    """Whether logits that are not asked for are computed all the same, and by the same rule in training."""

    closed_form = False
    """Whether `write_gradients` is there."""

    def __init__(self, seeds: Sequence[int], n_classes: int) -> None:
        super().__init__()
        if not seeds:
            raise OptionError("a stack without members: pass at least one seed")
        if n_classes < 2:
            raise OptionError(f"a stack with {n_classes} class: at least two are wanted")
        self.seeds, self.n_classes = tuple(seeds), n_classes
        # set by the training loop: what a member draws at random (dropout) depends on its seed and this alone
        self.step = 0

    @property
    def n_members(self) -> int:
        """Number of members S."""
        return len(self.seeds)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def learns_features(self) -> bool:
        """Whether what the last linear layer takes is learned; to a linear head it is the example itself."""
        return True

    @property
    def takes_features(self) -> bool:
        """Whether the models are heads alone, whose features are the examples."""
        return False

    @property
    def has_head(self) -> bool:
        """Whether the last linear layer is known, so that there are features to speak of."""
        return True

    @abstractmethod
    def forward(
        self, x: Example, where: Bool[Tensor, "*S B"] | None = None, *, per_member: bool = False
    ) -> Float[Tensor, "S B C"]:
        """Logits of every member.

        Args:
            x: a minibatch (B, ...) for all members, or (S, B, ...) if `per_member`.
            where: (S, B), or (B,) for all members: the examples whose logits are wanted from each member. The
                others' logits are unspecified, and a member may skip the work for them.
            per_member: whether each member has a minibatch of its own.
        """

    def relative_logits(
        self, x: Example, where: Bool[Tensor, "*S B"] | None = None, *, per_member: bool = False
    ) -> Float[Tensor, "S B C"]:
        """Logits up to a number per example, which is all that a softmax sees; cheaper where classes are few.

        The arguments are those of `forward`.
        """
        logits: Tensor = self(x, where, per_member=per_member)
        return logits

    def loss_and_logits(
        self, x: Example, rows: SupervisionBatch, *, per_member: bool = False
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S B C"]]:
        """The loss of each member on a minibatch, and the logits it is of, as `relative_logits`, without their graph.

        Args:
            x: as `forward`'s.
            rows: what training tells the loss; members may skip the examples that weigh nothing.
            per_member: as `forward`'s.
        """
        where = None if rows.weight is None else rows.weight.squeeze(0) > 0
        logits = self.relative_logits(x, where, per_member=per_member)
        return rows.loss(logits), logits.detach()

    def write_gradients(
        self, x: Example, rows: SupervisionBatch, *, per_member: bool = False
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S B C"]]:
        """As `loss_and_logits`, with the gradients of the losses' sum in the parameters' `grad`; no graph is made."""
        raise NotImplementedError

    @abstractmethod
    def optimizer(
        self, name: str, learning_rate: Sequence[float], weight_decay: Sequence[float], momentum: float
    ) -> Optimizer:
        """An optimiser ("sgd", "adam" or "adamw") with S learning rates and S weight decays."""

    @abstractmethod
    def copy_members(self, target: dict[str, Tensor], members: Bool[Tensor, " S"]) -> None:
        """Write the present parameters of some members into a state made by `snapshot`."""

    @abstractmethod
    def select(self: AnyStack, members: Sequence[int]) -> AnyStack:
        """A stack of copies of some members."""

    @abstractmethod
    def features_and_logits(
        self, x: Example, *, per_member: bool = False
    ) -> tuple[Float[Tensor, "S B F"], Float[Tensor, "S B C"]]:
        """What the last linear layer of each member takes and gives."""

    @abstractmethod
    def live_head(self, member: int = 0) -> tuple[Float[Tensor, "C F"], Float[Tensor, " C"] | None]:
        """Weight and bias (None where there is none) of a member's last linear layer: the parameters themselves.

        A loss can be taken of them, and under `torch.no_grad` they can be written to between two steps.
        """

    def head(self, member: int = 0) -> tuple[Float[Tensor, "C F"], Float[Tensor, " C"]]:
        """Weight and bias of a member's last linear layer, copied; a bias that is not there is 0."""
        weight, bias = self.live_head(member)
        weight = weight.detach().clone()
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().clone()

    @abstractmethod
    def set_head(self, weight: Float[Tensor, "C F"], bias: Float[Tensor, " C"], member: int = 0) -> None:
        """Replace a member's last linear layer."""

    def recycle_gradients(self) -> None:
        """Called before gradients are dropped: their memory may serve the next, as new pages take time to map."""

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of all parameters and buffers."""
        return {name: value.detach().clone() for name, value in self.state_dict().items()}

    def place(self, x: Example) -> Example:
        """Move a minibatch to the stack's device."""
        return map_tensors(x, lambda t: t.to(self.device, non_blocking=True))

    @torch.no_grad()
    def predict(
        self, x: Example, *, batch_size: int | None = None, where: Bool[Tensor, "S n"] | None = None
    ) -> Float[Tensor, "S n C"]:
        """Logits for every example, in evaluation mode, on the CPU.

        Args:
            x: n examples, whatever holds them (`as_inputs`).
            batch_size: examples at once; default `predict_batch_size`.
            where: (S, n), the examples wanted from each member; others' logits are unspecified.
        """

        def logits(rows: Tensor, batch: Example) -> Tensor:
            out: Tensor = self(batch, None if where is None else where[:, rows].to(self.device))
            return out.cpu()

        return self._in_evaluation_mode(x, logits, batch_size)

    @torch.no_grad()
    def predict_classes(self, x: Example, *, batch_size: int | None = None) -> Int[Tensor, "S n"]:
        """The class that each member predicts, in evaluation mode, on the CPU; see `predict`."""

        def classes(rows: Tensor, batch: Example) -> Tensor:
            logits = self.relative_logits(batch)
            # of two classes by a comparison: `argmax` of a short dimension goes one row at a time
            chosen = (logits[..., 1] > logits[..., 0]).long() if self.n_classes == 2 else logits.argmax(-1)
            return chosen.cpu()

        return self._in_evaluation_mode(x, classes, batch_size)

    @torch.no_grad()
    def predict_features(self, x: Example, *, batch_size: int | None = None) -> Float[Tensor, "S n F"]:
        """Features for every example, in evaluation mode, on the CPU, not to be written to; see `predict`."""
        inputs = as_inputs(x)
        held = inputs.tensor if self.takes_features and isinstance(inputs, ArrayInputs) else None
        if held is not None:
            features = held.flatten(1).to("cpu", next(self.parameters()).dtype)
            return features.expand(self.n_members, *features.shape)
        return self._in_evaluation_mode(
            x, lambda rows, batch: self.features_and_logits(batch)[0].cpu(), batch_size
        )

    def _in_evaluation_mode(
        self, x: Example, apply: Callable[[Tensor, Example], Tensor], batch_size: int | None
    ) -> Shaped[Tensor, "S n *_"]:
        inputs = as_inputs(x)
        was_training = self.training
        self.eval()
        order = torch.arange(len(inputs)).split(batch_size or self.predict_batch_size)
        # Written to one tensor made beforehand: small results kept between large minibatches leave holes that
        # the next minibatch does not fit into, which took 3 GB more on a million rows.
        result: Tensor | None = None
        try:
            for rows, batch in zip(order, inputs.batches(order), strict=True):
                part = apply(rows, self.place(batch))
                if result is None:
                    result = part.new_empty(part.shape[0], len(inputs), *part.shape[2:])
                result[:, int(rows[0]) : int(rows[-1]) + 1] = part
        finally:
            self.train(was_training)
        assert result is not None  # inputs have at least one example
        return result


class TensorStack(Stack):
    """A stack whose parameters carry the members in their first dimension.

    Subclasses keep their last linear layer in `weight` (S, C, F) and `bias` (S, C) or None.
    """

    computes_all = True
    closed_form = True

    weight: nn.Parameter
    bias: nn.Parameter | None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.weight.device

    def optimizer(
        self, name: str, learning_rate: Sequence[float], weight_decay: Sequence[float], momentum: float
    ) -> Optimizer:
        """See `Stack.optimizer`."""
        return stacked_optimizer(self.parameters(), name, learning_rate, weight_decay, momentum)

    def live_head(self, member: int = 0) -> tuple[Float[Tensor, "C F"], Float[Tensor, " C"] | None]:
        """See `Stack.live_head`."""
        return self.weight[member], None if self.bias is None else self.bias[member]

    @torch.no_grad()
    def set_head(self, weight: Float[Tensor, "C F"], bias: Float[Tensor, " C"], member: int = 0) -> None:
        """See `Stack.set_head`."""
        self.weight[member].copy_(weight)
        if self.bias is None:
            self.bias = nn.Parameter(self.weight.new_zeros(self.n_members, self.n_classes))
        self.bias[member].copy_(bias)

    def copy_members(self, target: dict[str, Tensor], members: Bool[Tensor, " S"]) -> None:
        """See `Stack.copy_members`."""
        for name, value in self.state_dict().items():
            target[name][members] = value[members]

    def select(self: AnyStack, members: Sequence[int]) -> AnyStack:
        """See `Stack.select`."""
        chosen = copy.copy(self)
        chosen.seeds = tuple(self.seeds[m] for m in members)
        chosen._parameters = {
            name: None if value is None else nn.Parameter(value.detach()[list(members)])
            for name, value in self._parameters.items()
        }
        return chosen
