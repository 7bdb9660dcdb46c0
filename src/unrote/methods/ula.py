"""uLA: logit adjustment by a guessed attribute (Tsirigotis et al. 2023, arXiv 2310.18555, NeurIPS 2023).

    features = what the last layer is given by a model that has not been trained on the task
    probe = linear head on these frozen features, ERM, kept where its validation loss is lowest
    guess[i] = class that the probe gives x_i
    P[k, c] = share of class c where the probe says k, counted by softmax(probe logits / T)     (unrote.shift)
    minimise the mean CE(f(x_i) + eta * log P[guess[i], :], y_i)

A linear head on features that the labels never shaped learns the shortcut and little else. The paper searches how
long it trains; here it is given the recipe's length, and the epoch is kept that predicts the validation labels
best, before the exceptions are learned by heart. Without a validation split it is the last epoch, which a lower
`share` brings forward. The paper's features are self-supervised; here they are those of the model as its builder
makes it: the pretrained ones where it is pretrained, random ones of an "mlp" or "cnn", the inputs themselves for a
"linear" one. They are taken before any training, as features trained with the labels, even briefly, would hold
these. Needs the labels alone, those of the validation split too.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_number
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.biased import warn_if_none
from unrote.methods.search import Choice, Uniform, hyper
from unrote.methods.session import Session
from unrote.models import StackedLinear
from unrote.seeding import derive_seed
from unrote.shift import FLOOR, confusion
from unrote.supervision import Supervision, cross_entropy
from unrote.training import EarlyStopping, Evaluate, Supervised, train


@register("ula", needs="none", reference="Tsirigotis et al. 2023, arXiv 2310.18555")
@dataclass(frozen=True)
class ULA(SupervisionMethod):
    """Logit adjustment by the attribute that a linear probe guesses.

    Args:
        eta: strength of the shift, at least 0; 0 is ERM.
        share: of the recipe's length that the probe trains for at most, in (0, 1].
        temperature: T > 0 of the probe's probabilities; towards 0 they are its decisions, as the guess is.
    """

    eta: float = hyper(1.0, Uniform(0.0, 2.0))
    share: float = hyper(1.0, Uniform(0.05, 1.0))
    temperature: float = hyper(0.01, Choice((0.01, 0.1, 0.3, 1.0)))

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0.0)
        check_number("share", self.share, 0.0, 1.0)
        check_number("temperature", self.temperature, 1e-3)

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the shift by the probe's guess."""
        y, weight = session.y, session.sample_weight
        logits = self._probe_logits(session).double()
        guess = logits.argmax(1)
        warn_if_none(guess != y, f"lower uLA's share, now {self.share:g}")
        table = confusion((logits / self.temperature).softmax(1), y, weight)
        shift = self.eta * (table[guess] + FLOOR).log().float()
        session.artefacts |= {"guess": guess, "shift": shift}
        return Supervision(y, shift=shift)

    def _probe_logits(self, session: Session) -> Float[Tensor, "n C"]:
        """Train the probe; its logits of the training examples."""
        trunk = session.build([derive_seed(session.seed, "model", 0)])
        features = trunk.predict_features(session.task.train.x)[0]
        probe = StackedLinear(features.shape[1], trunk.n_classes, trunk.seeds, dtype=features.dtype)
        validation, recipe = session.task.validation, session.recipe.shortened(self.share)
        stopping: dict[str, Any] = {}
        if validation is not None:
            stopping = {
                "evaluate": _loss_on(trunk.predict_features(validation.x)[0], validation.y),
                "early_stopping": EarlyStopping("validation_loss", maximize=False),
            }
        train(
            probe.to(trunk.device),
            features,
            Supervised(Supervision(session.y, session.sample_weight)),
            recipe,
            seed=derive_seed(
                session.seed if session.order_seed is None else session.order_seed, "order", "probe"
            ),
            checkpoints=session.checkpoints("probe", recipe, self.settings()),
            progress="probe" if session.progress else None,
            **stopping,
        )
        return probe.predict(features)[0]


def _loss_on(x: Float[Tensor, "m F"], y: Int[Tensor, " m"]) -> Evaluate:
    """What scores a stack by its mean cross-entropy on some examples."""
    return lambda stack: {"validation_loss": cross_entropy(stack.predict(x), y.unsqueeze(0)).mean(1)}
