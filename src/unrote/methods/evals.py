"""EVaLS: environment-based validation and loss-based sampling (Ghaznavi et al. 2024, arXiv 2410.05345).

    train ERM; split the held-out examples in half
    for each k and C:
        from one half take the k examples of each class with the highest loss and the k with the lowest
        fit an L1-penalised head to them, on standardised features; predict the other half
        the same with the halves exchanged
        score k and C by the worst accuracy over (class, environment)
    the mean of the two best heads, with the standardisation folded in, replaces ERM's

The paper goes one way only. Where exceptions to the shortcut are rare, half of them are too few to choose by:
going both ways uses each twice.

High losses are where the shortcut misleads, low ones where it helps: the two make a balanced set without any
group label. The environments of the other half are EIIL's (`unrote.heldout.infer_environments`). Held out is
the validation split (its labels without groups, as in the paper) or a share of training.

Needs no groups. A linear model becomes a sparse linear model of the inputs, fitted on the held-out examples
alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.data.options import check_count
from unrote.heldout import infer_environments
from unrote.methods.balance import equal_weights
from unrote.methods.base import Fitted, Method, register
from unrote.methods.heads import (
    Head,
    HoldOut,
    Standardizer,
    average,
    check_hold_out,
    erm_and_held_out,
    fit_sparse_head,
    group_scores,
    halves,
    predicted,
    with_head,
)
from unrote.methods.losses import check_positive
from unrote.methods.search import hyper
from unrote.methods.session import Session

STRENGTHS = (1.0, 0.3, 0.1, 0.03)
"""Values of C that are tried, the inverse strength of the L1 penalty."""


@register("evals", needs="none", reference="Ghaznavi et al. 2024, arXiv 2410.05345")
@dataclass(frozen=True)
class EVaLS(Method):
    """Balanced high- and low-loss examples for the head, chosen by inferred environments.

    Args:
        per_class: k, examples of each class with a high loss, and as many with a low one; None tries powers of 2.
        C: inverse strength of the L1 penalty, > 0; None tries several.
        hold_out: "validation" takes the validation examples, "train" a share of training that ERM is kept from.
        share: of training that is held out, above 0 and below 1.

    Raises:
        OptionError: if one is out of range.
    """

    per_class: int | None = hyper(None)
    C: float | None = hyper(None)
    hold_out: HoldOut = "validation"
    share: float = hyper(0.5)

    def __post_init__(self) -> None:
        if self.per_class is not None:
            check_count("per_class", self.per_class, 1)
        if self.C is not None:
            check_positive("C", self.C)
        check_hold_out(self.hold_out, self.share)

    def fit(self, session: Session) -> Fitted:
        """Train ERM, then fit its head anew on held-out examples of extreme losses."""
        held_out = erm_and_held_out(session, self.hold_out, self.share)
        standardize = Standardizer.of(held_out.stack.predict_features(session.task.train.x)[0])
        x, y, logits = standardize(held_out.features()), held_out.y, held_out.logits()
        loss = F.cross_entropy(logits, y, reduction="none")
        environment = 2 * y + infer_environments(logits, y)
        one, other = halves(y, session.seed)

        def fitted(rows: Int[Tensor, " m"], k: int, C: float) -> Head:
            rows = rows[extremes(loss[rows], y[rows], k)]
            weight = equal_weights(y[rows]) * held_out.weight[rows]
            return fit_sparse_head(x[rows], y[rows], session.task.n_classes, C=C, weight=weight)

        def score(chosen: tuple[int, float]) -> tuple[float, float]:
            right = torch.zeros(len(y))
            for fitted_on, checked_on in ((one, other), (other, one)):
                head = fitted(fitted_on, *chosen)
                right[checked_on] += predicted(head, x[checked_on]) == y[checked_on]
            return group_scores(right, environment)

        sizes = sizes_up_to(y[one]) if self.per_class is None else [self.per_class]
        strengths = STRENGTHS if self.C is None else (self.C,)
        k, C = max([(k, C) for k in sizes for C in strengths], key=score)
        session.artefacts |= {"evals_per_class": k, "evals_C": C, "environments": environment % 2}
        return with_head(
            self,
            session,
            held_out.training,
            standardize.fold(average([fitted(rows, k, C) for rows in (one, other)])),
        )


def extremes(loss: Float[Tensor, " n"], y: Int[Tensor, " n"], k: int) -> Int[Tensor, " m"]:
    """Rows of the k examples of each class with the highest losses and the k with the lowest, each once."""
    chosen = []
    for label in y.unique():
        rows = (y == label).nonzero().squeeze(1)
        rows = rows[loss[rows].argsort(stable=True)]
        chosen.append(rows if len(rows) <= 2 * k else torch.cat([rows[:k], rows[-k:]]))
    return torch.cat(chosen)


def sizes_up_to(y: Int[Tensor, " n"]) -> list[int]:
    """2, 4, 8, ... up to half of the largest class, at least one."""
    largest = int(torch.bincount(y).max())
    return [2**i for i in range(1, max(2, (largest // 2).bit_length()))]
