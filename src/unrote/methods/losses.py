"""Losses of logits and labels alone: what methods that change nothing but the loss have in common."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import OptionError
from unrote.methods.base import Fitted, Method
from unrote.methods.biased import LabelObjective, weighted_mean
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.supervision import take_examples
from unrote.training import Batch

ExampleLosses = Callable[[Float[Tensor, "S B C"], Int[Tensor, "s B"]], Float[Tensor, "S B"]]
"""The loss of each member on each example, from its logits and the labels, which members share (leading 1)."""

Reduce = Callable[[Float[Tensor, "S B"], Float[Tensor, " B"] | None], Float[Tensor, " S"]]
"""One loss per member from those on each example, by the examples' sample weights where there are any."""


class LossObjective(LabelObjective):
    """A loss of logits and labels that keeps no state.

    Args:
        y: (n,) labels.
        losses: of each member on each example.
        reduce: makes one loss of those of a minibatch.
    """

    def __init__(self, y: Int[Tensor, " n"], losses: ExampleLosses, reduce: Reduce = weighted_mean) -> None:
        super().__init__(y)
        self.losses, self.reduce = losses, reduce

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The loss of each member on a minibatch."""
        logits = stack(batch.x, per_member=batch.per_member)
        losses = self.losses(logits, take_examples(self.y, batch.index, False))
        return self.reduce(losses, None if self.sample_weight is None else self.sample_weight[batch.index])


class LossMethod(Method):
    """A method that changes the loss and nothing else."""

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        objective = LossObjective(session.y, self.losses, self.reduce)
        return self.fitted(session, session.train(objective, settings=self.settings()))

    @abstractmethod
    def losses(self, logits: Float[Tensor, "S B C"], target: Int[Tensor, "s B"]) -> Float[Tensor, "S B"]:
        """The loss of each member on each example; see `ExampleLosses`."""

    def reduce(self, losses: Float[Tensor, "S B"], weight: Float[Tensor, " B"] | None) -> Float[Tensor, " S"]:
        """One loss per member; see `Reduce`."""
        return weighted_mean(losses, weight)


def log_odds(logits: Float[Tensor, "S B C"], target: Int[Tensor, "s B"]) -> Float[Tensor, "S B"]:
    """The margin of each example: log(p_y / (1 - p_y)), whose logistic loss is the cross-entropy.

    With two classes it is the label's logit less the other's.
    """
    target = target.expand(logits.shape[:2]).unsqueeze(-1)
    own = logits.gather(-1, target).squeeze(-1)
    return own - logits.scatter(-1, target, -torch.inf).logsumexp(-1)


def check_positive(name: str, value: float, *, zero: bool = False, usual: str = "") -> None:
    """Refuse a hyper-parameter below 0, or 0 unless that is allowed.

    Args:
        name: of the hyper-parameter.
        value: of the hyper-parameter.
        zero: whether 0 is allowed.
        usual: values to suggest.

    Raises:
        OptionError: if it is out of range.
    """
    if not (value > 0 or (zero and value == 0)) or value == float("inf"):
        wanted = "a finite number of at least 0" if zero else "a finite number above 0"
        raise OptionError(f"{name}={value}: {wanted} is wanted{usual and f'; {usual} is usual'}")
