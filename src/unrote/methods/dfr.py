"""DFR: deep feature reweighting (Kirichenko et al. 2022, arXiv 2204.02937, ICLR 2023).

    train ERM; keep its features, standardised by the training split's mean and deviation
    split the validation split in half; for each C:
        fit heads on group-balanced random subsets of one half, average them
        take the worst group's accuracy on the other half
    with the best C: fit heads on group-balanced random subsets of the whole validation split; average them
    the average, with the standardisation folded in, replaces ERM's head
    heads are L1-penalised logistic regressions (one class against the rest where there are more than two)

Needs the groups of the validation examples, and fits on these examples: score the result on others. A linear
model becomes a sparse linear model of the inputs, fitted on the validation split alone.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from unrote.data.options import check_count
from unrote.errors import DataError, OptionError
from unrote.methods.balance import equal_subset
from unrote.methods.base import Fitted, Method, register
from unrote.methods.heads import (
    Head,
    Standardizer,
    average,
    features,
    fit_sparse_head,
    group_scores,
    halves,
    predicted,
    with_head,
)
from unrote.methods.search import hyper
from unrote.methods.session import Session
from unrote.seeding import generator

CANDIDATES = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
"""The paper's values of C, the inverse strength of the L1 penalty."""


@register("dfr", needs="val", reference="Kirichenko et al. 2022, arXiv 2204.02937")
@dataclass(frozen=True)
class DFR(Method):
    """Deep feature reweighting.

    Args:
        C: inverse strength of the L1 penalty, > 0; None chooses among the paper's values on a split half.
        n_subsets: group-balanced subsets whose heads are averaged.

    Raises:
        OptionError: if one is out of range.
    """

    C: float | None = hyper(None)
    n_subsets: int = hyper(10)

    def __post_init__(self) -> None:
        check_count("n_subsets", self.n_subsets, 1)
        if self.C is not None and not self.C > 0:
            raise OptionError(f"C={self.C!r}: a number above 0 is wanted, or None to choose it")

    def fit(self, session: Session) -> Fitted:
        """Train ERM, then fit its head anew on group-balanced validation examples.

        Raises:
            DataError: if a class has no validation example, or C is to be chosen and every group has but one.
        """
        groups = session.validation_groups()
        _check_groups(session.validation.y, groups.size, session.task.class_names)
        erm = session.erm()
        standardize = Standardizer.of(erm.stack.predict_features(session.task.train.x)[0])
        x = standardize(features(erm.stack, session.validation.x))
        y, n_classes = session.validation.y, session.task.n_classes

        def fitted(rows: Int[Tensor, " m"], C: float, purpose: str) -> Head:
            """The mean of heads, each fitted on a group-balanced subset of some rows."""
            heads = []
            for draw in range(self.n_subsets):
                random = generator(session.seed, "dfr", purpose, draw)
                chosen = rows[equal_subset(groups.index[rows], random) > 0]
                heads.append(fit_sparse_head(x[chosen], y[chosen], n_classes, C=C, seed=draw))
            return average(heads)

        def score(C: float) -> tuple[float, float]:
            head = fitted(fitted_on, C, "tune")
            right = predicted(head, x[checked_on]) == y[checked_on]
            return group_scores(right.float(), groups.index[checked_on])

        C = self.C
        if C is None:
            fitted_on, checked_on = halves(groups.index, session.seed)
            if not len(checked_on):
                raise DataError(
                    "every validation group has one example: set C=, there is nothing to choose it on"
                )
            C = max(CANDIDATES, key=score)
        session.artefacts["dfr_C"] = C
        head = fitted(torch.arange(len(y)), C, "final")
        return with_head(self, session, erm, standardize.fold(head))


def _check_groups(y: Int[Tensor, " n"], size: Int[Tensor, " G"], class_names: tuple[str, ...]) -> None:
    missing = [name for c, name in enumerate(class_names) if not bool((y == c).any())]
    if missing:
        raise DataError(f"no validation example of class {missing[0]!r}: a head cannot be fitted without")
    if bool((size == 0).any()):
        warnings.warn(
            f"validation groups {(size == 0).nonzero().squeeze(1).tolist()} have no examples: the head is fitted "
            "on the others, and may fail where the missing ones appear",
            UserWarning,
            stacklevel=3,
        )
