"""GroupDRO: minimise the loss of the worst group (Sagawa et al. 2020, arXiv 1911.08731, Algorithm 1).

    q_g = 1 / G for each of the G groups
    repeat:
        draw a minibatch in which every group is equally likely
        l_g = mean cross-entropy over the minibatch's examples of group g
        q_g <- q_g * exp(eta * (l_g + K / sqrt(n_g))) for the groups in the minibatch; divide q by its sum
        take a step on the sum of q_g * l_g over the groups in the minibatch

A group with a high loss comes to count more. K raises the loss of small groups (n_g examples in training) by how
much worse they may be on new examples; it moves q alone, not the loss. Without weight decay or early stopping a
large network fits every group by heart, and then nothing is left to be weighed.

Needs the group of every training example.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.methods.balance import equal_weights
from unrote.methods.base import Fitted, Method, register
from unrote.methods.groupwise import GroupObjective, group_means
from unrote.methods.losses import check_positive
from unrote.methods.search import LogUniform, Uniform, hyper
from unrote.methods.session import Groups, Session
from unrote.models import Stack
from unrote.supervision import cross_entropy
from unrote.training import Batch


class WorstGroup(GroupObjective):
    """The groups' losses, weighted by a distribution over groups that follows them.

    Args:
        y: (n,) labels.
        groups: of the same examples.
        step_size: eta.
        adjustment: K.
    """

    def __init__(self, y: Int[Tensor, " n"], groups: Groups, step_size: float, adjustment: float) -> None:
        super().__init__(y, groups)
        self.step_size, self.adjustment = step_size, adjustment
        self.log_q: Float[Tensor, "S G"] = torch.empty(0, 0)

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Start from equal weights for the groups that have examples, and 0 for the others."""
        super().prepare(stack, n_examples)
        size, dtype = self.groups.size.to(stack.device), next(stack.parameters()).dtype
        start = torch.where(size > 0, 0.0, -torch.inf).log_softmax(0)
        self.log_q = start.to(dtype).repeat(stack.n_members, 1)
        self.handicap = self.adjustment / size.clamp_min(1).to(dtype).sqrt()

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """Move q towards the groups with a high loss, then weight their losses by it."""
        y, group = self.rows(self.y, batch), self.rows(self.groups.index, batch)
        losses = cross_entropy(stack(batch.x, per_member=batch.per_member), y)
        loss, present = group_means(losses, group, self.groups.count)
        risen = self.log_q + torch.where(present, self.step_size * (loss.detach() + self.handicap), 0.0)
        self.log_q = risen.log_softmax(1)
        return (self.log_q.exp() * loss).sum(1)

    def state(self) -> dict[str, Tensor]:
        """Log q of each member."""
        return {"log_q": self.log_q}


@register("groupdro", needs="train", reference="Sagawa et al. 2020, arXiv 1911.08731")
@dataclass(frozen=True)
class GroupDRO(Method):
    """Distributionally robust optimisation over groups.

    Args:
        step_size: eta, at least 0; 0 keeps q equal.
        adjustment: K, at least 0, of the generalisation adjustment; 0 switches it off.
        balanced: whether minibatches are drawn with every group equally likely, as in the paper.
    """

    step_size: float = hyper(0.01, LogUniform(1e-3, 1e-1))
    adjustment: float = hyper(0.0, Uniform(0.0, 5.0))
    balanced: bool = True

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        check_positive("step_size", self.step_size, zero=True, usual="0.001 to 0.1")
        check_positive("adjustment", self.adjustment, zero=True, usual="0 to 5")
        groups = session.training_groups()
        objective = WorstGroup(session.y, groups, self.step_size, self.adjustment)
        sampling = equal_weights(groups.index) if self.balanced else None
        result = session.train(objective, settings=self.settings(), sampling=sampling)
        session.artefacts["group_weights"] = objective.log_q[0].exp().cpu()
        return self.fitted(session, result)
