"""LfF: learning from failure (Nam et al. 2020, arXiv 2007.02561, NeurIPS 2020).

    train two models together, on the same minibatches
    biased model: minimise the mean of (1 - p_y^q) / q
    L_b[i], L_d[i] = moving averages of the CE of example i under the biased and the debiased model,
        each divided by its largest value in i's class
    debiased model: minimise the mean of CE * L_b[i] / (L_b[i] + L_d[i])
    predict with the debiased model

What the biased model fails at, and the debiased one does not fail at as much, counts most. Needs the labels
alone.

Where the shortcut is easy, the biased model's loss on examples that follow it nears 0, and with it their
weight. The debiased model then sees the exceptions alone; of a task with two classes they teach it the
reverse of the shortcut. The paper's q = 0.7, for ten classes, does that on tasks of two (a warning says so);
hence the smaller default.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_number
from unrote.methods.base import Fitted, Method, register
from unrote.methods.biased import LabelObjective, generalised_cross_entropy, warn_if_reversed
from unrote.methods.search import Uniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.supervision import cross_entropy
from unrote.training import Batch

_TINY = 1e-8  # between losses that are exactly 0


class FailureObjective(LabelObjective):
    """The losses of the biased model (member 0) and of the debiased one (member 1).

    Args:
        y: (n,) labels.
        n_classes: C.
        q: of the generalised cross-entropy.
        memory: what stays of a moving average when its example is seen again.
    """

    def __init__(self, y: Int[Tensor, " n"], n_classes: int, q: float, memory: float) -> None:
        super().__init__(y)
        self.n_classes, self.q, self.memory = n_classes, q, memory
        self.average: Float[Tensor, "2 n"] = torch.zeros(2, len(y))
        self.seen = torch.zeros(len(y), dtype=torch.bool)

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit, and follow the stack to its device."""
        super().prepare(stack, n_examples)
        self.average, self.seen = self.average.to(stack.device), self.seen.to(stack.device)

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, "2"]:
        """Generalised cross-entropy of the biased model, weighted cross-entropy of the debiased one."""
        y, logits = self.y[batch.index], stack(batch.x)
        losses = cross_entropy(logits, y.unsqueeze(0))
        self.remember(batch.index, losses.detach())
        biased = generalised_cross_entropy(logits[0], y, self.q)
        return self.mean(torch.stack([biased, self.weight(batch.index) * losses[1]]), batch)

    def remember(self, index: Int[Tensor, " B"], losses: Float[Tensor, "2 B"]) -> None:
        """Move the averages of a minibatch's examples; an example's first losses begin its averages."""
        losses = losses.to(self.average)
        moved = torch.lerp(losses, self.average[:, index], self.memory)
        self.average[:, index] = torch.where(self.seen[index], moved, losses)
        self.seen[index] = True

    def weight(self, index: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Relative difficulty of examples, in [0, 1]: near 1 where the biased model alone fails."""
        largest = self.average.new_zeros(2, self.n_classes)
        largest = largest.scatter_reduce(1, self.y.expand(2, -1), self.average, "amax")
        relative = self.average[:, index] / largest[:, self.y[index]].clamp_min(_TINY)
        return relative[0] / relative.sum(0).clamp_min(_TINY)

    def state(self) -> dict[str, Tensor]:
        """The moving averages, and which examples have one."""
        return {"average": self.average, "seen": self.seen}


@register("lff", needs="none", reference="Nam et al. 2020, arXiv 2007.02561")
@dataclass(frozen=True)
class LfF(Method):
    """Learning from failure.

    Args:
        q: how biased the biased model is made, in (0, 1].
        memory: what stays of a moving average when its example is seen again, in [0, 1).
    """

    q: float = hyper(0.15, Uniform(0.05, 0.95))
    memory: float = hyper(0.7)

    def __post_init__(self) -> None:
        check_number("q", self.q, 1e-3, 1.0)
        check_number("memory", self.memory, 0.0, 0.999)

    def fit(self, session: Session) -> Fitted:
        """Train both models; the debiased one is the classifier."""
        objective = FailureObjective(session.y, session.task.n_classes, self.q, self.memory)
        recipe = session.recipe.repeated(2)
        result = session.train(objective, settings=self.settings(), members=2, recipe=recipe)
        everyone = torch.arange(len(session.y), device=objective.y.device)
        session.artefacts["difficulty"] = objective.weight(everyone).cpu()
        fitted = self.fitted(session, result, member=1)
        warn_if_reversed(session, fitted.stack, f"lower LfF's q, now {self.q:g}")
        return fitted
