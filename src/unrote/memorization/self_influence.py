"""Self-influence: how far an example's own gradient moves the parameters that fit it (Koh and Liang 2017).

    s_i = g_i' (H + damping I)^-1 g_i        g_i: gradient of example i's loss by the head's parameters

s_i / n is, to first order, what leaving the example out adds to its own loss. It has no upper bound, and overstates
or understates the examples that matter most; `leave_one_out` corrects that at about the same cost.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from unrote.errors import OptionError
from unrote.memorization.fitting import fit_softmax, stationarity
from unrote.memorization.head_solver import (
    Settled,
    factorise,
    influence_on_own,
    leave_out,
    leverages,
    settle,
)
from unrote.memorization.hessian import HeadData, residuals
from unrote.memorization.penalty import best_penalty, scaled_penalties
from unrote.memorization.reading import Head, own, read_head, softmax
from unrote.memorization.score import Clock, Cost, Score


def prepared(
    model: Any,
    X: Any,
    y: Any,
    *,
    damping: float | Literal["auto"] | None,
    head: str | None,
    refit: bool,
    weight: Any,
    dtype: str | None,
    form: str = "auto",
) -> tuple[Head, HeadData, Settled]:
    """The head, what its Hessian is made of, and how it is factorised; see `self_influence` for the arguments.

    Raises:
        OptionError: if the damping is a word other than "auto".
    """
    found = read_head(model, X, y, head=head)
    weight = None if weight is None else np.asarray(weight, np.float64)
    if isinstance(damping, str):
        if damping != "auto":
            raise OptionError(f"damping={damping!r}: a number of at least 0, 'auto' or None is wanted")
        return _at_best_penalty(found, weight, dtype, form)
    data = found.data(weight)
    settled = settle(data, damping, dtype, penalty=found.penalty, damp_bias=found.bias_penalised, form=form)
    if refit:
        start = np.concatenate([found.weight, np.zeros((len(found.weight), 1))], 1)
        if found.bias is not None:
            start[:, -1] = found.bias
        found = fit_softmax(
            np.asarray(found.features),
            found.y,
            len(found.weight),
            penalty=settled.damping,
            weight=weight,
            start=start,
        )
        data = found.data(weight)
        settled = settle(data, settled.damping, dtype, form=form)
        note = f"the head was fitted again with penalty {settled.damping:.3g}"
    else:
        slope = stationarity(found, data, settled.damping)
        note = (
            f"largest slope {slope:.1e} of the penalised loss at the head (0 where it was trained to the end)"
        )
    return found, data, replace(settled, notes=(*settled.notes, note))


def _at_best_penalty(
    found: Head, weight: np.ndarray | None, dtype: str | None, form: str
) -> tuple[Head, HeadData, Settled]:
    features = np.asarray(found.features)
    tried = scaled_penalties(features)
    best = best_penalty(features, found.y, len(found.weight), tried, weight)
    data = best.head.data(weight)
    settled = settle(data, best.penalty, dtype, form=form)
    note = (
        f"the head was fitted again with penalty {best.penalty:.3g}, of {len(tried)} the one whose held-out "
        f"predictions have the lowest loss, {best.loss:.3g}"
    )
    return best.head, data, replace(settled, notes=(*settled.notes, note))


def self_influence(
    model: Any,
    X: Any,
    y: Any,
    *,
    damping: float | Literal["auto"] | None = None,
    head: str | None = None,
    refit: bool = False,
    weight: Any = None,
    dtype: str | None = None,
) -> Score:
    """Exact self-influence of every example on the head of a model, (n,), at least 0.

    Args:
        model: a stack of one, what carries one, a linear classifier of scikit-learn, or an `nn.Module`.
        X: n examples, as the model takes them.
        y: (n,) labels.
        damping: of the mean Hessian; default the penalty the model tells of, else a share of its mean eigenvalue.
            "auto" fits the head again with the penalty, of a few, under which the closed form's held-out
            predictions fit the labels best: of use to find wrong labels, as few heads are trained with it.
        head: dotted name of an `nn.Module`'s last linear layer.
        refit: fit the head again to its minimum first, with the damping as penalty.
        weight: (n,) what each example counted in training.
        dtype: "float32" or "float64"; default double where it is cheap or needed.

    Raises:
        OptionError: if no head is found, or the Hessian is singular.
        DataError: if labels do not fit, or there are NaN.
    """
    clock = Clock()
    found, data, settled = prepared(
        model, X, y, damping=damping, head=head, refit=refit, weight=weight, dtype=dtype
    )
    if settled.dual or data.m == 1:  # the leverage costs no more, and is the better conditioned of the two
        leverage, flops, notes = leverages(data, settled)
        values = influence_on_own(data, found.y, leverage)
    else:
        factor, settled = factorise(data, settled)
        r = residuals(data.p, found.y)[:, 1:]
        values, flops, notes = data.total * factor.self_products(r), factor.flops, settled.notes
    return Score("self_influence", values, Cost(clock.seconds, passes=1, flops=flops), notes=notes)


def leave_one_out(
    model: Any,
    X: Any,
    y: Any,
    *,
    damping: float | Literal["auto"] | None = None,
    head: str | None = None,
    refit: bool = False,
    weight: Any = None,
    dtype: str | None = None,
) -> Score:
    """Memorization of every example by the head of a model, (n,) in [-1, 1]: p(y_i) less p(y_i) without example i.

    One factorisation gives all: `details` has "held_out_logits" (n, C), "p_train" and "p_held_out" (n,), the loss
    that leaving out adds, "loss_change" (n,), and "self_influence" (n,). The features are those of the model as it
    is: a network that learned them saw the example.

    Args:
        model: as for `self_influence`.
        X: n examples.
        y: (n,) labels.
        damping: the head's L2 penalty; default the one the model tells of, else a share of the mean eigenvalue;
            "auto" as for `self_influence`.
        head: dotted name of an `nn.Module`'s last linear layer.
        refit: fit the head again to its minimum first, which the closed form supposes.
        weight: (n,) what each example counted in training.
        dtype: "float32" or "float64"; default double where it is cheap or needed.

    Raises:
        OptionError: if no head is found, or the Hessian is singular.
        DataError: if labels do not fit, or there are NaN.
    """
    clock = Clock()
    found, data, settled = prepared(
        model, X, y, damping=damping, head=head, refit=refit, weight=weight, dtype=dtype
    )
    removed = leave_out(data, found.y, settled)
    held_out = found.logits + removed.change
    p_train, p_held_out = own(data.p, found.y), own(softmax(held_out), found.y)
    details = {
        "held_out_logits": held_out,
        "p_train": p_train,
        "p_held_out": p_held_out,
        "loss_change": _log_loss(held_out, found.y) - _log_loss(found.logits, found.y),
        "self_influence": removed.self_influence,
    }
    cost = Cost(clock.seconds, passes=1, flops=removed.flops)
    return Score("leave_one_out", p_train - p_held_out, cost, notes=removed.notes, details=details)


def _log_loss(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    largest = logits.max(1, keepdims=True)
    total = np.log(np.exp(logits - largest).sum(1)) + largest[:, 0]
    result: np.ndarray = total - own(logits, y)
    return result


def least_squares_leave_one_out(X: Any, y: Any, *, penalty: float, bias: bool = True) -> Score:
    """Memorization of targets by ridge regression, exact, (n,): squared error without the example less that with it.

    Fits f(x) = w'x + b with `mean squared error + penalty |w|^2`, bias free. `details` has "residual" f - y,
    "held_out_residual", "leverage" h, and "shift", what the example does to its own prediction.

    Args:
        X: (n, d).
        y: (n,) numbers.
        penalty: above 0.
        bias: whether to fit a bias, which is not penalised.

    Raises:
        OptionError: if the penalty is not above 0.
    """
    if not penalty > 0:
        raise OptionError(f"penalty={penalty!r}: a number above 0 is wanted")
    clock = Clock()
    x, target = np.asarray(X, np.float64), np.asarray(y, np.float64)
    centre = x.mean(0) if bias else np.zeros(x.shape[1])
    a, t = x - centre, target - (target.mean() if bias else 0.0)
    # the hat matrix by the smaller of the two systems
    if len(a) < a.shape[1]:
        kernel = a @ a.T
        inverse = np.linalg.inv(kernel + len(a) * penalty * np.eye(len(a)))
        hat = np.eye(len(a)) - len(a) * penalty * inverse
        lever, fitted = hat.diagonal(), hat @ t
    else:
        solved = np.linalg.solve(a.T @ a + len(a) * penalty * np.eye(a.shape[1]), a.T)
        lever, fitted = np.einsum("id,di->i", a, solved), a @ (solved @ t)
    h = (lever + (1 / len(a) if bias else 0.0)).clip(0, 1 - 1e-9)
    residual = fitted - t
    without = residual / (1 - h)
    details = {"residual": residual, "held_out_residual": without, "leverage": h, "shift": residual - without}
    flops = float(len(a)) * a.shape[1] ** 2 + a.shape[1] ** 3 / 3
    return Score("least_squares", without**2 - residual**2, Cost(clock.seconds, flops=flops), details=details)
