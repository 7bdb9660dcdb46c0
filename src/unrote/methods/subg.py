"""SUBG: subsampling to equal groups, with known groups (Idrissi et al. 2022, arXiv 2110.14503).

    m = size of the smallest group that has examples
    choose m examples of each group at random, once and for all
    minimise the mean cross-entropy on the chosen examples

Needs the group of every training example. The others have weight 0: an epoch passes over each chosen example
once, as one over the subset would, and a minibatch holds the subset's share of `batch_size`.
"""

from dataclasses import dataclass

from unrote.methods.balance import equal_subset
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.session import Session
from unrote.seeding import generator
from unrote.supervision import Supervision


@register("subg", needs="train", reference="Idrissi et al. 2022, arXiv 2110.14503")
@dataclass(frozen=True)
class SUBG(SupervisionMethod):
    """Subsampling to equal groups."""

    def supervision(self, session: Session) -> Supervision:
        """The labels, and weight 1 for as many examples of each group as the smallest has."""
        group = session.training_groups().index
        return Supervision(session.y, weight=equal_subset(group, generator(session.seed, "subset")))
