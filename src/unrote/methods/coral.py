"""CORAL: features with the same mean and covariance for every attribute (Sun and Saenko 2016, arXiv 1607.01719).

    for each class, and each two attributes with at least two examples of it in the minibatch:
        distance = mean over features of (difference of means)^2
                 + mean over pairs of features of (difference of covariances)^2
    take a step on the mean cross-entropy + lambda * mean distance

The paper compares covariances alone, divided by 4 where this one is not; means are compared too wherever the
method stands in for matching groups, as a shortcut shows in the mean first (Gulrajani and Lopez-Paz 2021, arXiv
2007.01434). Features are compared within each class: where attribute and class go together, features that do
not differ between attributes cannot tell classes apart either. `within_class=False` compares them all the same.

The distance has the scale of the features, so lambda has too: small features want a large one, and a network can
escape the penalty by shrinking its features and growing its head. The published range ends at 10, for features of
ResNets; the default of 100 did best on the validation groups of our small tasks. MMD does not depend on the scale.

Needs the attribute of every training example. To a linear head, whose features are the examples, the logits are
the features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unrote.methods.base import register
from unrote.methods.matching import MatchingMethod
from unrote.methods.search import LogUniform, hyper


def moment_distance(one: Float[Tensor, "p F"], other: Float[Tensor, "q F"]) -> Float[Tensor, ""]:
    """Mean squared differences of the means and of the covariances (with divisor n - 1) of two samples."""
    means = one.mean(0) - other.mean(0)
    covariances = torch.atleast_2d(one.T.cov()) - torch.atleast_2d(other.T.cov())
    distance: Tensor = means.square().mean() + covariances.square().mean()
    return distance


@register("coral", needs="train", reference="Sun and Saenko 2016, arXiv 1607.01719")
@dataclass(frozen=True)
class CORAL(MatchingMethod):
    """Correlation alignment between attributes.

    Args:
        strength: lambda, at least 0; 0 is ERM.
        within_class: whether attributes are compared within each class.
    """

    strength: float = hyper(100.0, LogUniform(0.1, 1000.0))

    def distance(self, one: Float[Tensor, "p F"], other: Float[Tensor, "q F"]) -> Float[Tensor, ""]:
        """See `moment_distance`."""
        return moment_distance(one, other)
