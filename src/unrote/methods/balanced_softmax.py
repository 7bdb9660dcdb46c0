"""Balanced softmax: class sizes inside the training softmax (Ren et al. 2020, arXiv 2007.10740).

    p(c | x_i) = n_c exp(f_c(x_i)) / sum over classes k of n_k exp(f_k(x_i))
    minimise the mean of -log p(y_i | x_i)
    predict with f alone

Needs the labels alone. As a softmax does not see a constant, log n_c is the shift log(n_c / n): logit adjustment
at tau = 1.
"""

from dataclasses import dataclass

from unrote.methods.balance import log_prior
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.session import Session
from unrote.supervision import Supervision


@register("balanced_softmax", needs="none", reference="Ren et al. 2020, arXiv 2007.10740")
@dataclass(frozen=True)
class BalancedSoftmax(SupervisionMethod):
    """Balanced softmax."""

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the log class share as everybody's shift."""
        prior = log_prior(session.y, session.task.n_classes)
        return Supervision(session.y, shift=prior.expand(len(session.y), -1))
