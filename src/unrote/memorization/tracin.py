"""TracIn self-influence: sum over checkpoints of rate * |g_i|^2 (Pruthi et al. 2020, arXiv 2002.08484, section 3)."""

from collections.abc import Sequence
from typing import Any, Literal

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
    backend: Literal["unrote", "captum"] = "unrote",
) -> Score:
    """Sum over checkpoints of learning rate times squared gradient norm, (n,), at least 0.

    Args:
        model: the trained model; the only checkpoint where no others are given.
        X: n examples.
        y: (n,) labels.
        checkpoints: models as they were during training, in place of the trained one.
        rates: the learning rate at each checkpoint; default 1.
        parameters: "head", "all", or dotted names.
        backend: "unrote", or "captum" (an extra, "attribution"): the same numbers by its TracInCP.

    Raises:
        OptionError: if there is not one rate per checkpoint, or no such backend.
        MissingPackageError: if the backend is not installed.
    """
    if backend not in ("unrote", "captum"):
        raise OptionError(f"backend={backend!r}: 'unrote' or 'captum' is wanted")
    clock = Clock()
    models = [model] if checkpoints is None else list(checkpoints)
    rates = [1.0] * len(models) if rates is None else list(rates)
    if not models or len(rates) != len(models):
        raise OptionError(f"{len(rates)} rates for {len(models)} checkpoints: one each is wanted")
    norms, passes = squared_norms, 1 if parameters == "head" else 3
    if backend == "captum":
        from unrote.memorization.captum_backend import squared_norms as norms

        passes = 3
    values = np.sum([rate * norms(one, X, y, parameters) for rate, one in zip(rates, models, strict=True)], 0)
    return Score("tracin", values, Cost(clock.seconds, passes=len(models) * passes))
