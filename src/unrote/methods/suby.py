"""SUBY: subsampling to equal classes (Idrissi et al. 2022, arXiv 2110.14503).

    m = size of the smallest class
    choose m examples of each class at random, once and for all
    minimise the mean cross-entropy on the chosen examples

Needs the labels alone. The others have weight 0: an epoch passes over each chosen example once, as one over the
subset would, and a minibatch holds the subset's share of `batch_size`.
"""

from dataclasses import dataclass

from unrote.methods.balance import equal_subset
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.session import Session
from unrote.seeding import generator
from unrote.supervision import Supervision


@register("suby", needs="none", reference="Idrissi et al. 2022, arXiv 2110.14503")
@dataclass(frozen=True)
class SUBY(SupervisionMethod):
    """Subsampling to equal classes."""

    def supervision(self, session: Session) -> Supervision:
        """The labels, and weight 1 for as many examples of each class as the smallest has."""
        return Supervision(session.y, weight=equal_subset(session.y, generator(session.seed, "subset")))
