"""Held-out logits carry the proof that they are held out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrote.errors import DataError
from unrote.heldout import HeldOut


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 2**32))
def test_a_row_from_a_model_that_trained_on_it_is_refused(n: int, models: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    trained_on = torch.rand(models, n, generator=random) < 0.3
    predicted_by = torch.randint(models, (n,), generator=random)
    wrong = [i for i in range(n) if bool(trained_on[int(predicted_by[i]), i])]
    if wrong:
        with pytest.raises(DataError, match=f"{len(wrong)} held-out rows .*first row {wrong[0]}:"):
            HeldOut(torch.zeros(n, 2), trained_on, predicted_by)
    else:
        assert HeldOut(torch.zeros(n, 2), trained_on, predicted_by).predicted_by is predicted_by


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused_with_their_row(value: float) -> None:
    logits = torch.zeros(5, 2)
    logits[3, 1] = logits[4, 0] = value
    with pytest.raises(DataError, match="first in row 3"):
        HeldOut(logits)
