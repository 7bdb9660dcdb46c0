"""Held-out predictions that the user made, for example with scikit-learn's `cross_val_predict`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrote.errors import DataError
from unrote.heldout.held_out import HeldOut

_FLOOR = 1e-12  # a probability of exactly 0 must not become minus infinity


def precomputed(predictions: Any, n_examples: int, n_classes: int) -> HeldOut:
    """Wrap held-out logits or probabilities, told apart by whether rows are distributions.

    Args:
        predictions: (n, C) logits, log-probabilities or probabilities, in the order of the training examples
            and with columns in the order of the classes.
        n_examples: n.
        n_classes: C.

    Raises:
        DataError: if they are not numbers, the shape is not (n, C), or there are NaN or infinite values.
    """
    if isinstance(predictions, Tensor):
        predictions = predictions.detach().cpu()
    try:
        values = torch.as_tensor(np.asarray(predictions, dtype=np.float32))
    except (ValueError, TypeError) as error:
        raise DataError(f"held-out predictions: an array of numbers (n, C) is wanted ({error})") from error
    if tuple(values.shape) != (n_examples, n_classes):
        raise DataError(
            f"held-out predictions have shape {tuple(values.shape)}: ({n_examples}, {n_classes}) is wanted, "
            "a row per training example and a column per class"
        )
    is_distribution = bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-3).all())
    return HeldOut(values.clamp_min(_FLOOR).log() if is_distribution else values)
