"""Logit adjustment: the class prior as a shift of the training logits (Menon et al. 2021, arXiv 2007.07314).

    pi[c] = share of class c among the training examples
    minimise mean CE(f(x_i) + tau * log pi, y_i)
    predict with f alone

Needs the labels alone. At tau = 1 the loss is consistent for the balanced error: the mean of the classes' errors
is what its minimiser minimises. MAT with held-out logits that say the same of every example is this method.
"""

from dataclasses import dataclass

from unrote.methods.balance import log_prior
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.losses import check_positive
from unrote.methods.search import Uniform, hyper
from unrote.methods.session import Session
from unrote.supervision import Supervision


@register("logit_adjustment", needs="none", reference="Menon et al. 2021, arXiv 2007.07314")
@dataclass(frozen=True)
class LogitAdjustment(SupervisionMethod):
    """Logit adjustment, as a training loss.

    Args:
        tau: how much of the log prior is added, at least 0; 0 is ERM.
    """

    tau: float = hyper(1.0, Uniform(0.5, 2.5))

    def __post_init__(self) -> None:
        check_positive("tau", self.tau, zero=True, usual="0.5 to 2.5")

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the log prior as everybody's shift."""
        prior = log_prior(session.y, session.task.n_classes)
        return Supervision(session.y, shift=(self.tau * prior).expand(len(session.y), -1))
