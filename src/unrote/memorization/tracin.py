"""TracIn self-influence: sum over checkpoints of rate * |g_i|^2 (Pruthi et al. 2020, arXiv 2002.08484, section 3)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unrote.errors import OptionError
from unrote.memorization.gradients import Parameters, squared_norms
from unrote.memorization.score import Clock, Cost, Score


def tracin(
    model: Any,
    X: Any,
    y: Any,
    *,
    checkpoints: Sequence[Any] | None = None,
    rates: Sequence[float] | None = None,
    parameters: Parameters = "head",
) -> Score:
    """Sum over checkpoints of learning rate times squared gradient norm, (n,), at least 0.

    Args:
        model: the trained model; the only checkpoint where no others are given.
        X: n examples.
        y: (n,) labels.
        checkpoints: models as they were during training, in place of the trained one.
        rates: the learning rate at each checkpoint; default 1.
        parameters: "head", "all", or dotted names.

    Raises:
        OptionError: if there is not one rate per checkpoint.
    """
    clock = Clock()
    models = [model] if checkpoints is None else list(checkpoints)
    rates = [1.0] * len(models) if rates is None else list(rates)
    if not models or len(rates) != len(models):
        raise OptionError(f"{len(rates)} rates for {len(models)} checkpoints: one each is wanted")
    values = np.sum(
        [rate * squared_norms(one, X, y, parameters) for rate, one in zip(rates, models, strict=True)], 0
    )
    return Score(
        "tracin", values, Cost(clock.seconds, passes=len(models) * (1 if parameters == "head" else 3))
    )
