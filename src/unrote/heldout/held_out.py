"""Held-out logits: what a model says of examples it never trained on, with the proof that it did not."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.errors import DataError

Source = Literal["xrm", "trunk", "kfold", "alo", "given"]
"""What made held-out logits: a file of this folder, or somebody else."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out logits of all n training examples.

    Args:
        logits: (n, C); row i comes from a model that did not train on example i.
        trained_on: (M, n) which of M models trained on which example; None where the logits came from outside.
        predicted_by: (n,) the model that row i of `logits` comes from; None where they came from outside.
        source: what made them.

    Raises:
        DataError: if some row comes from a model that trained on it, or is not finite.
    """

    logits: Float[Tensor, "n C"]
    trained_on: Bool[Tensor, "M n"] | None = None
    predicted_by: Int[Tensor, " n"] | None = None
    source: Source = "given"

    def __post_init__(self) -> None:
        if not bool(torch.isfinite(self.logits).all()):
            row = int((~torch.isfinite(self.logits)).any(1).nonzero()[0])
            raise DataError(
                f"held-out logits have NaN or infinity, first in row {row}: the model that made them diverged; "
                "lower its learning rate, or pass log-probabilities with a floor"
            )
        if self.trained_on is not None and self.predicted_by is not None:
            seen = self.trained_on[self.predicted_by, torch.arange(len(self.logits))]
            if bool(seen.any()):
                raise DataError(
                    f"{int(seen.sum())} held-out rows come from a model that trained on them, first row "
                    f"{int(seen.nonzero()[0])}: predict each example with a model that never saw it"
                )
