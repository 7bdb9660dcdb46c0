"""MAT: memorization-aware training (Bayat et al. 2024, arXiv 2412.07684, ICLR 2025).

    h = held-out logits of the training examples, from XRM's twins
    shift[i, :] = log p(y | h_i), calibrated with temperature T          (unrote.shift)
    minimise mean CE(f(x_i) + shift[i, :], y_i)
    predict with f alone

What held-out predictions (the shortcut) already explain earns nothing; what is left to learn is what holds
where the shortcut fails. Neither training nor prediction sees a group label.

By default (temperature="auto") the training examples themselves say whether there is a shortcut (unrote.automatic).
If not, this is ERM; if so, they choose T and a strength between 0 and 1 that the shift is multiplied by, and
another shortcut behind it is looked for (unrote.methods.shortcut_search). The paper's method is a number, such as
temperature=0.1, and for networks held_out="xrm".
"""

from dataclasses import dataclass
from typing import Literal

from unrote.automatic import ERM
from unrote.errors import OptionError
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.search import Choice, hyper
from unrote.methods.session import HeldOutSource, Session
from unrote.methods.shortcut_search import TEMPERATURES, look_for_shortcuts, next_rule
from unrote.shift import check_temperatures, joint_shift
from unrote.supervision import Supervision


@register("mat", needs="none", reference="Bayat et al. 2025, arXiv 2412.07684")
@dataclass(frozen=True)
class MAT(SupervisionMethod):
    """Memorization-aware training.

    Args:
        temperature: T of the calibration, > 0; the paper searches 0.001, 0.01, 0.1. "auto" has the training
            examples choose T and the strength, ERM where they show no shortcut: ten models more, as a stack.
        held_out: "xrm", the paper's twins, models of the same kind; "trunk", linear twins on the features of a
            network that has begun to learn, a third of the cost; "auto", the first where the examples are features
            already or such twins are at hand, else the second, unless these know little and the first more; "kfold";
            "alo" (a linear head's, in closed form); or (n, C) held-out logits or probabilities of one's own.
        strength: in [0, 1], what the shift is multiplied by: 1 is the paper's method, 0 is ERM. Where the
            temperature is "auto", the most that may be chosen. "auto" has the strength chosen at a given
            temperature.
        shortcuts: how many to train against, one behind the other: what is easiest to learn, what is easiest to
            learn next when the first says nothing of the class, and so on. Under "auto" at most so many, default 3,
            each only where the examples show it; else exactly so many, default 1, the paper's.
    """

    temperature: float | Literal["auto"] = hyper("auto", Choice((0.001, 0.01, 0.1, 0.3, 1.0, 2.0)))
    held_out: HeldOutSource = "auto"
    strength: float | Literal["auto"] = 1.0
    shortcuts: int | None = None

    def __post_init__(self) -> None:
        # before twins are trained for it
        for name in ("temperature", "strength"):
            value = getattr(self, name)
            if isinstance(value, str) and value != "auto":
                raise OptionError(f"{name}={value!r}: a number or 'auto' is wanted")
        if self.temperature != "auto":
            check_temperatures(self.temperature)
        if self.strength != "auto" and not 0 <= self.strength <= 1:
            raise OptionError(f"strength={self.strength!r}: a number from 0 to 1, or 'auto', is wanted")
        if self.shortcuts is not None and self.shortcuts < 1:
            raise OptionError(f"shortcuts={self.shortcuts}: at least 1, or None, is wanted")

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the shift from held-out logits."""
        held_out, temperature, strength = session.held_out(self.held_out), self.temperature, self.strength
        rules = [held_out.logits]
        if strength == 0:
            temperature, strength = ERM  # nothing to choose
        if temperature == "auto" or strength == "auto":
            rules, chosen = look_for_shortcuts(
                session,
                held_out,
                temperatures=TEMPERATURES if temperature == "auto" else (temperature,),
                strength=1.0 if strength == "auto" else strength,
                most=self.shortcuts or 3,
            )
            temperature, strength = chosen.temperature, chosen.strength
            session.artefacts["automatic"] = chosen
        else:
            for _ in range(1, self.shortcuts or 1):
                rules.append(next_rule(session, rules, temperature).logits)
        shift = strength * joint_shift(rules, session.y, temperature, weight=session.sample_weight)
        session.artefacts |= {"held_out": held_out, "shift": shift}
        if len(rules) > 1:
            session.artefacts["rules"] = rules
        return Supervision(session.y, shift=shift if strength > 0 else None)
