"""Held-out logits in closed form: one linear head, and what it would say of each example without having seen it.

    fit softmax regression on the examples as they are, with an L2 penalty
    h[i] = its logits for i after one Newton step on the objective without i          (unrote.memorization.removal)

No twins, no folds: one fit and one factorisation give all n rows. The penalty is the one of a few under which the
held-out predictions themselves fit the labels best. The head is linear in the examples whatever model is trained
afterwards, so it learns the shortcuts that a linear head can learn; for others, pass features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.inputs import as_inputs
from unrote.errors import DataError, OptionError
from unrote.heldout.held_out import HeldOut
from unrote.memorization.penalty import PENALTIES, best_penalty

_MOST_FEATURES = 20_000


def alo(
    x: Any,
    y: Int[Tensor, " n"],
    n_classes: int,
    *,
    penalty: float | Sequence[float] = PENALTIES,
    weight: Float[Tensor, " n"] | None = None,
) -> HeldOut:
    """Held-out logits of all n training examples from one fitted linear head.

    Args:
        x: n examples that are arrays, flattened; or their features.
        y: (n,) labels.
        n_classes: C.
        penalty: lambda of `mean loss + lambda/2 |W|^2` on centred features of mean square one; of several, the
            largest first, the one whose held-out predictions have the lowest loss.
        weight: (n,) of each example's loss; None weighs all the same.

    Raises:
        DataError: if examples are not single arrays, or have too many values.
        OptionError: if a penalty is not above 0.
    """
    penalties = [penalty] if isinstance(penalty, (int, float)) else list(penalty)
    if not penalties or not all(p > 0 for p in penalties):
        raise OptionError(f"penalty={penalty!r}: numbers above 0 are wanted")
    features = _features(x)
    target, w = y.cpu().numpy(), None if weight is None else weight.cpu().double().numpy()
    best = best_penalty(features, target, n_classes, penalties, w)
    return HeldOut(torch.from_numpy(best.held_out_logits).float(), source="alo")


def _features(x: Any) -> Float[np.ndarray, "n d"]:
    inputs = as_inputs(x)
    size = int(np.prod(inputs.shape)) if inputs.shape else 0
    if not 1 <= size <= _MOST_FEATURES:
        raise DataError(
            f"examples of shape {inputs.shape or 'unknown'}: held_out='alo' fits a linear head to the examples "
            f"themselves, arrays of at most {_MOST_FEATURES:,} numbers; use 'xrm' or 'kfold', or pass "
            "`unrote.heldout.alo(features, y, n_classes)` of features of your own"
        )
    rows = inputs[torch.arange(len(inputs))].flatten(1).double().numpy()
    rows = rows - rows.mean(0)
    result: np.ndarray = rows / max(float(np.sqrt((rows**2).mean())), 1e-12)
    return result
