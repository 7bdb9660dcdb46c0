"""CVaR-DRO: the mean of the worst share of the losses (Levy et al. 2020, arXiv 2010.05893).

    repeat, for each minibatch of B:
        sort the examples by their cross-entropy, largest first
        the first alpha * B have weight 1 / (alpha * B), the one at the edge what is left, the others 0
        take a step on the weighted sum

Needs the labels alone. The weights are those that make the loss largest while no example has more than 1/alpha
times its share: robustness to every subpopulation of that size, whatever it is. alpha = 1 is ERM.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import OptionError
from unrote.methods.base import register
from unrote.methods.losses import LossMethod
from unrote.methods.search import LogUniform, hyper
from unrote.supervision import cross_entropy


@register("cvar", needs="none", reference="Levy et al. 2020, arXiv 2010.05893")
@dataclass(frozen=True)
class CVaR(LossMethod):
    """Conditional value at risk of the losses.

    Args:
        alpha: the share of examples that counts, above 0 and at most 1.

    Raises:
        OptionError: if it is not.
    """

    alpha: float = hyper(0.1, LogUniform(0.01, 1.0))

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise OptionError(f"alpha={self.alpha}: a share above 0 and at most 1 is wanted, 0.1 is usual")

    def losses(self, logits: Float[Tensor, "S B C"], target: Int[Tensor, "s B"]) -> Float[Tensor, "S B"]:
        """Cross-entropy."""
        return cross_entropy(logits, target)

    def reduce(self, losses: Float[Tensor, "S B"], weight: Float[Tensor, " B"] | None) -> Float[Tensor, " S"]:
        """The mean of the largest losses that together have the share `alpha` of the weight."""
        losses, order = losses.sort(1, descending=True)
        weight = torch.ones_like(losses) if weight is None else weight.to(losses)[order]
        left = self.alpha * weight.sum(1, keepdim=True) - (weight.cumsum(1) - weight)
        counted = torch.minimum(left.clamp_min(0), weight)
        return (counted * losses).sum(1) / counted.sum(1).clamp_min(torch.finfo(losses.dtype).tiny)
