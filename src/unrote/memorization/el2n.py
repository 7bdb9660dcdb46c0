"""EL2N: norm of the error early in training, mean over models (Paul et al. 2021, arXiv 2107.07075, section 2)."""

from dataclasses import replace
from typing import Any

import numpy as np

from unrote.errors import OptionError
from unrote.memorization.dynamics import WATCHED, record_dynamics
from unrote.memorization.score import Cost, Score
from unrote.seeding import derive_seed
from unrote.training import Recipe


def el2n(
    model: Any,
    X: Any,
    y: Any,
    *,
    recipe: Recipe | None = None,
    n_models: int = 10,
    epochs: int = 5,
    seed: int = 0,
) -> Score:
    """Mean over models of |p - onehot(y)| after a few epochs, (n,) in [0, sqrt 2], with standard errors.

    Args:
        model: what to train afresh.
        X: n examples.
        y: (n,) labels.
        recipe: how it is trained; its length is replaced by `epochs`.
        n_models: how many; the paper takes 10.
        epochs: passes before the look; the paper takes 10 to 20 on pictures.
        seed: of models and orders.

    Raises:
        OptionError: if there is no model.
    """
    if n_models < 1:
        raise OptionError(f"n_models={n_models}: at least 1 is wanted")
    short = replace(recipe or WATCHED, epochs=epochs, steps=None)
    runs = [
        record_dynamics(model, X, y, recipe=short, seed=derive_seed(seed, "el2n", k)) for k in range(n_models)
    ]
    errors = np.stack([run.error[-1] for run in runs])
    spread = errors.std(0, ddof=1) / np.sqrt(n_models) if n_models > 1 else None
    cost = Cost(sum(run.seconds for run in runs), passes=sum(run.passes for run in runs), models=n_models)
    return Score("el2n", errors.mean(0), cost, errors=spread)
