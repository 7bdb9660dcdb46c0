"""From a head and its examples to the leverage of each: which form, which precision, which damping."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from unrote.errors import OptionError
from unrote.memorization.hessian import (
    AUTOMATIC,
    MOST_UNKNOWNS,
    Factor,
    HeadData,
    dual_flops,
    dual_leverage,
    primal_flops,
    residuals,
)
from unrote.memorization.removal import removal

_SAFE_FLOAT32 = 1e-5  # of the mean eigenvalue: with less damping single precision loses too many digits
_ALWAYS_FLOAT64 = 1024  # unknowns up to which double precision costs next to nothing


@dataclass(frozen=True)
class Settled:
    """What was chosen, and why.

    Args:
        damping: of the mean Hessian.
        damp_bias: whether the bias is damped too.
        dtype: of the factorisation.
        dual: whether the system of the examples is the smaller one.
        notes: in words.
    """

    damping: float
    damp_bias: bool
    dtype: str
    dual: bool
    notes: tuple[str, ...]


def settle(
    data: HeadData,
    damping: float | None,
    dtype: str | None,
    *,
    penalty: float | None = None,
    damp_bias: bool = True,
    form: str = "auto",
) -> Settled:
    """Choose damping, precision and form.

    Args:
        data: the examples.
        damping: as given, at least 0; None takes `penalty`, or a share of the mean eigenvalue.
        dtype: "float32", "float64" or None.
        penalty: what the head was trained with, if that is known.
        damp_bias: whether that penalty holds for the bias.
        form: "auto", "primal" or "dual".

    Raises:
        OptionError: if an option is out of range.
    """
    if damping is not None and not (damping >= 0 and np.isfinite(damping)):
        raise OptionError(f"damping={damping!r}: a finite number of at least 0 is wanted")
    if dtype not in (None, "float32", "float64"):
        raise OptionError(f"dtype={dtype!r}: 'float32', 'float64' or None is wanted")
    if form not in ("auto", "primal", "dual"):
        raise OptionError(f"form={form!r}: 'auto', 'primal' or 'dual' is wanted")
    notes = []
    mean = data.mean_eigenvalue()
    if damping is None and penalty is not None:
        damping = penalty
        notes.append(f"damping {damping:.3g}, the penalty that the head was trained with")
    elif damping is None:
        scale = mean or 1.0
        damping, damp_bias = AUTOMATIC * scale, True
        notes.append(f"damping {damping:.3g}, {AUTOMATIC:g} of the Hessian's mean eigenvalue")
        if mean < 1e-10:
            notes.append("the head is sure of every example: nothing tells them apart but rounding")
    if dtype is None:
        small = data.m * data.q <= _ALWAYS_FLOAT64
        dtype = "float64" if small or damping < _SAFE_FLOAT32 * mean or not damp_bias else "float32"
    can_dual = damping > 0 and (damp_bias or not data.bias)
    if form == "dual" and not can_dual:
        raise OptionError("form='dual' needs a damping above 0 that holds for the bias too")
    dual = form == "dual" or (
        form == "auto"
        and can_dual
        and data.n * data.m <= MOST_UNKNOWNS // 2
        and (2 * dual_flops(data) < primal_flops(data) or data.m * data.q > MOST_UNKNOWNS)
    )
    if dual:
        dtype = "float64"
        notes.append("fewer examples than unknowns: the system of the examples was solved")
    return Settled(float(damping), damp_bias, dtype, dual, tuple(notes))


def factorise(data: HeadData, settled: Settled) -> tuple[Factor, Settled]:
    """The factor; in double precision after all where single precision finds the Hessian singular.

    Raises:
        OptionError: if it is singular in double precision too.
    """
    try:
        return Factor(data, settled.damping, damp_bias=settled.damp_bias, dtype=settled.dtype), settled
    except OptionError:
        if settled.dtype == "float64" or data.m * data.q > MOST_UNKNOWNS:
            raise
        note = "single precision found the Hessian singular: double precision was used"
        settled = replace(settled, dtype="float64", notes=(*settled.notes, note))
        return Factor(data, settled.damping, damp_bias=settled.damp_bias, dtype="float64"), settled


@dataclass(frozen=True)
class Removed:
    """What leaving out each example does to it, all from one factorisation.

    Args:
        change: (n, C) of its logits.
        self_influence: (n,) g'H^-1 g.
        flops: operations.
        notes: in words.
    """

    change: Float[np.ndarray, "n C"]
    self_influence: Float[np.ndarray, " n"]
    flops: float
    notes: tuple[str, ...]


def leverages(data: HeadData, settled: Settled) -> tuple[Float[np.ndarray, "n m m"], float, tuple[str, ...]]:
    """M_i of every example, the operations it took, and how it was done in words."""
    if settled.dual:
        return *dual_leverage(data, settled.damping), settled.notes
    factor, settled = factorise(data, settled)
    return factor.leverage(), factor.flops, settled.notes


def influence_on_own(data: HeadData, y: np.ndarray, leverage: Float[np.ndarray, "n m m"]) -> np.ndarray:
    """g'H^-1 g of every example, from M_i."""
    r = residuals(data.p, y)[:, 1:]
    found: np.ndarray = data.total * np.einsum("ia,iab,ib->i", r, leverage, r).clip(0)
    return found


def leave_out(data: HeadData, y: np.ndarray, settled: Settled) -> Removed:
    """Leave each example out.

    Args:
        data: the examples.
        y: (n,) labels.
        settled: how.
    """
    leverage, flops, notes = leverages(data, settled)
    change, cut = removal(leverage, data, y)
    if cut:
        notes = (
            *notes,
            f"{cut} examples hold some direction of the parameters alone: their leverage was cut",
        )
    return Removed(change, influence_on_own(data, y, leverage), flops, notes)
