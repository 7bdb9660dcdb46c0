"""LC: logit correction by a biased model's guess (Liu et al. 2023, arXiv 2212.01433, ICLR 2023).

    train two models together, on the same minibatches
    biased model: minimise the mean of (1 - p_y^q) / q; a[i] = class that it gives x_i
    J[y, k] = P(y) * moving average of softmax(biased logits / T)[k] over examples of class y
    debiased model: minimise the mean CE(f(x_i) + log J[:, a[i]], y_i)
    in the second half, group mixup: replace x_i, for the debiased model, by s * x_i + (1 - s) * x_j and its
        J[:, a[i]] by s * J[:, a[i]] + (1 - s) * J[:, a[j]], where j is of i's class but a[j] is not
        s is uniform between 1 - 2t and 1 - t, where t rises to `mixing` as exp(-5 (1 - progress)^2)
    predict with the debiased model

P(y) is that of the whole training set, and a class absent from a minibatch keeps its row of J. What cannot be
mixed (token indices) is mixed in the last features. Needs the labels alone.

Published `mixing` is 0.5: in the end most examples are mostly an exception to the shortcut. Of a task with
two classes that teaches the reverse of the shortcut, so the default is smaller; 0 does without mixup.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.data.options import check_number
from unrote.methods.base import Fitted, Method, register
from unrote.methods.biased import LabelObjective, generalised_cross_entropy, warn_if_reversed
from unrote.methods.mixing import logits_with_mixtures
from unrote.methods.search import Choice, hyper
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.seeding import generator
from unrote.shift import FLOOR
from unrote.supervision import cross_entropy
from unrote.training import Batch, Order


class CorrectedObjective(LabelObjective):
    """The losses of the biased model (member 0) and of the debiased one (member 1).

    Args:
        y: (n,) labels.
        n_classes: C.
        settings: of the method.
        total: number of steps.
        seed: of everything drawn.
    """

    reads_examples = True

    def __init__(self, y: Int[Tensor, " n"], n_classes: int, settings: "LC", total: int, seed: int) -> None:
        super().__init__(y)
        self.settings, self.total, self.seed = settings, total, seed
        self.prior = torch.bincount(y, minlength=n_classes) / len(y)
        self.said: Float[Tensor, "C C"] = torch.full((n_classes, n_classes), 1 / n_classes)
        self.known = torch.zeros(n_classes, dtype=torch.bool)
        self.guess = y.clone()

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit, and follow the stack to its device."""
        super().prepare(stack, n_examples)
        for name in ("prior", "said", "known", "guess"):
            setattr(self, name, getattr(self, name).to(stack.device))

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, "2"]:
        """Generalised cross-entropy of the biased model, corrected cross-entropy of the debiased one."""
        y, progress = self.y[batch.index], (batch.step + 1) / self.total
        if self.settings.mixing and progress > 0.5:
            partner, share = self.mixture(batch, progress)
            logits = logits_with_mixtures(stack, batch.x, partner, share)
        else:
            partner, share = torch.arange(len(y), device=y.device), torch.ones(len(y), device=y.device)
            logits = stack(batch.x)
        self.remember(batch.index, logits[0].detach())
        joint = (self.prior.unsqueeze(1) * self.said).T[self.guess[batch.index]]
        kept = share.unsqueeze(1)
        shift = (kept * joint + (1 - kept) * joint[partner] + FLOOR).log()
        biased = generalised_cross_entropy(logits[0], y, self.settings.q)
        debiased = cross_entropy(logits[1:], y.unsqueeze(0), shift.unsqueeze(0))[0]
        return self.mean(torch.stack([biased, debiased]), batch)

    def remember(self, index: Int[Tensor, " B"], logits: Float[Tensor, "B C"]) -> None:
        """Take note of what the biased model says of a minibatch."""
        p = (logits / self.settings.temperature).softmax(-1).to(self.said)
        truth = F.one_hot(self.y[index], len(self.prior)).to(p)
        there = truth.sum(0) > 0
        mean = truth.T @ p / truth.sum(0).clamp_min(1).unsqueeze(1)
        moved = torch.where(self.known.unsqueeze(1), torch.lerp(mean, self.said, self.settings.memory), mean)
        self.said.copy_(torch.where(there.unsqueeze(1), moved, self.said))
        self.known |= there
        self.guess[index] = logits.argmax(-1)

    def mixture(self, batch: Batch, progress: float) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """Partner and share of each example; itself where no exception of its class is in the minibatch."""
        random = generator(self.seed, "lc", batch.step)
        most = self.settings.mixing * math.exp(-5 * (1 - progress) ** 2)
        y, exception = self.y[batch.index], (self.guess != self.y)[batch.index]
        partner = torch.arange(len(y), device=y.device)
        place, drawn = torch.rand(2, len(y), generator=random).to(y.device)
        for label in y[exception].unique():
            rows, pool = y == label, (exception & (y == label)).nonzero().squeeze(1)
            partner[rows] = pool[(place[rows] * len(pool)).long()]
        return partner, 1 - most - most * drawn

    def state(self) -> dict[str, Tensor]:
        """What the biased model said."""
        return {"said": self.said, "known": self.known, "guess": self.guess}


@register("lc", needs="none", reference="Liu et al. 2023, arXiv 2212.01433")
@dataclass(frozen=True)
class LC(Method):
    """Logit correction.

    Args:
        q: how biased the biased model is made, in (0, 1].
        temperature: T > 0 of the biased model's probabilities.
        memory: what stays of the moving average at each step, in [0, 1).
        mixing: the most that group mixup takes from the partner at the least, in [0, 0.5]; 0 mixes nothing.
    """

    q: float = hyper(0.7, Choice((0.5, 0.7, 0.8)))
    temperature: float = hyper(0.1, Choice((0.1, 1.0)))
    memory: float = hyper(0.5, Choice((0.5, 0.9, 0.99)))
    mixing: float = hyper(0.05, Choice((0.0, 0.05, 0.1, 0.5)))

    def __post_init__(self) -> None:
        check_number("q", self.q, 1e-3, 1.0)
        check_number("temperature", self.temperature, 1e-3)
        check_number("memory", self.memory, 0.0, 0.999)
        check_number("mixing", self.mixing, 0.0, 0.5)

    def fit(self, session: Session) -> Fitted:
        """Train both models; the debiased one is the classifier."""
        steps_per_epoch = Order(len(session.y), session.recipe.batch_size).steps_per_epoch
        total = session.recipe.total_steps(steps_per_epoch)
        objective = CorrectedObjective(session.y, session.task.n_classes, self, total, session.seed)
        recipe = session.recipe.repeated(2)
        result = session.train(objective, settings=self.settings(), members=2, recipe=recipe)
        joint = (objective.prior.unsqueeze(1) * objective.said).cpu()
        session.artefacts |= {"guess": objective.guess.cpu(), "joint": joint}
        fitted = self.fitted(session, result, member=1)
        warn_if_reversed(
            session, fitted.stack, f"lower LC's mixing, now {self.mixing:g}, or q, now {self.q:g}"
        )
        return fitted
