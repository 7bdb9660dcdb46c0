"""Curvature of the loss around an example (Garg and Roy 2023, arXiv 2307.05831).

    kappa_i = (1/R) sum over v of |grad_x l(x_i + h v) - grad_x l(x_i)|^2 / h^2        v of random signs

which estimates tr(H_x^2), H_x the Hessian of the loss by the input; the paper averages it over epochs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrote.data.inputs import as_inputs
from unrote.errors import DataError, OptionError
from unrote.memorization.gradients import network, objective
from unrote.memorization.score import Clock, Cost, Score
from unrote.models import Stack
from unrote.seeding import generator


def curvature(
    model: Any,
    X: Any,
    y: Any,
    *,
    checkpoints: Sequence[Any] | None = None,
    step: float = 1e-2,
    draws: int = 10,
    batch_size: int = 256,
    seed: int = 0,
) -> Score:
    """Mean squared change of the input gradient along random signs, (n,), with standard errors over the draws.

    Args:
        model: a trained model.
        X: n examples, single arrays.
        y: (n,) labels.
        checkpoints: models as they were during training, to average over, in place of the trained one.
        step: h, in the inputs' units.
        draws: R.
        batch_size: examples at once.
        seed: of the signs.

    Raises:
        OptionError: if `step` or `draws` is out of range.
        DataError: if examples are not single arrays of numbers.
    """
    if not step > 0 or draws < 1:
        raise OptionError(f"step={step!r}, draws={draws!r}: a number above 0 and at least 1 draw are wanted")
    clock, inputs = Clock(), as_inputs(X)
    if not inputs.shape or not inputs[torch.arange(1)].is_floating_point():
        raise DataError("curvature moves the inputs a little: arrays of floating-point numbers are wanted")
    models = [model] if checkpoints is None else list(checkpoints)
    found = np.zeros((len(models), draws, len(inputs)))
    for m, one in enumerate(models):
        stack, y_all = network(one, X, y)
        for start in range(0, len(inputs), batch_size):
            rows = torch.arange(start, min(start + batch_size, len(inputs)))
            x, target = stack.place(inputs[rows]), y_all[rows].to(stack.device)
            base = _input_gradient(stack, x, target)
            for r in range(draws):
                drawn = torch.randint(2, x.shape, generator=generator(seed, "curvature", m, r, start))
                v = (drawn * 2.0 - 1).to(x)
                change = _input_gradient(stack, x + step * v, target) - base
                found[m, r, start : start + len(rows)] = (
                    change.flatten(1).double().square().sum(1).cpu().numpy() / step**2
                )
    each = found.mean(0)
    errors = each.std(0, ddof=1) / np.sqrt(draws) if draws > 1 else None
    cost = Cost(clock.seconds, passes=3.0 * (draws + 1) * len(models))
    return Score("curvature", each.mean(0), cost, errors=errors)


def _input_gradient(stack: Stack, x: Tensor, y: Tensor) -> Tensor:
    moved = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = objective(stack(moved)[0], y, "loss").sum()
    return torch.autograd.grad(loss, moved)[0]
