"""LISA: mixing examples so that the attribute says nothing of the class (Yao et al. 2022, arXiv 2201.00299).

    for each minibatch: lam ~ Beta(alpha, alpha); with probability `within_class`
            each example's partner is one of the same class with another attribute     (intra-label)
        else each example's partner is one of another class with the same attribute    (intra-domain)
        x' = lam * x + (1 - lam) * x_partner
        take a step on the mean of lam * CE(f(x'), y) + (1 - lam) * CE(f(x'), y_partner)

Partners are drawn from the whole training set, so that a group absent from the minibatch takes part. An example
without a partner of the one kind gets one of the other; without either it stays as it is. Examples that are not
one tensor of floating-point numbers (token indices) are mixed in the features, which the last layer turns into
mixed logits.

Needs the group of every training example.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.data import Inputs
from unrote.errors import OptionError
from unrote.methods.base import Fitted, Method, register
from unrote.methods.groupwise import GroupObjective
from unrote.methods.losses import check_positive
from unrote.methods.mixing import Partners, beta_share
from unrote.methods.search import Choice, LogUniform, hyper
from unrote.methods.session import Groups, Session
from unrote.models import Stack
from unrote.seeding import generator
from unrote.supervision import cross_entropy
from unrote.training import Batch


class SelectiveMixing(GroupObjective):
    """Cross-entropy on mixed examples.

    Args:
        x: the training examples.
        y: (n,) labels.
        groups: of the same examples.
        within_class: probability that partners are of the same class.
        alpha: of the Beta distribution.
        seed: of everything drawn.
    """

    reads_examples = True

    def __init__(
        self, x: Inputs, y: Int[Tensor, " n"], groups: Groups, within_class: float, alpha: float, seed: int
    ) -> None:
        super().__init__(y, groups)
        self.x, self.within_class, self.alpha, self.seed = x, within_class, alpha, seed
        self.kinds = (Partners(y, groups.attribute), Partners(groups.attribute, y))

    @property
    def alone(self) -> Bool[Tensor, " n"]:
        """Which examples have no partner of either kind."""
        return (self.kinds[0].available == 0) & (self.kinds[1].available == 0)

    def partners(self, batch: Batch) -> Int[Tensor, "*S B"]:
        """A partner for each example of the minibatch."""
        random, index = generator(self.seed, "lisa", batch.step), batch.index.cpu()
        kind = 0 if float(torch.rand((), generator=random)) < self.within_class else 1
        chance = torch.rand(index.shape, generator=random)
        first, second = (self.kinds[k].draw(index, chance) for k in (kind, 1 - kind))
        return torch.where(self.kinds[kind].available[index] > 0, first, second)

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The mixed loss on the minibatch, whose examples all have the same share."""
        partner, share = self.partners(batch), beta_share(self.alpha, self.seed, "lisa", "share", batch.step)
        other, per_member = stack.place(self.x[partner]), batch.per_member
        if isinstance(batch.x, Tensor) and batch.x.is_floating_point():
            logits = stack(share * batch.x + (1 - share) * other, per_member=per_member)
        else:
            logits = share * stack(batch.x, per_member=per_member)
            logits = logits + (1 - share) * stack(other, per_member=per_member)
        y = self.rows(self.y, batch)
        y_partner = self.y[partner].to(logits.device).expand(len(y), -1)
        return (share * cross_entropy(logits, y) + (1 - share) * cross_entropy(logits, y_partner)).mean(1)


@register("lisa", needs="train", reference="Yao et al. 2022, arXiv 2201.00299")
@dataclass(frozen=True)
class LISA(Method):
    """Learning invariant predictors with selective augmentation.

    Args:
        within_class: p_sel, in [0, 1], the probability that a minibatch mixes within classes.
        alpha: of Beta(alpha, alpha), above 0; the larger, the nearer to halves.
    """

    within_class: float = hyper(0.5, Choice((0.0, 0.5, 1.0)))
    alpha: float = hyper(2.0, LogUniform(0.1, 10.0))

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task.

        Raises:
            OptionError: if a setting is out of range.
        """
        check_positive("alpha", self.alpha, usual="2")
        if not 0 <= self.within_class <= 1:
            raise OptionError(f"within_class={self.within_class}: a probability from 0 to 1 is wanted")
        objective = SelectiveMixing(
            session.task.train.x,
            session.y,
            session.training_groups(),
            self.within_class,
            self.alpha,
            session.seed,
        )
        if bool(objective.alone.any()):
            warnings.warn(
                f"{int(objective.alone.sum())} training examples have no partner, as their class has one "
                "attribute and their attribute one class: they are not mixed; choose other groups",
                UserWarning,
                stacklevel=2,
            )
        return self.fitted(session, session.train(objective, settings=self.settings()))
