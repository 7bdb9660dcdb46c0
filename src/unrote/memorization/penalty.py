"""How much to penalise a head: as much as its own held-out predictions say.

    for each penalty of a few: fit the head, leave each example out in closed form, take the mean loss at the labels
    keep the penalty where that is lowest

The closed form costs one factorisation a penalty, where cross-validation would cost as many fits as folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from unrote.memorization.fitting import fit_softmax
from unrote.memorization.head_solver import leave_out, settle
from unrote.memorization.reading import Head, own, softmax

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Tried where none is given, on features whose mean square about their means is one."""


@dataclass(frozen=True)
class Fitted:
    """A head, and what it would say of each example without having seen it.

    Args:
        head: at its minimum.
        penalty: lambda of `mean loss + lambda/2 |W|^2`.
        held_out_logits: (n, C).
        loss: mean cross-entropy of those, in nats.
    """

    head: Head
    penalty: float
    held_out_logits: Float[np.ndarray, "n C"]
    loss: float


def best_penalty(
    features: Float[np.ndarray, "n d"],
    y: np.ndarray,
    n_classes: int,
    penalties: Sequence[float],
    weight: np.ndarray | None = None,
) -> Fitted:
    """The head whose held-out predictions fit the labels best.

    Args:
        features: (n, d).
        y: (n,) labels from 0.
        n_classes: C.
        penalties: at least one, all above 0, the largest first.
        weight: (n,) what each example counts.
    """
    best: Fitted | None = None
    start = None
    for penalty in penalties:
        head = fit_softmax(
            features, y, n_classes, penalty=penalty, weight=weight, start=start, tolerance=1e-7
        )
        assert head.bias is not None
        start = np.concatenate([head.weight, head.bias[:, None]], 1)
        data = head.data(weight)
        logits = head.logits + leave_out(data, y, settle(data, penalty, "float64")).change
        loss = float(data.w @ -np.log(own(softmax(logits), y).clip(1e-12)) / data.total)
        if best is None or loss < best.loss:
            best = Fitted(head, penalty, logits, loss)
        elif loss > 1.5 * best.loss:
            break  # penalties that follow are smaller still
    assert best is not None
    return best


def scaled_penalties(features: Float[np.ndarray, "n d"]) -> list[float]:
    """`PENALTIES` for features of any scale."""
    scale = float(np.var(np.asarray(features, np.float64), axis=0).mean()) or 1.0
    return [penalty * scale for penalty in PENALTIES]
