"""RWG: reweighting to equal groups, with known groups (Idrissi et al. 2022, arXiv 2110.14503).

    weight[i] = n / (number of groups * size of i's group)
    minimise the weighted mean cross-entropy

Needs the group of every training example.
"""

from dataclasses import dataclass

import torch

from unrote.methods.base import Session, SupervisionMethod, register
from unrote.supervision import Supervision


@register("rwg", needs="train", reference="Idrissi et al. 2022, arXiv 2110.14503")
@dataclass(frozen=True)
class RWG(SupervisionMethod):
    """Reweighting to equal groups."""

    def supervision(self, session: Session) -> Supervision:
        """The labels, and weights under which each group counts the same."""
        group = session.task.group(session.task.train)
        size = torch.bincount(group)
        return Supervision(session.y, weight=len(group) / ((size > 0).sum() * size[group]).float())
