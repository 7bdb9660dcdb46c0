"""Forgetting events: how often an example that was right turns wrong (Toneva et al. 2019, arXiv 1812.05159)."""

from typing import Any

import numpy as np

from unrote.memorization.dynamics import as_dynamics
from unrote.memorization.score import Cost, Score
from unrote.training import Recipe


def forgetting(model: Any, X: Any, y: Any, *, recipe: Recipe | None = None, seed: int = 0) -> Score:
    """Number of epochs after which an example, right before, is wrong, (n,).

    An example that was never right gets the number of epochs, more than any other can have; `details` has "never"
    (n,) and "first_right" (n,), the epoch from which it was first right, counted from 0.

    Args:
        model: what to train afresh, or a record made by `record_dynamics`.
        X: n examples.
        y: (n,) labels.
        recipe: how it is trained.
        seed: of the model and the minibatch order.
    """
    seen = as_dynamics(model, X, y, recipe, seed)
    lost = (seen.correct[:-1] & ~seen.correct[1:]).sum(0).astype(float)
    never = ~seen.correct.any(0)
    first = np.where(never, len(seen.correct), seen.correct.argmax(0))
    values = np.where(never, float(len(seen.correct)), lost)
    cost = Cost(seen.seconds, passes=seen.passes, models=1)
    return Score("forgetting", values, cost, details={"never": never, "first_right": first})
