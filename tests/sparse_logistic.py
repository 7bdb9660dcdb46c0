"""scikit-learn's L1-penalised logistic regression of two classes, for tests that compare with it."""

import inspect
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

_RENAMED = inspect.signature(LogisticRegression).parameters.get("penalty")
_L1: dict[str, Any] = (
    {"penalty": "l1"} if _RENAMED is not None and _RENAMED.default == "l2" else {"l1_ratio": 1.0}
)


def l1_logistic(x: np.ndarray, y: np.ndarray, C: float, seed: int = 0) -> LogisticRegression:
    """Fitted by liblinear, whose coordinates come in an order of the seed."""
    return LogisticRegression(C=C, solver="liblinear", max_iter=1000, random_state=seed, **_L1).fit(x, y)
