"""MMD: features with the same distribution for every attribute, by kernels (Gretton et al. 2012, Li et al. 2018).

    for each class, and each two attributes with at least two examples of it in the minibatch:
        k(u, v) = mean over widths w of exp(-|u - v|^2 / (w * m)), m = median squared distance between examples
        MMD^2 = mean k within the one + mean k within the other - 2 * mean k between them
    take a step on the mean cross-entropy + lambda * mean MMD^2

Means within a sample leave out each example's distance to itself: with the few examples that a minibatch has of
a rare group, the estimate would otherwise reward features for being all alike. Widths follow the features' own
scale, which the network could otherwise shrink to make everything alike. Features are compared within each
class: where attribute and class go together, features that do not differ between attributes cannot tell classes
apart either (Veitch et al. 2021, arXiv 2106.00545). `within_class=False` compares them all the same.

The default lambda, the end of the published range (0.1 to 10), did best in it on the validation groups of our small
tasks; with hidden layers 100 does better still, and it takes all signal from a linear head.

Needs the attribute of every training example. To a linear head, whose features are the examples, the logits are
the features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unrote.methods.base import register
from unrote.methods.matching import MatchingMethod

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the kernels, in units of the median squared distance."""


def squared_mmd(one: Float[Tensor, "p F"], other: Float[Tensor, "q F"]) -> Float[Tensor, ""]:
    """The unbiased estimate of the squared maximum mean discrepancy of two samples; it can be below 0."""
    p, q = len(one), len(other)
    both = torch.cat([one, other])
    both = both - both.mean(0).detach()  # what follows subtracts large numbers if features are far from 0
    length = both.square().sum(1)
    apart = (length.unsqueeze(0) + length.unsqueeze(1) - 2 * both @ both.T).clamp_min(0)
    off_diagonal = ~torch.eye(p + q, dtype=torch.bool, device=both.device)
    # where all are alike any width will do, but not 0
    median = apart.detach()[off_diagonal].median().clamp_min(torch.finfo(both.dtype).tiny)
    kernel = torch.stack([(-apart / (width * median)).exp() for width in WIDTHS]).mean(0) * off_diagonal
    within = kernel[:p, :p].sum() / (p * (p - 1)) + kernel[p:, p:].sum() / (q * (q - 1))
    return within - 2 * kernel[:p, p:].mean()


@register("mmd", needs="train", reference="Li et al. 2018 (CVPR); Gretton et al. 2012 (JMLR 13)")
@dataclass(frozen=True)
class MMD(MatchingMethod):
    """Maximum mean discrepancy between attributes.

    Args:
        strength: lambda, at least 0; 0 is ERM.
        within_class: whether attributes are compared within each class.
    """

    def distance(self, one: Float[Tensor, "p F"], other: Float[Tensor, "q F"]) -> Float[Tensor, ""]:
        """See `squared_mmd`."""
        return squared_mmd(one, other)
