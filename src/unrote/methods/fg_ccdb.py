"""FG-CCDB: weights that make the shortcut independent of the class (Zhao and Zhang 2026, arXiv 2505.06831).

    biased model: ERM on a random `share` of the examples
    `rounds` times: ERM from scratch on the `kept` of each class that the last model was surest about
    s[i] = class that the last biased model gives x_i;  M[k, c] = number of examples with s = k and y = c
    weight of i in cell (k, c) = P(s = k) / M[k, c], then each class is made to count the same
    minimise the weighted mean CE

Under these weights every class has the same distribution of s, that of the training set: they are P(s) P(y) /
P(s, y) with equal classes. It is the resampling twin of MAT, whose shift comes from the same M: `guess="xrm"`
takes s from MAT's own held-out logits. Needs the labels alone.

The paper's sampler draws i in proportion to P(s) / P(s | y) / M. As M divides P(s | y) already, that counts a
cell's size twice, and s again depends on the class, the other way round: an exception shared by 5% gets 361
times the weight of a typical example where 19 times makes them equal. `overshoot=True` does that.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_count, check_number
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.biased import training_logits, warn_if_none
from unrote.methods.search import Choice, hyper
from unrote.methods.session import HeldOutSource, Session
from unrote.seeding import generator
from unrote.supervision import Supervision
from unrote.training import Supervised


def balancing_weight(
    guess: Int[Tensor, " n"],
    y: Int[Tensor, " n"],
    *,
    count: Float[Tensor, " n"] | None = None,
    overshoot: bool = False,
) -> Float[Tensor, " n"]:
    """Weights of mean 1 under which the guess is independent of the class.

    Args:
        guess: (n,) s of each example.
        y: (n,) labels.
        count: (n,) how much each example counts; None counts all the same. The result multiplies it.
        overshoot: divides by the size of the cell once more.
    """
    count = torch.ones(len(y)).double() if count is None else count.double()
    n_classes = 1 + int(torch.maximum(guess.max(), y.max()))
    cell = guess * n_classes + y
    size = torch.bincount(cell, count, n_classes**2).view(n_classes, n_classes)
    weight = torch.where(size > 0, size.sum(1, keepdim=True) / size, 0.0)  # P(s) / P(s, y)
    if overshoot:
        weight = torch.where(size > 0, weight / size, 0.0)
    weight = weight / (weight * size).sum(0).clamp_min(torch.finfo(size.dtype).tiny)
    of_example = weight.flatten()[cell]
    return (of_example / of_example.mean()).float()


@register("fg_ccdb", needs="none", reference="Zhao and Zhang 2026, arXiv 2505.06831")
@dataclass(frozen=True)
class FGCCDB(SupervisionMethod):
    """Fine-grained class-conditional distribution balancing.

    Args:
        share: gamma, of the training examples that the first biased model is given, in (0, 1].
        kept: beta, of each class that the next biased model is given, in (0, 1].
        rounds: how many further biased models are trained, one after the other.
        guess: "biased" trains these; "xrm", "kfold" or (n, C) held-out logits of one's own take their place.
        overshoot: divides the weights by the size of the cell once more, as published.
    """

    share: float = hyper(0.1, Choice((0.05, 0.1, 0.2)))
    kept: float = hyper(0.5, Choice((0.5, 0.7)))
    rounds: int = hyper(3, Choice((1, 2, 3)))
    guess: Literal["biased"] | HeldOutSource = "biased"
    overshoot: bool = hyper(False, Choice((False, True)))

    def __post_init__(self) -> None:
        check_number("share", self.share, 1e-6, 1.0)
        check_number("kept", self.kept, 1e-6, 1.0)
        check_count("rounds", self.rounds, 0)

    def supervision(self, session: Session) -> Supervision:
        """The labels, weighted by how rare the biased model's guess is in their class."""
        if isinstance(self.guess, str) and self.guess == "biased":
            logits = self.biased_logits(session)
        else:
            logits = session.held_out(self.guess).logits
        guess = logits.argmax(1)
        warn_if_none(
            guess != session.y, f"lower FG-CCDB's share, now {self.share:g}, or kept, now {self.kept:g}"
        )
        weight = balancing_weight(guess, session.y, count=session.sample_weight, overshoot=self.overshoot)
        session.artefacts |= {"guess": guess, "weight": weight}
        return Supervision(session.y, weight=weight)

    def biased_logits(self, session: Session) -> Float[Tensor, "n C"]:
        """What the last of the biased models says of all training examples."""
        y, n = session.y, len(session.y)
        chosen = torch.zeros(n)
        chosen[
            torch.randperm(n, generator=generator(session.seed, "fg_ccdb"))[: max(1, round(self.share * n))]
        ] = 1
        for round_ in range(self.rounds + 1):
            stack = session.train(
                Supervised(Supervision(y)),
                stage=f"biased-{round_}",
                settings=self.settings(),
                # as many passes over the chosen examples as the recipe makes over all
                recipe=session.recipe.shortened(float(chosen.mean())),
                sampling=chosen,
            ).stack
            logits = training_logits(session, stack)
            chosen = surest(logits.softmax(1).gather(1, y.unsqueeze(1)).squeeze(1), y, self.kept)
        return logits


def surest(p: Float[Tensor, " n"], y: Int[Tensor, " n"], kept: float) -> Float[Tensor, " n"]:
    """1 for the share of each class, at least one example, with the largest p; 0 for the others."""
    chosen = torch.zeros(len(y))
    for label in y.unique():
        rows = (y == label).nonzero().squeeze(1)
        order = p[rows].argsort(descending=True, stable=True)
        chosen[rows[order[: max(1, round(kept * len(rows)))]]] = 1
    return chosen
