"""DPR: resampling by the chance of disagreement (Han et al. 2024, arXiv 2411.01757, NeurIPS 2024).

    biased model: minimise the mean of (1 - p_y^q) / q for a share of the steps
    r[i] = 1 - p_b(y_i | x_i), with p_b = softmax(biased logits / T)
    from the biased model's parameters, minimise the mean CE of examples drawn in proportion to r

What the biased model cannot explain is drawn often: JTT with a soft error set. Needs the labels alone.

r stands for the chance that the example contradicts the shortcut, so p_b must be calibrated: examples that
follow the shortcut and its exceptions then are drawn equally often. The biasing loss makes p_b overconfident
instead (r of 0.0002 where 0.05 is true, on the digits), exceptions are nearly all that is drawn, and in a
task with two classes these teach the reverse of the shortcut. So T is chosen to fit p_b to the training
labels, unless it is given; the paper's is 1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unrote.data.options import check_number
from unrote.methods.base import Fitted, Method, register
from unrote.methods.biased import BiasedObjective, training_logits, warn_if_none, warn_if_reversed
from unrote.methods.search import Choice, Uniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.shift import calibrated_temperature
from unrote.supervision import Supervision
from unrote.training import Supervised


@register("dpr", needs="none", reference="Han et al. 2024, arXiv 2411.01757")
@dataclass(frozen=True)
class DPR(Method):
    """Resampling by the chance that a biased model disagrees with the label.

    Args:
        q: how biased the biased model is made, in (0, 1].
        share: of the steps that the biased model trains for, in (0, 1].
        temperature: T > 0 of the biased model's probabilities; None fits it to the training labels.
        keep: whether to go on from the biased model's parameters, instead of fresh ones.
    """

    q: float = hyper(0.7, Choice((0.3, 0.5, 0.7, 0.9)))
    share: float = hyper(0.2, Uniform(0.1, 1.0))
    temperature: float | None = hyper(None, Choice((None, 0.5, 1.0, 2.0)))
    keep: bool = hyper(True, Choice((True, False)))

    def __post_init__(self) -> None:
        check_number("q", self.q, 1e-3, 1.0)
        check_number("share", self.share, 0.0, 1.0)
        if self.temperature is not None:
            check_number("temperature", self.temperature, 1e-3)

    def fit(self, session: Session) -> Fitted:
        """Train the biased model, then the classifier on what it disagrees with."""
        biased = session.train(
            BiasedObjective(session.y, self.q),
            stage="biased",
            settings=self.settings(),
            recipe=session.recipe.shortened(self.share),
        ).stack
        result = session.train(
            Supervised(Supervision(session.y)),
            settings=self.settings(),
            sampling=self.disagreement(session, biased),
            start=biased if self.keep else None,
        )
        fitted = self.fitted(session, result)
        warn_if_reversed(session, fitted.stack, "raise DPR's temperature, or set it to None")
        return fitted

    def disagreement(self, session: Session, biased: Stack) -> Float[Tensor, " n"]:
        """r, the chance that the biased model gives a training example another label; 1 for all if never."""
        logits, y = training_logits(session, biased).double(), session.y
        wrong = logits.argmax(1) != y
        warn_if_none(wrong, f"lower DPR's share, now {self.share:g}, or raise q, now {self.q:g}")
        temperature = self.temperature or calibrated_temperature(logits, y)
        # the sum over the other classes, as 1 - p_y would round to 0 where the model is sure
        others = (logits / temperature).log_softmax(1).scatter(1, y.unsqueeze(1), -torch.inf).logsumexp(1)
        chance = others.exp() if bool(wrong.any()) else torch.ones_like(others)
        session.artefacts |= {"disagreement": chance, "temperature": temperature}
        return chance
