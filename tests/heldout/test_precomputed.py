"""Held-out predictions from elsewhere: logits stay, probabilities become logits, nonsense is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unrote.errors import DataError
from unrote.heldout import precomputed

SHAPE = (4, 3)
LOGITS = arrays(np.float64, SHAPE, elements=st.floats(-50, 50, width=32))


@given(LOGITS)
def test_logits_stay_as_they_are(logits: np.ndarray) -> None:
    logits[0] = [-1.0, 0.5, 2.0]  # a row that is no distribution
    np.testing.assert_array_equal(precomputed(logits, *SHAPE).logits, logits.astype(np.float32))


@given(LOGITS)
def test_probabilities_become_logits_that_give_them_back(logits: np.ndarray) -> None:
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = precomputed(p, *SHAPE).logits.double().softmax(-1)
    np.testing.assert_allclose(found, p, rtol=1e-5, atol=1e-11)


@given(LOGITS)
def test_log_probabilities_are_logits(logits: np.ndarray) -> None:
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    found = precomputed(log_p, *SHAPE).logits.double().softmax(-1)
    np.testing.assert_allclose(found, np.exp(log_p), rtol=1e-4, atol=1e-11)


def test_certain_predictions_stay_finite() -> None:
    logits = precomputed(np.eye(3), 3, 3).logits
    assert bool(torch.isfinite(logits).all())
    np.testing.assert_allclose(logits.softmax(-1), np.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [torch.tensor, np.array, list, lambda rows: torch.tensor(rows, requires_grad=True)],
    ids=["tensor", "array", "list", "tensor with gradient"],
)
def test_whatever_holds_them(make: Any) -> None:
    rows = [[-1.0, 2.0], [0.5, 0.25]]
    found = precomputed(make(rows), 2, 2)
    assert found.logits.tolist() == rows
    assert not found.logits.requires_grad
    assert found.trained_on is None


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (np.zeros((5, 3)), r"shape \(5, 3\): \(4, 3\) is wanted"),
        (np.zeros((4, 2)), r"shape \(4, 2\): \(4, 3\) is wanted"),
        (np.zeros(4), r"shape \(4,\): \(4, 3\) is wanted"),
        (np.array([[0.0, 1, math.nan]] * 4), "NaN or infinity, first in row 0"),
        (np.array([[0.0, 1, 2]] * 3 + [[0, 1, math.inf]]), "NaN or infinity, first in row 3"),
        (np.full((4, 3), 1e300), "NaN or infinity"),
        ([["a", "b", "c"]] * 4, "numbers"),
        ([[1.0], [1.0, 2.0]], "numbers"),
    ],
    ids=["rows", "columns", "vector", "NaN", "infinity", "beyond float32", "text", "ragged"],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_refuses(predictions: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        precomputed(predictions, *SHAPE)
