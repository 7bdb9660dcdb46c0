"""ERM: empirical risk minimisation, the baseline that learns by rote: minimise the mean cross-entropy."""

from dataclasses import dataclass

from unrote.methods.base import SupervisionMethod, register
from unrote.methods.session import Session
from unrote.supervision import Supervision


@register("erm", needs="none", reference="Vapnik 1991")
@dataclass(frozen=True)
class ERM(SupervisionMethod):
    """Empirical risk minimisation: weight 1, shift 0."""

    def supervision(self, session: Session) -> Supervision:
        """Nothing but the labels."""
        return Supervision(session.y)
