"""Class-wise scaling against a search over all thresholds, and its effect on classes of different size."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from imbalance import assert_balances_classes, imbalanced_task, session_of
from torch import Tensor

from unrote.data import Task
from unrote.errors import OptionError
from unrote.methods import METHODS
from unrote.methods.class_scaling import best_offsets


def score(logits: Tensor, y: Tensor) -> tuple[float, float]:
    """Lowest and mean accuracy over the classes that have examples."""
    right = logits.argmax(1) == y
    by_class = [float(right[y == c].double().mean()) for c in y.unique()]
    return min(by_class), sum(by_class) / len(by_class)


def draw(n: int, n_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    y = torch.from_numpy(random.integers(n_classes, size=n))
    logits = torch.from_numpy(random.normal(size=(n, n_classes)))
    logits[:, 0] += 1.0
    return logits + torch.nn.functional.one_hot(y, n_classes), y


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_is_the_best_threshold_of_two_classes(n: int, seed: int) -> None:
    logits, y = draw(n, 2, seed)
    found = score(logits + best_offsets(logits, y), y)
    lead = (logits[:, 1] - logits[:, 0]).sort().values
    thresholds = [lead[0] - 1, *((lead[1:] + lead[:-1]) / 2), lead[-1] + 1]
    assert found == pytest.approx(max(score(logits + torch.tensor([t, 0.0]), y) for t in thresholds))


@settings(max_examples=20)
@given(st.integers(3, 40), st.integers(0, 10**6))
def test_no_change_of_one_class_improves_on_it(n: int, seed: int) -> None:
    logits, y = draw(n, 4, seed)
    offset = best_offsets(logits, y)
    found = score(logits + offset, y)
    assert found >= score(logits, y)
    for c, change in itertools.product(y.unique().tolist(), np.linspace(-4, 4, 25)):
        other = offset.clone()
        other[c] += change
        assert score(logits + other, y) <= (found[0] + 1e-12, found[1] + 1e-12)


def test_nothing_is_changed_where_nothing_improves() -> None:
    logits = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert best_offsets(logits, torch.tensor([0, 1])).tolist() == [0.0, 0.0]


def test_examples_that_are_all_the_same_and_classes_without_any() -> None:
    logits = torch.tensor([[1.0, 0.0, 5.0]]).expand(4, 3)
    assert best_offsets(logits, torch.tensor([0, 1, 0, 1]))[2] == 0.0
    assert bool(best_offsets(logits, torch.tensor([0, 0, 0, 0])).isfinite().all())


def test_says_so_before_training_where_there_is_no_validation_split() -> None:
    session = session_of(Task("t", train=imbalanced_task().train))
    with pytest.raises(OptionError, match="no validation split"):
        METHODS["class_scaling"]().fit(session)


def test_the_scale_is_in_the_bias_and_erms_weights_stay() -> None:
    session = session_of(imbalanced_task())
    fitted, erm = METHODS["class_scaling"]().fit(session), METHODS["erm"]().fit(session)
    assert torch.equal(fitted.stack.head()[0], erm.stack.head()[0])
    offset = fitted.stack.head()[1] - erm.stack.head()[1]
    torch.testing.assert_close(offset, fitted.artefacts["log_scale"].float(), atol=1e-6, rtol=1e-5)


def test_balances_classes() -> None:
    assert_balances_classes("class_scaling")
