"""The held-out gap: log p(y) by the model trained on an example less log p(y) by one that was not.

From the very held-out logits that MAT's shift is made of: XRM's twins, k folds, or a head in closed form.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from unrote.errors import DataError
from unrote.memorization.reading import labels, own, softmax
from unrote.memorization.score import Clock, Cost, Score


def held_out_gap(
    model: Any, X: Any, y: Any, *, held_out: Any, log: bool = True, floor: float = 1e-6
) -> Score:
    """Gap log p_train(y) - log p_heldout(y) of every example, (n,).

    Args:
        model: the trained model, anything with logits: a stack of one or what carries one, a module, a classifier
            with `predict_proba`; or (n, C) logits.
        X: n examples.
        y: (n,) labels.
        held_out: (n, C) held-out logits, or an object that has them as `logits`.
        log: whether to take logarithms; without, the difference of the probabilities, in [-1, 1].
        floor: added to both probabilities before the logarithm.

    Raises:
        DataError: if shapes differ, or there are NaN.
    """
    clock = Clock()
    given = held_out.logits if hasattr(held_out, "logits") else held_out
    without = np.asarray(torch.as_tensor(given).detach().cpu(), np.float64)
    trained = np.log(predicted(model, X).clip(1e-300))
    if without.shape != trained.shape:
        raise DataError(f"held-out logits of shape {without.shape}: {trained.shape} is wanted")
    target = labels(y, len(trained), trained.shape[1])
    p_train, p_held_out = own(softmax(trained), target), own(softmax(without), target)
    gap = np.log(p_train + floor) - np.log(p_held_out + floor) if log else p_train - p_held_out
    details = {"p_train": p_train, "p_held_out": p_held_out}
    return Score("held_out_gap", gap, Cost(clock.seconds, passes=1), details=details)


def predicted(model: Any, X: Any) -> Float[np.ndarray, "n C"]:
    """Probabilities of any model, or of logits (n, C) themselves.

    Raises:
        DataError: if they are not finite.
    """
    if isinstance(model, (np.ndarray, torch.Tensor)):
        p = softmax(np.asarray(torch.as_tensor(model).detach().cpu()))
    elif hasattr(model, "predict_proba"):
        p = np.asarray(model.predict_proba(X), np.float64)
    else:
        from unrote.memorization.reading import as_stack

        p = softmax(as_stack(model).predict(X)[0].numpy())
    if not np.isfinite(p).all():
        raise DataError("the model's probabilities have NaN: it diverged, or its inputs have such values")
    return p
