"""RWG: reweighting to equal groups, with known groups (Idrissi et al. 2022, arXiv 2110.14503).

    weight[i] = n / (number of groups * size of i's group)
    minimise the weighted mean cross-entropy

Needs the group of every training example.
"""

from dataclasses import dataclass

from unrote.methods.balance import equal_weights
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.session import Session
from unrote.supervision import Supervision


@register("rwg", needs="train", reference="Idrissi et al. 2022, arXiv 2110.14503")
@dataclass(frozen=True)
class RWG(SupervisionMethod):
    """Reweighting to equal groups."""

    def supervision(self, session: Session) -> Supervision:
        """The labels, and weights under which each group counts the same."""
        return Supervision(session.y, weight=equal_weights(session.training_groups().index))
