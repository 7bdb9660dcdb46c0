"""CBLoss: weights from the effective number of examples (Cui et al. 2019, arXiv 1901.05555).

    beta = 1 - 1/N
    effective size of class c = (1 - beta^n_c) / (1 - beta)
    weight[i] = 1 / effective size of i's class, scaled so that the classes' weights sum to their number
    minimise the weighted mean cross-entropy

Needs the labels alone. The more examples a class has, the more of them repeat one another; N says how many
different ones there are. N = 1 is ERM, N towards infinity RWY.
"""

from dataclasses import dataclass

import torch

from unrote.methods.balance import check_volume, effective_size
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.search import LogUniform, hyper
from unrote.methods.session import Session
from unrote.supervision import Supervision


@register("cb_loss", needs="none", reference="Cui et al. 2019, arXiv 1901.05555")
@dataclass(frozen=True)
class CBLoss(SupervisionMethod):
    """Class-balanced loss.

    Args:
        volume: the paper's N, at least 1; its beta = 0.9999 is N = 10,000.
    """

    volume: float = hyper(1e4, LogUniform(1e2, 1e5))

    def __post_init__(self) -> None:
        check_volume(self.volume)

    def supervision(self, session: Session) -> Supervision:
        """The labels, and weights from each class's effective size."""
        size = torch.bincount(session.y)
        inverse = torch.where(size > 0, 1 / effective_size(size, self.volume), 0.0)
        weight = inverse * (size > 0).sum() / inverse.sum()
        return Supervision(session.y, weight=weight[session.y])
