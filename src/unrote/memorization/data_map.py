"""Data maps: mean and spread of p(y) as a model learns (Swayamdipta et al. 2020, arXiv 2009.10795, section 2)."""

from typing import Any

from unrote.memorization.dynamics import as_dynamics
from unrote.memorization.score import Cost, Score
from unrote.training import Recipe


def data_map(model: Any, X: Any, y: Any, *, recipe: Recipe | None = None, seed: int = 0) -> Score:
    """One less the mean of p(y) over epochs, (n,) in [0, 1]: large where an example is hard to learn.

    `details` has the map: "confidence" (mean of p(y)), "variability" (its standard deviation) and "correctness"
    (share of epochs in which it is right), each (n,).

    Args:
        model: what to train afresh, or a record made by `record_dynamics`.
        X: n examples.
        y: (n,) labels.
        recipe: how it is trained.
        seed: of the model and the minibatch order.
    """
    seen = as_dynamics(model, X, y, recipe, seed)
    confidence = seen.p.mean(0)
    details = {
        "confidence": confidence,
        "variability": seen.p.std(0),
        "correctness": seen.correct.mean(0),
    }
    cost = Cost(seen.seconds, passes=seen.passes, models=1)
    return Score("data_map", 1 - confidence, cost, details=details)
