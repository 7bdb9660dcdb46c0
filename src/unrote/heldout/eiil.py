"""EIIL: environments that a fixed reference model violates the most (Creager et al. 2021, arXiv 2010.07249).

    f = logits of a reference model, ERM trained so briefly that it has learned the shortcut and little else
    u[i] in [0, 1] = how much example i belongs to environment 1, 1 - u[i] to environment 0
    R_1(w) = (1/n) * sum of u[i] * CE(w * f(x_i), y_i);  R_0 likewise with 1 - u[i]
    find the u that maximises (dR_1/dw)^2 + (dR_0/dw)^2 at w = 1, the penalty of IRM

The paper ascends by 10,000 steps of Adam. Where that leads is known: with slope[i] = dCE(w * f(x_i), y_i)/dw
at w = 1, both terms are squares of sums that are linear in u, so that the maximum puts all positive slopes
into one environment and all negative ones into the other. Which one is left to chance; here environment 1 is
that of the positive slopes, the examples that a more confident reference model would fit worse. With two
classes these are exactly those it is wrong about, so that a reference model trained for too long, which is
right about everything, has nothing to tell.
"""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import DataError


def slopes(logits: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The derivative of CE(w * logits, y) by w at w = 1: the expected logit less the label's own.

    Args:
        logits: (n, C).
        y: (n,) labels.
    """
    # of differences to the label's own logit, so that sure predictions keep their digits
    difference = logits.detach().double() - logits.detach().double().gather(1, y.unsqueeze(1))
    return (difference.softmax(1) * difference).sum(1)


def infer_environments(logits: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Inferred environment of each example, (n,): 1 where a larger w would cost more, else 0.

    Warns where all examples are in one environment.

    Args:
        logits: (n, C) of the reference model.
        y: (n,) labels.

    Raises:
        DataError: if logits are not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise DataError("EIIL: logits of the reference model have NaN or infinity: lower its learning rate")
    environment = (slopes(logits, y) > 0).long()
    if not 0 < int(environment.sum()) < len(y):
        warnings.warn(
            f"EIIL puts all {len(y)} examples into environment {int(environment[0])}, so that the inferred "
            "groups are the classes: the reference model fits all of them alike; use groups='xrm'",
            UserWarning,
            stacklevel=2,
        )
    return environment
