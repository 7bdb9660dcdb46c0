"""uLA: logit adjustment by a guessed attribute (Tsirigotis et al. 2023, arXiv 2310.18555, NeurIPS 2023).

    features = what the last layer is given by a model that has not been trained on the task
    probe = linear head on these frozen features, ERM for a share of the steps
    guess[i] = class that the probe gives x_i
    P[k, c] = share of class c where the probe says k, counted by softmax(probe logits / T)     (unrote.shift)
    minimise the mean CE(f(x_i) + eta * log P[guess[i], :], y_i)

A linear head on features that the labels never shaped cannot memorize; stopped early, it learns the shortcut
and little else. The paper's features are self-supervised; here they are those of the model as its builder
makes it: the pretrained ones where it is pretrained, random ones of an "mlp" or "cnn", the inputs themselves
for a "linear" one. They are taken before any training, as features trained with the labels, even briefly,
would hold these. Needs the labels alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unrote.data.options import check_number
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.biased import warn_if_none
from unrote.methods.search import Choice, Uniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack, StackedLinear
from unrote.seeding import derive_seed
from unrote.shift import FLOOR, confusion
from unrote.supervision import Supervision
from unrote.training import Supervised


@register("ula", needs="none", reference="Tsirigotis et al. 2023, arXiv 2310.18555")
@dataclass(frozen=True)
class ULA(SupervisionMethod):
    """Logit adjustment by the attribute that a linear probe guesses.

    Args:
        eta: strength of the shift, at least 0; 0 is ERM.
        share: of the steps that the probe trains for, in (0, 1].
        temperature: T > 0 of the probe's probabilities; towards 0 they are its decisions.
    """

    eta: float = hyper(1.0, Uniform(0.0, 2.0))
    share: float = hyper(0.2, Uniform(0.05, 1.0))
    temperature: float = hyper(0.1, Choice((0.01, 0.1, 0.3, 1.0)))

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0.0)
        check_number("share", self.share, 0.0, 1.0)
        check_number("temperature", self.temperature, 1e-3)

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the shift by the probe's guess."""
        y, weight, trunk = (
            session.y,
            session.sample_weight,
            session.build([derive_seed(session.seed, "model", 0)]),
        )
        features = trunk.predict_features(session.task.train.x)[0]

        def build(seeds: Sequence[int]) -> Stack:
            return StackedLinear(features.shape[1], trunk.n_classes, seeds, dtype=features.dtype).to(
                trunk.device
            )

        probe = replace(session, build=build).train(
            Supervised(Supervision(y, weight)),
            stage="probe",
            settings=self.settings(),
            recipe=session.recipe.shortened(self.share),
            x=features,
        )
        logits = probe.stack.predict(features)[0].double()
        guess = logits.argmax(1)
        warn_if_none(guess != y, f"lower uLA's share, now {self.share:g}")
        table = confusion((logits / self.temperature).softmax(1), y, weight)
        shift = self.eta * (table[guess] + FLOOR).log().float()
        session.artefacts |= {"guess": guess, "shift": shift}
        return Supervision(y, shift=shift)
