"""UMIX: mixup weighted by uncertainty (Han et al. 2022, arXiv 2209.08928, NeurIPS 2022).

    scout = ERM for a share of the steps
    w[i] = 1 + eta * u[i], with u[i] the share of its later epochs in which it got example i wrong
    from scratch, for each minibatch:
        with probability `chance`: s ~ Beta(alpha, alpha), else s = 1;  j = a random partner of each example i
        x = s * x_i + (1 - s) * x_j
        take a step on the weighted mean of s * w_i * CE(f(x), y_i) + (1 - s) * w_j * CE(f(x), y_j)

Exceptions to the shortcut stay wrong for many epochs and count most; mixing keeps the model from memorizing
them. What cannot be mixed (token indices) is mixed in the last features. Needs the labels alone.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_number
from unrote.methods.base import Fitted, Method, register
from unrote.methods.biased import LabelObjective, warn_if_none
from unrote.methods.mixing import beta_share, mixed_logits, random_partners
from unrote.methods.search import Choice, LogUniform, Uniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.seeding import generator
from unrote.supervision import cross_entropy
from unrote.training import Batch, Order


class CountedMistakes(LabelObjective):
    """ERM of one model that counts how often it gets each example wrong, in evaluation mode after each step.

    Args:
        y: (n,) labels.
        from_step: where counting begins.
    """

    def __init__(self, y: Int[Tensor, " n"], from_step: int) -> None:
        super().__init__(y)
        self.from_step = from_step
        self.counted, self.wrong = torch.zeros(len(y)), torch.zeros(len(y))

    @property
    def uncertainty(self) -> Float[Tensor, " n"]:
        """Share of wrong predictions; 0 where none was counted."""
        return (self.wrong / self.counted.clamp_min(1)).cpu()

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit, and follow the stack to its device."""
        super().prepare(stack, n_examples)
        self.counted, self.wrong = self.counted.to(stack.device), self.wrong.to(stack.device)

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, "1"]:
        """Mean cross-entropy."""
        return self.mean(cross_entropy(stack(batch.x), self.y[batch.index].unsqueeze(0)), batch)

    @torch.no_grad()
    def after_step(self, stack: Stack, batch: Batch) -> None:
        """Count the minibatch's mistakes."""
        if batch.step >= self.from_step:
            stack.eval()
            wrong = stack(batch.x)[0].argmax(-1) != self.y[batch.index]
            stack.train()
            self.counted[batch.index] += 1
            self.wrong[batch.index] += wrong.to(self.wrong)

    def state(self) -> dict[str, Tensor]:
        """The counts."""
        return {"counted": self.counted, "wrong": self.wrong}


class WeightedMixup(LabelObjective):
    """Cross-entropy of mixtures with both labels, each by its share and its weight.

    Args:
        y: (n,) labels.
        weight: (n,) at least 0.
        alpha: of the shares' distribution.
        chance: that a minibatch is mixed.
        seed: of everything drawn.
    """

    reads_examples = True

    def __init__(
        self, y: Int[Tensor, " n"], weight: Float[Tensor, " n"], alpha: float, chance: float, seed: int
    ) -> None:
        super().__init__(y)
        self.weight, self.alpha, self.chance, self.seed = weight, alpha, chance, seed

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit, and follow the stack to its device."""
        super().prepare(stack, n_examples)
        weight = self.weight.to(stack.device)
        self.weight = weight if self.sample_weight is None else weight * self.sample_weight

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The weighted mean over the minibatch."""
        random = generator(self.seed, "umix", batch.step)
        mixes = float(torch.rand((), generator=random)) < self.chance
        share = beta_share(self.alpha, self.seed, "umix", "share", batch.step) if mixes else 1.0
        y, weight = self.y[batch.index], self.weight[batch.index]
        partner = random_partners(len(y), random).to(y.device)
        logits = mixed_logits(stack, batch.x, partner, torch.full(y.shape, share, device=y.device))
        own = weight * cross_entropy(logits, y.unsqueeze(0))
        other = weight[partner] * cross_entropy(logits, y[partner].unsqueeze(0))
        total = weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        return (share * own + (1 - share) * other).sum(1) / total


@register("umix", needs="none", reference="Han et al. 2022, arXiv 2209.08928")
@dataclass(frozen=True)
class UMIX(Method):
    """Mixup weighted by uncertainty.

    Args:
        eta: how much uncertainty counts, at least 0; 0 is plain mixup.
        alpha: of the Beta distribution, above 0.
        chance: sigma, the probability that a minibatch is mixed, in [0, 1].
        share: of the steps that the scout trains for, in (0, 1].
        skipped: share of the scout's epochs, from the first, that are not counted, in [0, 1).
    """

    eta: float = hyper(20.0, LogUniform(3.0, 100.0))
    alpha: float = hyper(0.5, Choice((0.5, 1.0, 1.5)))
    chance: float = hyper(1.0, Choice((0.5, 1.0)))
    share: float = hyper(0.2, Uniform(0.1, 0.8))
    skipped: float = hyper(0.5, Uniform(0.0, 0.8))

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0.0)
        check_number("alpha", self.alpha, 1e-3)
        for name in ("chance", "share", "skipped"):
            check_number(name, getattr(self, name), 0.0, 1.0)

    def fit(self, session: Session) -> Fitted:
        """Train the scout, then the classifier on weighted mixtures."""
        recipe = session.recipe.shortened(self.share)
        per_epoch = Order(len(session.y), recipe.batch_size).steps_per_epoch
        epochs = math.ceil(recipe.total_steps(per_epoch) / per_epoch)
        counted = CountedMistakes(session.y, per_epoch * min(int(self.skipped * epochs), epochs - 1))
        session.train(counted, stage="counted", settings=self.settings(), recipe=recipe)
        session.artefacts["uncertainty"] = uncertainty = counted.uncertainty
        advice = f"lower UMIX's share, now {self.share:g}, or skipped, now {self.skipped:g}, or this is mixup"
        warn_if_none(uncertainty > 0, advice)
        weight = 1 + self.eta * uncertainty
        objective = WeightedMixup(session.y, weight, self.alpha, self.chance, session.seed)
        return self.fitted(session, session.train(objective, settings=self.settings()))
