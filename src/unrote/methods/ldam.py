"""LDAM with deferred reweighting: larger margins for smaller classes (Cao et al. 2019, arXiv 1906.07413).

    z_c = cosine of the features of x and the weights of class c       (features and weights of length 1, no bias)
    margin[c] proportional to n_c^(-1/4), the largest being max_margin
    minimise the mean of CE(scale * (z - margin[y_i] at y_i's place), y_i)
    for the last part of training, weight the examples by 1 / effective size of their class (CBLoss)
    predict the class with the largest z_c

Needs the labels alone. Without the unit lengths a model could make any margin small by growing its logits. After
every step the weights of each class are brought back to length 1 and the bias to 0, which leaves z as it is and
makes the model's plain logits rank the classes as z does. For a linear head the features are the inputs. The
paper lowers the learning rate as reweighting sets in; here it is the recipe's throughout.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unrote.errors import OptionError
from unrote.methods.balance import check_volume, effective_size
from unrote.methods.base import Fitted, Method, register
from unrote.methods.losses import check_positive
from unrote.methods.search import Choice, LogUniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.supervision import Supervision
from unrote.training import Batch, Objective, Order, processes_of


class MarginObjective(Objective):
    """Cross-entropy of cosines with the label's own lowered, weighted from a step on.

    Args:
        supervision: labels; the shift lowers each label's own logit; the weights apply once they are due.
        scale: of cosines and shift.
        reweight_from: the first step at which weights apply.
    """

    def __init__(self, supervision: Supervision, scale: float, reweight_from: int) -> None:
        self.weighted, self.scale, self.reweight_from = supervision, scale, reweight_from
        self.plain = Supervision(supervision.target, shift=supervision.shift)

    def with_weight(self, weight: Float[Tensor, " n"]) -> "MarginObjective":
        """The same with the examples weighted, from the first step on."""
        objective = MarginObjective(self.weighted.weighted(weight), self.scale, self.reweight_from)
        objective.plain = self.plain.weighted(weight)
        return objective

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit the examples or the stack."""
        self.weighted.check(n_examples, stack.n_members, stack.n_classes)
        self.weighted, self.plain = self.weighted.to(stack.device), self.plain.to(stack.device)

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The loss of each member."""
        features, _ = stack.features_and_logits(batch.x, per_member=batch.per_member)
        heads = torch.stack([stack.live_head(member)[0] for member in range(stack.n_members)])
        if (processes := processes_of(stack)) is not None and processes.rank:
            # gradients are added up over processes, and each has the whole of this one
            heads = heads.detach()
        cosine = F.normalize(features, dim=-1) @ F.normalize(heads, dim=-1).mT
        supervision = self.plain if batch.step < self.reweight_from else self.weighted
        return supervision.batch(batch.index).loss(self.scale * cosine)

    @torch.no_grad()
    def after_step(self, stack: Stack, batch: Batch) -> None:
        """Bring the weights of each class back to length 1, and the bias to 0."""
        for member in range(stack.n_members):
            weight, bias = stack.live_head(member)
            weight.copy_(F.normalize(weight, dim=-1))
            if bias is not None:
                bias.zero_()


@register("ldam", needs="none", reference="Cao et al. 2019, arXiv 1906.07413")
@dataclass(frozen=True)
class LDAM(Method):
    """Label-distribution-aware margins, with deferred reweighting.

    Args:
        max_margin: margin of the smallest class, in cosine, above 0.
        scale: of the cosines before the softmax, above 0.
        defer: share of the training without weights, from 0 to 1; 1 never weights.
        volume: the weights' N, at least 1; beta = 1 - 1/N.

    Raises:
        OptionError: if one is out of range.
    """

    max_margin: float = hyper(0.5, LogUniform(0.1, 0.8))
    scale: float = hyper(30.0, Choice((10.0, 30.0)))
    defer: float = hyper(0.8)
    volume: float = hyper(1e4)

    def __post_init__(self) -> None:
        check_positive("max_margin", self.max_margin, usual="0.1 to 0.8")
        check_positive("scale", self.scale, usual="10 to 30")
        check_volume(self.volume)
        if not 0 <= self.defer <= 1:
            raise OptionError(f"defer={self.defer}: a share from 0 to 1 is wanted, 0.8 is usual")

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        steps = session.recipe.total_steps(Order(len(session.y), session.recipe.batch_size).steps_per_epoch)
        objective = MarginObjective(self.supervision(session), self.scale, math.ceil(self.defer * steps))
        return self.fitted(session, session.train(objective, settings=self.settings()))

    def supervision(self, session: Session) -> Supervision:
        """The labels, the scaled margins as a shift of each label's own logit, and the weights."""
        y, size = session.y, torch.bincount(session.y, minlength=session.task.n_classes)
        # a class without examples has no margin to ask for
        margin = torch.where(size > 0, size.clamp_min(1).float() ** -0.25, 0.0)
        margin = self.max_margin * margin / margin.max()
        shift = -self.scale * F.one_hot(y, len(size)) * margin
        weight = 1 / effective_size(size, self.volume)[y]
        return Supervision(y, weight=weight, shift=shift)
