"""cRT: the last layer trained again, on balanced classes (Kang et al. 2020, arXiv 1910.09217).

    train ERM; keep everything below its last layer
    start a new last layer, and train it on the features of the training examples,
        drawn with replacement so that each class comes up equally often

Needs the labels alone. Class imbalance spoils the last layer more than the features below it. For a linear head
the features are the inputs, so that this is a head trained from scratch on balanced draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from unrote.errors import OptionError
from unrote.methods.balance import equal_weights
from unrote.methods.base import Fitted, Method, register
from unrote.methods.search import Uniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack, StackedLinear
from unrote.seeding import derive_seed
from unrote.supervision import Supervision
from unrote.training import Supervised, TrainingResult, train


@register("crt", needs="none", reference="Kang et al. 2020, arXiv 1910.09217")
@dataclass(frozen=True)
class CRT(Method):
    """Classifier re-training.

    Args:
        share: length of the last layer's training as a share of the recipe's, above 0 and at most 1.

    Raises:
        OptionError: if it is not.
    """

    share: float = hyper(1.0, Uniform(0.1, 1.0))

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise OptionError(f"share={self.share}: a share of training above 0 and at most 1 is wanted")

    def fit(self, session: Session) -> Fitted:
        """Train ERM, then a new last layer on its features."""
        stack = session.erm().stack.select([0])  # a copy: others may want the session's ERM as it is
        return self.fitted(session, self.retrain(session, stack))

    def retrain(self, session: Session, stack: Stack) -> TrainingResult:
        """Train a new last layer; the run's evaluation and early stopping see the model that wears it."""
        recipe = session.recipe.shortened(self.share)
        features = stack.predict_features(session.task.train.x)[0]
        seeds = [derive_seed(session.seed, "head")]
        heads = StackedLinear(features.shape[1], stack.n_classes, seeds, dtype=features.dtype)

        def evaluate(heads: Stack) -> Mapping[str, Float[Tensor, " S"]]:
            stack.set_head(*heads.head())
            return session.evaluate(stack) if session.evaluate is not None else {}

        result = train(
            heads.to(stack.device),
            features,
            Supervised(Supervision(session.y, weight=session.sample_weight)),
            recipe,
            seed=derive_seed(session.seed, "order", "head"),
            sampling=equal_weights(session.y),
            evaluate=evaluate,
            evaluate_every=session.evaluate_every,
            early_stopping=session.early_stopping,
            checkpoints=session.checkpoints("train", recipe, self.settings()),
            progress="last layer" if session.progress else None,
        )
        stack.set_head(*result.stack.head())
        return replace(result, stack=stack.eval())
