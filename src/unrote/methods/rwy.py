"""RWY: reweighting to equal classes (Idrissi et al. 2022, arXiv 2110.14503).

    weight[i] = n / (number of classes * size of i's class)
    minimise the weighted mean cross-entropy

Needs the labels alone. It is the baseline that a method without group labels has to beat; with classes of equal
size it is ERM.
"""

from dataclasses import dataclass

from unrote.methods.balance import equal_weights
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.session import Session
from unrote.supervision import Supervision


@register("rwy", needs="none", reference="Idrissi et al. 2022, arXiv 2110.14503")
@dataclass(frozen=True)
class RWY(SupervisionMethod):
    """Reweighting to equal classes."""

    def supervision(self, session: Session) -> Supervision:
        """The labels, and weights under which each class counts the same."""
        return Supervision(session.y, weight=equal_weights(session.y))
