"""GraNd: expected norm of an example's gradient (Paul et al. 2021, arXiv 2107.07075, definition 2.1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unrote.memorization.gradients import Parameters, squared_norms
from unrote.memorization.score import Clock, Cost, Score


def grand(
    model: Any,
    X: Any,
    y: Any,
    *,
    models: Sequence[Any] | None = None,
    parameters: Parameters = "head",
) -> Score:
    """Gradient norm, mean over models, (n,), with standard errors where there are several.

    At initialisation, as the paper first had it, the score is little else than the norm of the input (Kirsch 2023,
    arXiv 2303.14753): take models that trained for some epochs.

    Args:
        model: a trained model.
        X: n examples.
        y: (n,) labels.
        models: several in its place, from different seeds.
        parameters: "head", "all", or dotted names.
    """
    clock = Clock()
    each = [model] if models is None else list(models)
    norms = np.stack([np.sqrt(squared_norms(one, X, y, parameters)) for one in each])
    errors = norms.std(0, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else None
    cost = Cost(clock.seconds, passes=len(each) * (1 if parameters == "head" else 3))
    return Score("grand", norms.mean(0), cost, errors=errors)
