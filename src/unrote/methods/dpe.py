"""DPE: diverse prototypical ensembles (To et al. 2025, arXiv 2505.23027, ICML 2025).

    train ERM; keep its features z, scaled to length 1, of held-out examples
    for n = 1, 2, ..., N:
        draw as many examples of each class, with replacement
        fit one prototype p_c of length 1 for each class, and a scale d, to minimise on these
            CE of the logits -|d| * |z - p_c| / temperature
            + diversity * (2 / n) * sum over c and the members before of |<p_c, their p_c>|
    predict by the mean over members of softmax(-|d| * |z - p_c|)

Members see other examples and are kept from each other's prototypes, so that some find what rarer groups have
in common. The paper's gains come on validation splits whose groups are balanced within the class; with the
shortcut as strong there as in training there is little for the members to find. The paper divides the penalty
by the number of features, as its prototypes have that squared length; here they have length 1.

Needs no groups. Held out is the validation split (its labels without groups) or a share of training. The
result is no linear head: `Fitted.stack` is ERM, and `logits` are the ensemble's log-probabilities. A linear
model's features are its inputs.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.data.options import check_count
from unrote.methods.balance import equal_weights
from unrote.methods.base import Fitted, Method, register
from unrote.methods.heads import HoldOut, check_hold_out, erm_and_held_out, features
from unrote.methods.losses import check_positive
from unrote.methods.search import Choice, LogUniform, hyper
from unrote.methods.session import Session
from unrote.seeding import generator


@dataclass
class PrototypeEnsemble(Fitted):
    """ERM's features, classified by an ensemble of prototypes.

    Args:
        prototypes: (N, C, F) of length 1, in double precision.
        scale: (N,) of the distances.
    """

    stack_alone: ClassVar[bool] = False

    prototypes: Float[Tensor, "N C F"]
    scale: Float[Tensor, " N"]

    def logits(self, x: Any) -> Float[Tensor, "n C"]:
        """Log of the members' mean probabilities."""
        z = F.normalize(features(self.stack, x), dim=1)
        log_p = F.log_softmax(-self.scale.abs().view(-1, 1, 1) * distances(z, self.prototypes), dim=2)
        return log_p.logsumexp(0) - torch.tensor(float(len(log_p))).log()


def distances(z: Float[Tensor, "n F"], prototypes: Float[Tensor, "*N C F"]) -> Float[Tensor, "*N n C"]:
    """Euclidean distances between vectors of length 1."""
    # below the square root's reach, where its slope would be infinite
    return (2 - 2 * z @ prototypes.mT).clamp_min(1e-12).sqrt()


@register("dpe", needs="none", reference="To et al. 2025, arXiv 2505.23027")
@dataclass(frozen=True)
class DPE(Method):
    """Diverse prototypical ensembles.

    Args:
        members: N, prototypes per class.
        diversity: weight of the similarity between members' prototypes, at least 0.
        temperature: of the training loss, > 0.
        steps: full-batch steps of Adam for each member.
        learning_rate: of Adam.
        hold_out: "validation" fits to the validation examples, "train" to a share of training that ERM is kept
            from.
        share: of training that is held out, above 0 and below 1.
    """

    members: int = hyper(15, Choice((5, 15, 30)))
    diversity: float = hyper(0.1, LogUniform(1e-3, 1.0))
    temperature: float = hyper(0.1, LogUniform(0.01, 1.0))
    steps: int = hyper(100)
    learning_rate: float = hyper(0.1)
    hold_out: HoldOut = "validation"
    share: float = hyper(0.2)

    def __post_init__(self) -> None:
        check_count("members", self.members, 1)
        check_count("steps", self.steps, 1)
        check_positive("diversity", self.diversity, zero=True)
        check_positive("temperature", self.temperature)
        check_positive("learning_rate", self.learning_rate)
        check_hold_out(self.hold_out, self.share)

    def fit(self, session: Session) -> Fitted:
        """Train ERM, then fit prototypes to its features, one member after the other."""
        held_out = erm_and_held_out(session, self.hold_out, self.share)
        z, y = F.normalize(held_out.features(), dim=1), held_out.y
        chance = equal_weights(y) * held_out.weight
        fixed = torch.zeros(0, session.task.n_classes, z.shape[1], dtype=torch.float64)
        scales = []
        for n in range(self.members):
            random = generator(session.seed, "dpe", n)
            drawn = torch.multinomial(chance, len(y), replacement=True, generator=random)
            start = torch.randn(fixed.shape[1:], generator=random, dtype=torch.float64)
            prototypes, scale = self.member(z[drawn], y[drawn], start, fixed)
            fixed = torch.cat([fixed, prototypes.unsqueeze(0)])
            scales.append(scale)
        training, artefacts = held_out.training, dict(session.artefacts)
        return PrototypeEnsemble(self, training, artefacts, fixed, torch.stack(scales))

    def member(
        self,
        z: Float[Tensor, "n F"],
        y: Int[Tensor, " n"],
        start: Float[Tensor, "C F"],
        before: Float[Tensor, "m C F"],
    ) -> tuple[Float[Tensor, "C F"], Float[Tensor, ""]]:
        """Prototypes and scale of one member, given the prototypes of those before."""
        raw, scale = start.clone().requires_grad_(), torch.ones((), dtype=z.dtype).requires_grad_()
        optimizer = torch.optim.Adam([raw, scale], lr=self.learning_rate)
        for _ in range(self.steps):
            loss = member_loss(F.normalize(raw, dim=1), scale, z, y, before, self.diversity, self.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return F.normalize(raw.detach(), dim=1), scale.detach()


def member_loss(
    prototypes: Float[Tensor, "C F"],
    scale: Float[Tensor, ""],
    z: Float[Tensor, "n F"],
    y: Int[Tensor, " n"],
    before: Float[Tensor, "m C F"],
    diversity: float,
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of a member, and the likeness of its prototypes to those of the members before."""
    alike = (prototypes * before).sum(2).abs().sum() * 2 / (len(before) + 1)
    return F.cross_entropy(-scale.abs() * distances(z, prototypes) / temperature, y) + diversity * alike
