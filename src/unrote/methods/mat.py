"""MAT: memorization-aware training (Bayat et al. 2024, arXiv 2412.07684, ICLR 2025).

    h = held-out logits of the training examples, from XRM's twins
    shift[i, :] = log p(y | h_i), calibrated with temperature T          (unrote.shift)
    minimise mean CE(f(x_i) + shift[i, :], y_i)
    predict with f alone

What held-out predictions (the shortcut) already explain earns nothing; what is left to learn is what holds
where the shortcut fails. Neither training nor prediction sees a group label.

With temperature="auto" the training examples themselves say whether there is a shortcut (unrote.automatic). If not,
this is ERM; if so, they choose T and a strength between 0 and 1 that the shift is multiplied by.
"""

from dataclasses import dataclass
from typing import Literal

from unrote.automatic import ERM, Chosen, Evidence, choose, cross_fit, measure_agreement, settings, weigh
from unrote.errors import OptionError
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
        temperature: T of the calibration, > 0; the paper searches 0.001, 0.01, 0.1. "auto" has the training
            examples choose T and the strength, ERM where they show no shortcut.
        held_out: "xrm", "kfold", "alo" (a linear head's, in closed form), or (n, C) held-out logits or
            probabilities of one's own.
        strength: in [0, 1], what the shift is multiplied by: 1 is the paper's method, 0 is ERM. Where the
            temperature is "auto", the most that may be chosen. "auto" has the strength chosen at a given
            temperature.
    """

    temperature: float | Literal["auto"] = hyper(0.1, Choice((0.001, 0.01, 0.1, 0.3, 1.0, 2.0)))
    held_out: HeldOutSource = "xrm"
    strength: float | Literal["auto"] = 1.0

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

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the shift from held-out logits."""
        temperature, strength = self.temperature, self.strength
        if temperature == "auto" or strength == "auto":
            chosen = self._choose(session)
            temperature, strength = chosen.temperature, chosen.strength
            session.artefacts["automatic"] = chosen
            if strength == 0:
                return Supervision(session.y)
        held_out = session.held_out(self.held_out)
        shift = strength * logit_shift(held_out.logits, session.y, temperature, weight=session.sample_weight)
        session.artefacts |= {"held_out": held_out, "shift": shift}
        return Supervision(session.y, shift=shift)

    def _choose(self, session: Session) -> Chosen:
        """Look for a shortcut, and only where twins agree on one, for the setting that undoes it best."""
        task, seed, progress = session.task, session.seed, session.progress
        x, y, weight = task.train.x, session.y, session.sample_weight
        recipe = session.held_out_recipe or session.recipe
        agreed, exceptions = measure_agreement(
            x,
            y,
            session.build,
            recipe,
            task.n_classes,
            seed=seed,
            weight=weight,
            checkpoints=session.checkpoints("agreement", recipe, {}),
            progress="is there a shortcut" if progress else None,
        )
        if not agreed.easy_rule:
            return Chosen(*ERM, Evidence(agreed, exceptions))
        most = 1.0 if self.strength == "auto" else self.strength
        tried = settings((0.1, 2.0) if self.temperature == "auto" else (self.temperature,), (most / 2, most))
        held_out = session.held_out(self.held_out).logits
        cross_fitted = cross_fit(
            x,
            y,
            session.build,
            session.recipe,
            held_out,
            tried,
            seed=seed,
            weight=weight,
            checkpoints=session.checkpoints("cross-fit", session.recipe, self.settings()),
            progress="how strongly to train against it" if progress else None,
        )
        evidence = weigh(held_out, cross_fitted, y, agreed, tried)
        return choose(held_out, cross_fitted, y, evidence, tried)
