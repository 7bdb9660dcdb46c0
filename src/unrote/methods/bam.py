"""BAM: bias amplification (Li et al. 2024, arXiv 2309.06717, TMLR).

    b[i] = 0 for every training example: C auxiliary logits of its own
    for a share of the steps: minimise the mean CE(f(x_i) + lambda * b[i], y_i) over f and all b together
    E = training examples that f alone is wrong about
    go on with the same f: minimise the mean CE in which each example of E counts `upweight` times

What the shortcut contradicts is cheapest to explain by b[i], so that f learns the shortcut all the more
purely, and for longer than plain ERM would. lambda * b[i] is how much of an example's label had to be
memorized. Needs the labels alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_number
from unrote.methods.base import Fitted, Method, register
from unrote.methods.biased import LabelObjective, mistakes
from unrote.methods.search import Choice, LogUniform, Uniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.supervision import Supervision, cross_entropy
from unrote.training import Batch, Supervised


class AmplifiedObjective(LabelObjective):
    """Cross-entropy of one model on examples that have auxiliary logits of their own.

    Args:
        y: (n,) labels.
        n_classes: C.
        amplification: lambda.
    """

    def __init__(self, y: Int[Tensor, " n"], n_classes: int, amplification: float) -> None:
        super().__init__(y)
        self.amplification = amplification
        self.auxiliary: Float[Tensor, "1 n C"] = torch.zeros(1, len(y), n_classes)

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit, and follow the stack to its device."""
        super().prepare(stack, n_examples)
        self.auxiliary = self.auxiliary.detach().to(stack.device).requires_grad_()

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, "1"]:
        """The mean over the minibatch."""
        shift = self.amplification * self.auxiliary[:, batch.index]
        return self.mean(cross_entropy(stack(batch.x), self.y[batch.index].unsqueeze(0), shift), batch)

    def parameters(self) -> list[Tensor]:
        """The auxiliary logits, which train along with the model."""
        return [self.auxiliary]

    def state(self) -> dict[str, Tensor]:
        """The auxiliary logits."""
        return {"auxiliary": self.auxiliary.detach()}


@register("bam", needs="none", reference="Li et al. 2024, arXiv 2309.06717")
@dataclass(frozen=True)
class BAM(Method):
    """Bias amplification.

    Args:
        amplification: lambda, at least 0; the larger, the more is left to the auxiliary logits. At 0 this is a
            JTT that goes on with its scout.
        share: of the steps that the first stage takes, in (0, 1]; the second takes all of them.
        upweight: mu, how often each mistake counts, at least 1.
    """

    amplification: float = hyper(50.0, Choice((0.5, 5.0, 50.0, 70.0, 100.0)))
    share: float = hyper(0.5, Uniform(0.1, 0.8))
    upweight: float = hyper(50.0, LogUniform(1.0, 10**2.5))

    def __post_init__(self) -> None:
        check_number("amplification", self.amplification, 0.0)
        check_number("share", self.share, 0.0, 1.0)
        check_number("upweight", self.upweight, 1.0)

    def fit(self, session: Session) -> Fitted:
        """Train the biased model with its auxiliary logits, then go on with its mistakes upweighted."""
        objective = AmplifiedObjective(session.y, session.task.n_classes, self.amplification)
        biased = session.train(
            objective,
            stage="amplified",
            settings=self.settings(),
            recipe=session.recipe.shortened(self.share),
        ).stack
        advice = f"raise BAM's amplification, now {self.amplification:g}, or lower share, now {self.share:g}"
        wrong = mistakes(session, biased, advice)
        memorization = self.amplification * objective.auxiliary.detach()[0].cpu()
        session.artefacts |= {"mistakes": wrong, "memorization": memorization}
        weight = 1.0 + (self.upweight - 1.0) * wrong.float()
        result = session.train(
            Supervised(Supervision(session.y, weight)), settings=self.settings(), start=biased
        )
        return self.fitted(session, result)
