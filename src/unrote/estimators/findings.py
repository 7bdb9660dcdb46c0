"""What models that did not train on an example tell about it, beside the model that did."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from unrote.heldout import twins_among
from unrote.methods import Fitted, Session


@dataclass(frozen=True)
class HeldOutFindings:
    """Held-out predictions of the training rows, and what follows from them.

    Args:
        logits: (n, C).
        groups: (n,) inferred group, 0 or 1.
        group_names: what the two mean.
        memorization: (n,) p_train(y_i) - p_heldout(y_i).
        flip_rate: of the twins; None where there are none.
    """

    logits: Float[np.ndarray, "n C"]
    groups: Int[np.ndarray, " n"]
    group_names: tuple[str, str]
    memorization: Float[np.ndarray, " n"]
    flip_rate: float | None


def find_held_out(
    fitted: Fitted, session: Session, source: Any, logits: Float[np.ndarray, "n C"]
) -> HeldOutFindings | None:
    """The held-out predictions that the method worked with, or else those that the user wants to see.

    Args:
        fitted: what the method gave.
        session: that it was given; makes the predictions where the method made none.
        source: "xrm", "kfold", predictions, or None for no more than the method made.
        logits: (n, C) of the model on its training rows.
    """
    held_out = fitted.artefacts.get("held_out")
    if held_out is None and source is not None:
        held_out = session.held_out(source)
    twins = twins_among(session.artefacts, held_out)
    if held_out is None and twins is not None:
        held_out = twins.held_out()
    if held_out is None:
        return None
    found, y = held_out.logits.numpy(), session.y.numpy()
    if twins is None:
        groups, names, rate = found.argmax(1) != y, ("held-out right", "held-out wrong"), None
    else:
        groups, names = twins.mistakes[twins.best].numpy(), ("both twins right", "a twin wrong")
        rate = float(twins.flip_rate[twins.best])
    rows = np.arange(len(y))
    memorization = softmax(logits)[rows, y] - softmax(found)[rows, y]
    return HeldOutFindings(found, groups.astype(np.int64), names, memorization.astype(np.float32), rate)


def softmax(logits: Float[np.ndarray, "n C"]) -> Float[np.ndarray, "n C"]:
    """Probabilities in 64 bits."""
    return torch.from_numpy(logits).double().softmax(-1).numpy()
