"""SELF: selective last-layer finetuning, by early-stop disagreement (LaBonte et al. 2023, arXiv 2309.08534).

    train ERM; train it again for a share of the steps
    disagreement[i] = KL(early-stopped prediction || final prediction), for each held-out example i
    choose the examples of each class on which the two disagree most, as many of each class
    refit the head on them, each class counting the same, penalised by the way from ERM's head

What is learned early is the shortcut, so the two disagree where it misleads; a model stopped before it has
learned even that disagrees with the final one everywhere. Held out is the validation split (its labels
without groups, as in the paper, which takes half of it) or a share of training.

Needs no groups. A linear model's features are its inputs: all of it is refitted, from where ERM left it.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.data.options import check_count
from unrote.errors import OptionError
from unrote.methods.balance import equal_weights
from unrote.methods.base import Fitted, Method, register
from unrote.methods.heads import HoldOut, check_hold_out, erm_and_held_out, fit_head, with_head
from unrote.methods.search import Choice, LogUniform, hyper
from unrote.methods.session import Session


@register("self", needs="none", reference="LaBonte et al. 2023, arXiv 2309.08534")
@dataclass(frozen=True)
class SELF(Method):
    """Selective last-layer finetuning.

    Args:
        set_size: examples to refit the head on, the classes together.
        early: share of the training after which the early-stopped model stops, above 0 and below 1.
        penalty: on the way from ERM's head, > 0.
        hold_out: "validation" chooses among the validation examples, "train" among a share of training that ERM
            is kept from.
        share: of training that is held out, above 0 and below 1.

    Raises:
        OptionError: if one is out of range.
    """

    set_size: int = hyper(20, Choice((20, 50, 100, 200, 500)))
    early: float = hyper(0.05, Choice((0.02, 0.05, 0.1, 0.2)))
    penalty: float = hyper(1e-3, LogUniform(1e-5, 1e-1))
    hold_out: HoldOut = "validation"
    share: float = hyper(0.5)

    def __post_init__(self) -> None:
        check_count("set_size", self.set_size, 2)
        check_hold_out(self.hold_out, self.share)
        if not 0 < self.early < 1:
            raise OptionError(f"early={self.early!r}: a share of the training above 0 and below 1 is wanted")
        if not self.penalty > 0:
            raise OptionError(f"penalty={self.penalty!r}: a number above 0 is wanted")

    def fit(self, session: Session) -> Fitted:
        """Train ERM twice, then refit the head where the two disagree."""
        early = erm_and_held_out(session, self.hold_out, self.share, length=self.early)
        final = erm_and_held_out(session, self.hold_out, self.share)
        score = disagreement(early.logits(), final.logits())
        if not bool((score > 0).any()):
            warnings.warn(
                f"the model stopped after {self.early:.0%} of training agrees with the final one everywhere: "
                "what the head is refitted on is arbitrary; lower early=",
                UserWarning,
                stacklevel=2,
            )
        chosen = largest_of_each_class(score, final.y, self.set_size)
        session.artefacts |= {"self_disagreement": score, "self_chosen": chosen}
        y = final.y[chosen]
        head = fit_head(
            final.features()[chosen],
            y,
            session.task.n_classes,
            penalty=self.penalty,
            weight=equal_weights(y) * final.weight[chosen],
            start=final.stack.head(),
        )
        return with_head(self, session, final.training, head)


def disagreement(early: Float[Tensor, "n C"], final: Float[Tensor, "n C"]) -> Float[Tensor, " n"]:
    """KL divergence of the final prediction from the early one; by logarithms, as probabilities may be 0."""
    log_early, log_final = F.log_softmax(early.double(), dim=1), F.log_softmax(final.double(), dim=1)
    return (log_early.exp() * (log_early - log_final)).sum(1).clamp_min(0)


def largest_of_each_class(
    score: Float[Tensor, " n"], y: Int[Tensor, " n"], set_size: int
) -> Int[Tensor, " m"]:
    """Rows with the largest scores of each class, `set_size` shared equally; all of a class that has fewer."""
    labels = y.unique()
    size = max(1, set_size // len(labels))
    rows = [(y == label).nonzero().squeeze(1) for label in labels]
    return torch.cat([r[score[r].argsort(descending=True, stable=True)[:size]] for r in rows])
