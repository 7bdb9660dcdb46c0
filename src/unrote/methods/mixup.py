"""mixup: training on convex combinations of pairs of examples (Zhang et al. 2018, arXiv 1710.09412).

    repeat, for each minibatch:
        draw s from Beta(alpha, alpha), and a random partner j of each example i
        x = s * x_i + (1 - s) * x_j
        take a step on the mean of s * CE(f(x), y_i) + (1 - s) * CE(f(x), y_j)

Needs the labels alone, and inputs that can be mixed: pictures or features, not token indices.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.methods.base import Fitted, Method, register
from unrote.methods.biased import LabelObjective, weighted_mean
from unrote.methods.losses import check_positive
from unrote.methods.mixing import beta_share, mixed, random_partners
from unrote.methods.search import LogUniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.seeding import generator
from unrote.supervision import cross_entropy
from unrote.training import Batch


class MixupObjective(LabelObjective):
    """Cross-entropy of mixed examples with both labels, by their shares in the mixture.

    Args:
        y: (n,) labels.
        alpha: of the shares' distribution.
        seed: of shares and partners.
    """

    reads_examples = True

    def __init__(self, y: Int[Tensor, " n"], alpha: float, seed: int) -> None:
        super().__init__(y)
        self.alpha, self.seed = alpha, seed

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The loss of each member; all see the same mixtures. A sample weight is that of the example's label."""
        share = beta_share(self.alpha, self.seed, "mixup", "share", batch.step)
        random = generator(self.seed, "mixup", "partner", batch.step)
        target = self.y[batch.index]
        partner = random_partners(len(target), random).to(target.device)
        shares = torch.full(partner.shape, share, device=partner.device)
        logits = stack(mixed(batch.x, partner, shares))
        labels, parts = torch.cat([target, target[partner]]), torch.cat([shares, 1 - shares])
        if self.sample_weight is not None:
            weight = self.sample_weight[batch.index]
            parts = parts * torch.cat([weight, weight[partner]])
        return weighted_mean(cross_entropy(logits.repeat(1, 2, 1), labels.unsqueeze(0)), parts)


@register("mixup", needs="none", reference="Zhang et al. 2018, arXiv 1710.09412")
@dataclass(frozen=True)
class Mixup(Method):
    """Training on mixtures.

    Args:
        alpha: of the Beta distribution, above 0; small values hardly mix, 1 mixes in every proportion alike.
    """

    alpha: float = hyper(0.2, LogUniform(0.1, 10.0))

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha, usual="0.1 to 10")

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        objective = MixupObjective(session.y, self.alpha, session.seed)
        return self.fitted(session, session.train(objective, settings=self.settings()))
