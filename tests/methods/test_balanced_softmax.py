"""Balanced softmax's loss against its definition, and its effect on classes of different size."""

import numpy as np
import torch
from imbalance import assert_balances_classes, session_of

from unrote.data import Split, Task
from unrote.methods import METHODS, SupervisionMethod
from unrote.supervision import Supervision


def supervision_of(y: list[int], n_classes: int = 3) -> Supervision:
    names = tuple(map(str, range(n_classes)))
    method = METHODS["balanced_softmax"]()
    assert isinstance(method, SupervisionMethod)
    return method.supervision(
        session_of(Task("t", train=Split(torch.zeros(len(y), 2), y), class_names=names))
    )


def test_is_the_cross_entropy_of_a_softmax_weighted_by_class_sizes() -> None:
    y, size = [0, 0, 0, 0, 1, 1, 2], np.array([4, 2, 1])
    logits = np.random.default_rng(0).normal(size=(7, 3))
    p = size * np.exp(logits) / (size * np.exp(logits)).sum(1, keepdims=True)
    wanted = -np.log(p[np.arange(7), y]).mean()
    found = supervision_of(y).batch(torch.arange(7)).loss(torch.from_numpy(logits).unsqueeze(0))
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)


def test_a_class_that_nobody_has_is_harmless() -> None:
    shift = supervision_of([0, 0, 1], 4).shift
    assert shift is not None
    assert bool(shift.isfinite().all())


def test_balances_classes() -> None:
    assert_balances_classes("balanced_softmax")
