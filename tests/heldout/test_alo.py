"""Closed-form held-out logits, against training without each example."""

import numpy as np
import pytest
import torch
from toys import clusters, planted_task

from unrote.api import fit
from unrote.errors import DataError, OptionError
from unrote.heldout import alo
from unrote.memorization.fitting import fit_softmax


@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_are_those_of_heads_that_never_saw_them(n_classes: int) -> None:
    x, y = clusters(50, n_classes, 4)
    found = alo(x, y, n_classes, penalty=0.1).logits.log_softmax(1)
    features = x.double().numpy() - x.double().numpy().mean(0)
    features /= np.sqrt((features**2).mean())
    for i in range(0, 50, 7):
        kept = np.arange(50) != i
        head = fit_softmax(features[kept], y.numpy()[kept], n_classes, penalty=0.1 * 50 / 49)
        wanted = torch.from_numpy(features[i] @ head.weight.T + head.bias).log_softmax(0)
        np.testing.assert_allclose(found[i], wanted, atol=0.03)


def test_labels_at_random_are_not_fitted() -> None:
    """Held-in predictions of 40 examples in 60 dimensions would be right about all."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 60, generator=random), torch.arange(40) % 2
    right = (alo(x, y, 2).logits.argmax(1) == y).float().mean()
    assert right < 0.7


def test_weight_zero_is_not_trained_on() -> None:
    x, y = clusters(40, 2, 3)
    flipped = y.clone()
    flipped[:5] = 1 - flipped[:5]
    weight = torch.ones(40)
    weight[:5] = 0
    one, other = (alo(x, labels, 2, penalty=0.1, weight=weight).logits for labels in (y, flipped))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_feeds_mat() -> None:
    fitted = fit(planted_task(), "mat", held_out="alo", model="linear")
    assert fitted.artefacts["held_out"].logits.shape == (64, 2)
    assert "xrm" not in fitted.artefacts


def test_examples_that_are_no_arrays() -> None:
    with pytest.raises(DataError, match="arrays of at most"):
        alo(torch.zeros(3, 30_000), torch.tensor([0, 1, 0]), 2)
    with pytest.raises(OptionError, match="above 0"):
        alo(torch.zeros(3, 3), torch.tensor([0, 1, 0]), 2, penalty=0.0)
