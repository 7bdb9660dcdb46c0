"""Second-split forgetting (Maini et al. 2022, arXiv 2210.15031): how soon an example is unlearned on other data.

    train on half A;  go on with half B alone;  e_i = epoch of the second part after which i (in A) stays wrong
    swap the halves, so that every example has a number

Wrong labels are unlearned at once, rare examples late: what one number of memorization cannot tell apart.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from unrote.memorization.dynamics import WATCHED, record_dynamics
from unrote.memorization.score import Cost, Score
from unrote.seeding import derive_seed, generator
from unrote.training import Recipe


def second_split_forgetting(
    model: Any,
    X: Any,
    y: Any,
    *,
    recipe: Recipe | None = None,
    second: Recipe | None = None,
    repeats: int = 1,
    seed: int = 0,
) -> Score:
    """How soon each example is forgotten, (n,) in [0, 1]: 1 at once, 0 never.

    `details` has "epoch" (n,), the mean number of epochs for which it was still right some time. The rate of the
    second part matters and stands in the notes: at low rates noise and rare examples look alike.

    Args:
        model: what to train afresh.
        X: n examples.
        y: (n,) labels.
        recipe: of the first part.
        second: of the second part; default as the first.
        repeats: pairs of halves to average over; two or more give errors.
        seed: of halves, models and orders.
    """
    first = recipe or WATCHED
    second = second or first
    n = len(y)
    found, seconds, passes = [], 0.0, 0.0
    for repeat in range(repeats):
        half = torch.randperm(n, generator=generator(seed, "second split", repeat)).numpy() % 2
        epochs = np.zeros(n)
        for side in (0, 1):
            own = derive_seed(seed, "side", repeat, side)
            inside = (half == side).astype(np.float64)
            learned = record_dynamics(model, X, y, recipe=first, weight=inside, seed=own)
            later = record_dynamics(
                model, X, y, recipe=replace(second), weight=1 - inside, seed=own + 1, start=learned.stack
            )
            epochs[half == side] = last_right(later.correct)[half == side] / len(later.correct)
            seconds, passes = (
                seconds + learned.seconds + later.seconds,
                passes + learned.passes + later.passes,
            )
        found.append(1 - epochs)
    values = np.mean(found, 0)
    errors = np.std(found, 0, ddof=1) / np.sqrt(repeats) if repeats > 1 else None
    note = (
        f"second part: {second.optimizer} at {second.learning_rate}, {second.epochs or second.steps} epochs"
    )
    cost = Cost(seconds, passes=passes, models=2 * repeats)
    return Score("second_split_forgetting", values, cost, errors, (note,), {"epoch": 1 - values})


def last_right(correct: Bool[np.ndarray, "E n"]) -> Float[np.ndarray, " n"]:
    """Number of epochs up to the last in which an example is right; 0 if it never is.

    Args:
        correct: after every epoch.
    """
    late = correct[::-1].argmax(0)
    return np.where(correct.any(0), len(correct) - late, 0).astype(float)
