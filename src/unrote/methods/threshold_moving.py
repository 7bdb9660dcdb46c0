"""Threshold moving: ERM, then predicted probabilities over class priors (Collell et al. 2018, arXiv 1606.08698).

    train ERM
    pi[c] = share of class c among the training examples
    predict the class with the largest p(c | x) / pi[c]^tau

Needs the labels alone, and no training beyond ERM's: log p - tau * log pi is ERM's logits with another bias, so
the trained head's bias is lowered by tau * log pi. Menon et al. 2021 (arXiv 2007.07314) call it post-hoc logit
adjustment. What is scored while training goes on is ERM.
"""

from dataclasses import dataclass

from unrote.methods.balance import log_prior
from unrote.methods.base import Fitted, SupervisionMethod, register
from unrote.methods.losses import check_positive
from unrote.methods.search import Uniform, hyper
from unrote.methods.session import Session
from unrote.supervision import Supervision
from unrote.training import TrainingResult


@register("threshold_moving", needs="none", reference="Collell et al. 2018, arXiv 1606.08698")
@dataclass(frozen=True)
class ThresholdMoving(SupervisionMethod):
    """ERM with its decision thresholds moved by the class prior.

    Args:
        tau: power of the prior, at least 0; 1 divides by the prior itself, 0 is ERM.
    """

    tau: float = hyper(1.0, Uniform(0.5, 2.5))

    def __post_init__(self) -> None:
        check_positive("tau", self.tau, zero=True, usual="0.5 to 2.5")

    def supervision(self, session: Session) -> Supervision:
        """Nothing but the labels."""
        return Supervision(session.y)

    def fitted(self, session: Session, result: TrainingResult, member: int = 0) -> Fitted:
        """ERM's classifier with the prior taken off its bias."""
        fitted = super().fitted(session, result, member)
        weight, bias = fitted.stack.head()
        prior = log_prior(session.y, session.task.n_classes)
        fitted.stack.set_head(weight, bias - self.tau * prior.to(bias))
        return fitted
