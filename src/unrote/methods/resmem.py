"""ResMem: residual memorization (Yang et al. 2023, arXiv 2302.01576, NeurIPS 2023).

    train ERM; residual r_i = onehot(y_i) - softmax(f(x_i) / T) for each training example
    for x: its k nearest training examples by the features' Euclidean distance d_j
        predict softmax(f(x) / T) + sum_j w_j r_j,  w_j = exp(-d_j / sigma) / sum exp(-d / sigma)

Memorization, put in by hand: what the model did not learn of the training examples is looked up among the
neighbours. Few neighbours let a rare group speak for its own, many are mostly of the majority; a contrast to
the methods that do without memorization. A model that already knows its training examples by heart has no
residuals, and ResMem is ERM.

Needs no groups. The result is no linear head: `Fitted.stack` is ERM, and `logits` are the logarithms of what
is predicted. A linear model's features are its inputs: the neighbours are those of the inputs.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unrote.data.options import check_count
from unrote.methods.base import Fitted, Method, register
from unrote.methods.heads import features
from unrote.methods.losses import check_positive
from unrote.methods.search import Choice, LogUniform, hyper
from unrote.methods.session import Session

_AT_ONCE = 1024  # examples whose distances to all training examples are held at once
_FLOOR = 1e-6


@dataclass
class Remembering(Fitted):
    """A classifier, and the residuals of the training examples to look up.

    Args:
        memory: (n, F) features of the training examples.
        residual: (n, C) what the classifier left unexplained of their labels.
        neighbours: k.
        sigma: of the weights by distance.
        temperature: T.
    """

    stack_alone: ClassVar[bool] = False

    memory: Float[Tensor, "n F"]
    residual: Float[Tensor, "n C"]
    neighbours: int
    sigma: float
    temperature: float

    def logits(self, x: Any) -> Float[Tensor, "m C"]:
        """Logarithms of the predicted shares, which sum to one and are floored where they are not positive."""
        p = (self.stack.predict(x)[0].double() / self.temperature).softmax(1)
        looked_up = [self._look_up(batch) for batch in features(self.stack, x).split(_AT_ONCE)]
        return (p + torch.cat(looked_up)).clamp_min(_FLOOR).log()

    def _look_up(self, x: Float[Tensor, "b F"]) -> Float[Tensor, "b C"]:
        """The mean residual of each example's nearest neighbours, the nearer the weightier."""
        k = min(self.neighbours, len(self.memory))
        nearest = torch.cdist(x, self.memory).topk(k, largest=False)
        weight = (-nearest.values / self.sigma).softmax(1)
        return (weight.unsqueeze(2) * self.residual[nearest.indices]).sum(1)


@register("resmem", needs="none", reference="Yang et al. 2023, arXiv 2302.01576")
@dataclass(frozen=True)
class ResMem(Method):
    """Residual memorization.

    Args:
        neighbours: k, at least 1; all training examples if there are fewer.
        sigma: distance over which a neighbour's weight falls by a factor e, > 0; of the scale of the features.
        temperature: T of the base model's probabilities, > 0.
        share: of the steps, after which the base model stops, in (0, 1]; a shorter one leaves more to memorize.
    """

    neighbours: int = hyper(10, Choice((5, 10, 20, 50, 100)))
    sigma: float = hyper(0.7, LogUniform(0.1, 10.0))
    temperature: float = hyper(1.4, LogUniform(0.5, 4.0))
    share: float = hyper(1.0)

    def __post_init__(self) -> None:
        check_count("neighbours", self.neighbours, 1)
        check_positive("sigma", self.sigma)
        check_positive("temperature", self.temperature)

    def fit(self, session: Session) -> Fitted:
        """Train ERM, and keep the features and residuals of its training examples."""
        erm, x = session.erm(self.share), session.task.train.x
        p = (erm.stack.predict(x)[0].double() / self.temperature).softmax(1)
        residual = F.one_hot(session.y, session.task.n_classes) - p
        known = features(erm.stack, x), residual, self.neighbours, self.sigma, self.temperature
        return Remembering(self, erm, dict(session.artefacts), *known)
