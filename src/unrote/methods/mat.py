"""MAT: memorization-aware training (Bayat et al. 2024, arXiv 2412.07684, ICLR 2025).

    h = held-out logits of the training examples, from XRM's twins
    shift[i, :] = log p(y | h_i), calibrated with temperature T          (unrote.shift)
    minimise mean CE(f(x_i) + shift[i, :], y_i)
    predict with f alone

What held-out predictions (the shortcut) already explain earns nothing; what is left to learn is what holds
where the shortcut fails. Neither training nor prediction sees a group label.
"""

from dataclasses import dataclass

from unrote.methods.base import SupervisionMethod, register
from unrote.methods.search import Choice, hyper
from unrote.methods.session import HeldOutSource, Session
from unrote.shift import check_temperatures, logit_shift
from unrote.supervision import Supervision


@register("mat", needs="none", reference="Bayat et al. 2025, arXiv 2412.07684")
@dataclass(frozen=True)
class MAT(SupervisionMethod):
    """Memorization-aware training.

    Args:
        temperature: T of the calibration, > 0; the paper searches 0.001, 0.01, 0.1.
        held_out: "xrm", "kfold", "alo" (a linear head's, in closed form), or (n, C) held-out logits or
            probabilities of one's own.
    """

    temperature: float = hyper(0.1, Choice((0.001, 0.01, 0.1, 0.3, 1.0, 2.0)))
    held_out: HeldOutSource = "xrm"

    def __post_init__(self) -> None:
        check_temperatures(self.temperature)  # before twins are trained for it

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the shift from held-out logits."""
        held_out = session.held_out(self.held_out)
        shift = logit_shift(held_out.logits, session.y, self.temperature, weight=session.sample_weight)
        session.artefacts |= {"held_out": held_out, "shift": shift}
        return Supervision(session.y, shift=shift)
