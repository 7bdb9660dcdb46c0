"""What methods share that first train a model to be biased: the loss that makes it so, and what it gets wrong."""

import warnings

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.methods.session import Session
from unrote.models import Stack
from unrote.supervision import Supervision
from unrote.training import Batch, Objective


def generalised_cross_entropy(
    logits: Float[Tensor, "*S B C"], y: Int[Tensor, " B"], q: float
) -> Float[Tensor, "*S B"]:
    """(1 - p_y^q) / q, which learns most from what is already easy (Zhang and Sabuncu 2018, arXiv 1805.07836).

    Its gradient is p_y^q times that of the cross-entropy: hard examples hardly count. The limit of small q is
    the cross-entropy, that of q = 1 the chance of a mistake.

    Args:
        logits: (..., B, C).
        y: (B,) labels.
        q: above 0, at most 1.
    """
    log_p = logits.log_softmax(-1).gather(-1, y.expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return -torch.expm1(q * log_p) / q


def weighted_mean(losses: Float[Tensor, "*S B"], weight: Float[Tensor, " B"] | None) -> Float[Tensor, "*S"]:
    """The mean loss of a minibatch; weights, where there are any, count as in `SupervisionBatch.loss`."""
    if weight is None:
        return losses.mean(-1)
    weight = weight.to(losses)
    return (weight * losses).sum(-1) / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


class LabelObjective(Objective):
    """What objectives share that know the labels and, where there are any, sample weights.

    Args:
        y: (n,) labels.
    """

    def __init__(self, y: Int[Tensor, " n"]) -> None:
        self.y = y
        self.sample_weight: Float[Tensor, " n"] | None = None

    def with_weight(self, weight: Float[Tensor, " n"]) -> "LabelObjective":
        """This objective itself, as its method looks at its state later."""
        self.sample_weight = weight
        return self

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels and weights that do not fit, and follow the stack to its device."""
        Supervision(self.y, self.sample_weight).check(n_examples, stack.n_members, stack.n_classes)
        self.y = self.y.to(stack.device)
        if self.sample_weight is not None:
            self.sample_weight = self.sample_weight.to(stack.device)

    def mean(self, losses: Float[Tensor, "*S B"], batch: Batch) -> Float[Tensor, "*S"]:
        """The mean over a minibatch, by the sample weights."""
        return weighted_mean(losses, None if self.sample_weight is None else self.sample_weight[batch.index])


class BiasedObjective(LabelObjective):
    """The mean generalised cross-entropy.

    Args:
        y: (n,) labels.
        q: see `generalised_cross_entropy`.
    """

    def __init__(self, y: Int[Tensor, " n"], q: float) -> None:
        super().__init__(y)
        self.q = q

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The loss of each member on a minibatch."""
        losses = generalised_cross_entropy(stack(batch.x), self.y[batch.index], self.q)
        return self.mean(losses, batch)


def training_logits(session: Session, stack: Stack) -> Float[Tensor, "n C"]:
    """Logits of the training examples by a stack of one, in evaluation mode."""
    return stack.predict(session.task.train.x)[0]


def mistakes(session: Session, stack: Stack, advice: str) -> Bool[Tensor, " n"]:
    """Which training examples a biased model is wrong about; warns where it is right about all.

    Args:
        session: its training examples are predicted.
        stack: the biased model.
        advice: what to change where there is no mistake, for the warning.
    """
    wrong = training_logits(session, stack).argmax(-1) != session.y
    warn_if_none(wrong, advice)
    return wrong


def warn_if_none(wrong: Bool[Tensor, " n"], advice: str) -> None:
    """Warn where a biased model is right about all examples, so that it tells none from another."""
    if not bool(wrong.any()):
        warnings.warn(
            f"the biased model is right about all {len(wrong)} training examples, so that none counts more "
            f"than another of its class: {advice}",
            UserWarning,
            stacklevel=3,
        )


def warn_if_reversed(session: Session, stack: Stack, advice: str) -> None:
    """Warn where a model that learned from a biased one's mistakes has learned the shortcut the other way round.

    It then is wrong about most of the training examples, which follow the shortcut.

    Args:
        session: its training examples are predicted.
        stack: the model.
        advice: what to change, for the warning.
    """
    right = float((training_logits(session, stack).argmax(-1) == session.y).double().mean())
    commonest = float(session.y.bincount().max()) / len(session.y)
    if right < commonest / 2:
        warnings.warn(
            f"the model is right about {right:.0%} of the training examples only, fewer than by always "
            "guessing: what the biased model gets wrong counted so much that the reverse of the shortcut was "
            f"learned: {advice}",
            UserWarning,
            stacklevel=3,
        )
