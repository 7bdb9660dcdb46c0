"""AFR: automatic feature reweighting (Qiu et al. 2023, arXiv 2306.11074, ICML 2023).

    train ERM on 80% of the training examples; p_i = its probability of y_i, for each of the other 20%
    weight[i] = exp(-gamma * p_i) / (number of i's class among them), normalised
    refit the head on them: minimise sum_i weight[i] CE(W x_i + b, y_i) + penalty * |(W, b) - ERM's head|^2

Examples that ERM gets wrong, mostly of groups where the shortcut misleads, count exp(gamma) times as much as
those it is sure of. The paper takes some hundred steps of gradient descent; here the problem, which is
convex, is solved, so that the penalty alone says how far the head may move.

Needs no groups. A linear model's features are its inputs: all of it is refitted, from where ERM left it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_number
from unrote.errors import OptionError
from unrote.methods.base import Fitted, Method, register
from unrote.methods.heads import HoldOut, check_hold_out, erm_and_held_out, fit_head, with_head
from unrote.methods.search import LogUniform, Uniform, hyper
from unrote.methods.session import Session


@register("afr", needs="none", reference="Qiu et al. 2023, arXiv 2306.11074")
@dataclass(frozen=True)
class AFR(Method):
    """Automatic feature reweighting.

    Args:
        gamma: how much more a mistake counts, at least 0; 0 gives class-balanced refitting. Its scale follows
            ERM's confidence.
        penalty: on the way from ERM's head, > 0.
        hold_out: "train" refits on a share of training that ERM is kept from, "validation" on that split.
        share: of training that is held out, above 0 and below 1.

    Raises:
        OptionError: if one is out of range.
    """

    gamma: float = hyper(4.0, Uniform(1.0, 20.0))
    penalty: float = hyper(0.1, LogUniform(1e-3, 1.0))
    hold_out: HoldOut = "train"
    share: float = hyper(0.2)

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma, 0.0)
        check_hold_out(self.hold_out, self.share)
        if not self.penalty > 0:
            raise OptionError(f"penalty={self.penalty!r}: a number above 0 is wanted")

    def fit(self, session: Session) -> Fitted:
        """Train ERM, then refit its head on weighted held-out examples."""
        held_out = erm_and_held_out(session, self.hold_out, self.share)
        weight = afr_weights(held_out.logits(), held_out.y, self.gamma)
        session.artefacts["afr_weights"] = weight
        head = fit_head(
            held_out.features(),
            held_out.y,
            session.task.n_classes,
            penalty=self.penalty,
            weight=weight * held_out.weight,
            start=held_out.stack.head(),
        )
        return with_head(self, session, held_out.training, head)


def afr_weights(logits: Float[Tensor, "n C"], y: Int[Tensor, " n"], gamma: float) -> Float[Tensor, " n"]:
    """Weights that sum to 1: exp(-gamma * probability of the label) over the size of the class."""
    p = logits.double().softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    weight = (-gamma * p).exp() / torch.bincount(y).double()[y]
    return weight / weight.sum()
