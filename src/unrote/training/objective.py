"""What a run minimises."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.inputs import Example
from unrote.errors import OptionError
from unrote.models import Stack, TensorStack
from unrote.supervision import Supervision


@dataclass(frozen=True)
class Batch:
    """One minibatch: the examples' indices, the examples, and where in training this is.

    Args:
        index: of the examples; (S, B) if each member has a minibatch of its own.
        examples: they, or what brings them once they are asked for.
        step: of training, from 0.
        epoch: likewise.
    """

    index: Int[Tensor, "*S B"]
    examples: Example | Callable[[], Example]
    step: int
    epoch: int

    @cached_property
    def x(self) -> Example:
        """The examples."""
        return self.examples() if callable(self.examples) else self.examples

    @property
    def per_member(self) -> bool:
        """Whether each member has a minibatch of its own."""
        return self.index.ndim == 2


class Objective:
    """What a run minimises. Subclasses hold whatever per-example or per-group state their method keeps."""

    reads_examples = False
    """Whether `loss` looks into a minibatch's examples, beside giving them to the stack. Where several processes
    train together, each then loads the whole minibatch; else `Batch.x` is a `Shard` that only a stack can read."""

    through_logits = True
    """Whether the gradients that each process has of its own examples' logits and features add up to that of the
    loss. Where not so (a penalty on parameters, whose gradient every process has whole), several processes cannot
    train together."""

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Called before training, to refuse what does not fit and to follow the stack to its device."""

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The loss of each member on a minibatch."""
        raise NotImplementedError

    def after_step(self, stack: Stack, batch: Batch) -> None:
        """Called after each update, for what follows the parameters (flipped labels, moving weights)."""

    def with_weight(self, weight: Float[Tensor, " n"]) -> "Objective":
        """The same objective with each example's loss multiplied by a weight.

        Raises:
            OptionError: if the objective has no such thing.
        """
        raise OptionError(f"{type(self).__name__} takes no sample weights: train without them")

    def parameters(self) -> list[Tensor]:
        """Leaf tensors (S, ...) beside the models' that train along with them, each member's at its own rates.

        `state` gives them too, detached. Called after `prepare`.
        """
        return []

    def state(self) -> dict[str, Tensor]:
        """Every tensor that changes as training goes, by name. Checkpoints save them and write them back."""
        return {}


class Supervised(Objective):
    """The loss of a `Supervision`.

    Heads whose gradient can be written down train on it without autograd, as long as a subclass leaves `loss` alone.

    Args:
        supervision: of all examples. A subclass may write to its tensors in `see` and `after_step`.
    """

    def __init__(self, supervision: Supervision) -> None:
        self.supervision = supervision

    def with_weight(self, weight: Float[Tensor, " n"]) -> "Supervised":
        """The weights multiply the supervision's."""
        weighted = copy.copy(self)
        weighted.supervision = self.supervision.weighted(weight)
        return weighted

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse what the supervision does not fit, and move it to the stack's device; heads want their own dtype."""
        self.supervision.check(n_examples, stack.n_members, stack.n_classes)
        dtype = stack.weight.dtype if isinstance(stack, TensorStack) else None
        self.supervision = self.supervision.to(stack.device, dtype)

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """Weighted, shifted cross-entropy of each member."""
        rows = self.supervision.batch(batch.index)
        losses, logits = stack.loss_and_logits(batch.x, rows, per_member=batch.per_member)
        self.see(stack, batch, logits)
        return losses

    def see(self, stack: Stack, batch: Batch, logits: Float[Tensor, "S B C"]) -> None:
        """Called with the logits that the loss was taken of, up to a number per example; the update may be over."""
