"""The head that leave-one-out is exact about: penalised softmax regression, solved to the last digit by Newton.

    minimise  sum_i w_i CE(W a_i, y_i) / sum_i w_i + penalty/2 |W|^2        the bias is penalised as the rest

L-BFGS comes near the minimum and Newton's steps, with the factor the scores need anyway, finish. A head that is at
its minimum is what makes the closed form of leaving an example out true to retraining.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional as F

from unrote.errors import OptionError
from unrote.memorization.hessian import Factor, HeadData, augmented, residuals
from unrote.memorization.kernels import cross_products
from unrote.memorization.reading import Head, softmax

_MOST_NEWTON = 2500  # unknowns up to which a factorisation costs less than many gradients


def fit_softmax(
    features: Float[np.ndarray, "n d"],
    y: np.ndarray,
    n_classes: int,
    *,
    penalty: float,
    weight: np.ndarray | None = None,
    start: Float[np.ndarray, "C q"] | None = None,
    tolerance: float = 1e-9,
) -> Head:
    """Fit a softmax head with a bias.

    Args:
        features: (n, d).
        y: (n,) labels from 0.
        n_classes: C.
        penalty: lambda, above 0.
        weight: (n,) what each example counts.
        start: (C, d + 1) where to begin; default 0.
        tolerance: of the largest slope, where it stops.

    Raises:
        OptionError: if the penalty is not above 0.
    """
    if not penalty > 0:
        raise OptionError(
            f"penalty={penalty!r}: a number above 0 is wanted, else sure heads grow without end"
        )
    from scipy.optimize import minimize

    a = torch.from_numpy(augmented(features, True, np.float64))
    w = torch.ones(len(a)).double() if weight is None else torch.as_tensor(weight).double()
    w = w / w.sum()
    truth = F.one_hot(torch.from_numpy(y), n_classes).double()
    shape = (n_classes, a.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(flat).view(shape)
        log_p = torch.log_softmax(a @ theta.mT, 1)
        value = -(w @ (truth * log_p).sum(1)) + penalty / 2 * theta.square().sum()
        slope = (w.unsqueeze(1) * (log_p.exp() - truth)).mT @ a + penalty * theta
        return float(value), slope.flatten().numpy()

    flat = np.zeros(shape[0] * shape[1]) if start is None else start.ravel().copy()
    newton = (n_classes - 1) * shape[1] <= _MOST_NEWTON
    limit = {"maxiter": 60 if newton else 3000, "gtol": tolerance, "ftol": 1e-15, "maxcor": 20}
    flat = minimize(loss, flat, jac=True, method="L-BFGS-B", options=limit).x
    for _ in range(25 if newton else 0):
        value, slope = loss(flat)
        if np.abs(slope).max() < tolerance:
            break
        step = _newton_step(features, flat.reshape(shape), slope.reshape(shape), penalty, weight, a)
        scale = 1.0
        while loss(flat - scale * step)[0] > value + 1e-12 and scale > 1e-4:
            scale /= 2
        flat = flat - scale * step
    theta = flat.reshape(shape)
    logits = (a @ torch.from_numpy(theta).mT).numpy()
    return Head(features, logits, y, theta[:, :-1], theta[:, -1], penalty)


def _newton_step(
    features: np.ndarray,
    theta: Float[np.ndarray, "C q"],
    slope: Float[np.ndarray, "C q"],
    penalty: float,
    weight: np.ndarray | None,
    a: torch.Tensor,
) -> np.ndarray:
    """H^-1 slope. Shifts of all classes alike, which only the penalty sees, are solved by themselves."""
    data = HeadData(features, softmax((a @ torch.from_numpy(theta).mT).numpy()), True, weight)
    factor = Factor(data, penalty, damp_bias=True, dtype="float64")
    common = slope.mean(0)
    difference = data.total * factor.solve((slope - common)[1:].reshape(1, -1)).reshape(len(slope) - 1, -1)
    full = np.concatenate([np.zeros((1, difference.shape[1])), difference])
    result: np.ndarray = (full - full.mean(0) + common / penalty).ravel()
    return result


def stationarity(head: Head, data: HeadData, penalty: float) -> float:
    """The largest slope of the penalised mean loss at the head's parameters; 0 at its minimum.

    Args:
        head: its parameters.
        data: its probabilities of the examples, and their weights.
        penalty: lambda.
    """
    r = residuals(data.p, head.y) * (data.w / data.total)[:, None]
    features = np.asarray(head.features)
    features = features.astype(np.result_type(features.dtype, np.float32), copy=False)
    slope = np.abs(cross_products(r.astype(features.dtype), features) + penalty * head.weight).max()
    if head.bias is not None:
        offset = penalty * head.bias if head.bias_penalised else 0.0
        slope = max(slope, np.abs(r.sum(0) + offset).max())
    return float(slope)
