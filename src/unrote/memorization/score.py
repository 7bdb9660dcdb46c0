"""What every score of memorization gives back: a number per example, its error where there is one, its cost."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from unrote.errors import DataError


@dataclass(frozen=True)
class Cost:
    """What a score took.

    Args:
        seconds: of wall time.
        passes: passes over the examples, forward ones counted 1 and backward ones 2; 0 for closed forms.
        models: models that were trained for it.
        flops: floating-point operations of the closed form; None where they were not counted.
    """

    seconds: float
    passes: float = 0.0
    models: int = 0
    flops: float | None = None


@dataclass(frozen=True)
class Score:
    """A score of memorization; behaves as the array of its values wherever numpy is asked.

    Args:
        name: of the score.
        values: (n,) larger means learned by rote, unless the score says otherwise.
        cost: what it took.
        errors: (n,) standard errors, where the estimator has them.
        notes: what was settled without being asked: a damping, a fallback.
        details: what was made on the way, by name.

    Raises:
        DataError: if a value is not a finite number.
    """

    name: str
    values: Float[np.ndarray, " n"]
    cost: Cost
    errors: Float[np.ndarray, " n"] | None = None
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        bad = ~np.isfinite(self.values)
        if bad.any():
            raise DataError(
                f"{self.name}: {int(bad.sum())} of {len(bad)} values are NaN or infinite, first of example "
                f"{int(bad.argmax())}: look for such values in the model's parameters and in its inputs"
            )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=True if copy is None else copy)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def top(self, k: int = 10) -> np.ndarray:
        """Indices of the k largest values, the largest first."""
        return np.argsort(-self.values, kind="stable")[:k]


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self._start
