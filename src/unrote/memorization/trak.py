"""TRAK's score of an example for itself (Park et al. 2023, arXiv 2303.14186, equation 17 with x = x_i).

    phi_i = R' grad f(x_i) / sqrt k       f = log p_y / (1 - p_y), R a random P x k of plus and minus ones
    s_i = mean over models of phi_i' (Phi' Phi)^-1 phi_i  *  mean of (1 - p_i)

The first factor is the leverage of the example among the projected gradients, so that s_i lies in [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unrote.errors import OptionError
from unrote.memorization.gradients import Parameters, network, per_example
from unrote.memorization.held_out_gap import predicted
from unrote.memorization.reading import own
from unrote.memorization.score import Clock, Cost, Score
from unrote.seeding import generator

_RIDGE = 1e-6  # of the mean diagonal of Phi' Phi, so that fewer gradients than directions are no error


def trak(
    model: Any,
    X: Any,
    y: Any,
    *,
    models: Sequence[Any] | None = None,
    parameters: Parameters = "all",
    dimensions: int = 512,
    seed: int = 0,
) -> Score:
    """TRAK self-score of every example, (n,) in [0, 1].

    Args:
        model: a trained model.
        X: n examples.
        y: (n,) labels.
        models: several in its place, from different seeds or subsets.
        parameters: "head", "all", or dotted names.
        dimensions: k; fewer than the examples, else all leverages are 1.
        seed: of the projection.

    Raises:
        OptionError: if `dimensions` is out of range.
    """
    clock = Clock()
    each = [model] if models is None else list(models)
    n = len(y)
    if not 1 <= dimensions < n:
        raise OptionError(f"dimensions={dimensions} for {n} examples: 1 to {n - 1} are wanted")
    leverages, doubts = [], []
    for one in each:
        stack, target = network(one, X, y)
        phi = torch.empty(n, 0)
        signs: torch.Tensor | None = None
        for rows, g in per_example(stack, X, target, parameters, of="margin"):
            if signs is None:
                k = min(dimensions, g.shape[1])
                drawn = torch.randint(2, (g.shape[1], k), generator=generator(seed, "trak"))
                signs = (drawn * 2.0 - 1) / k**0.5
                phi = torch.empty(n, k)
            phi[rows] = g.cpu().float() @ signs
        wide = phi.double()
        gram = wide.mT @ wide
        gram.diagonal().add_(_RIDGE * gram.diagonal().mean().clamp_min(1e-30))
        z = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), wide.mT, upper=False)
        leverages.append((z * z).sum(0).numpy())
        doubts.append(1 - own(predicted(stack, X), target.numpy()))
    values = np.mean(leverages, 0) * np.mean(doubts, 0)
    cost = Cost(clock.seconds, passes=4 * len(each))
    return Score("trak", values, cost, details={"leverage": np.mean(leverages, 0)})
