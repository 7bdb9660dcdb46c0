"""The penalty by the closed form's held-out loss, against retraining without each example."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from toys import clusters

from unrote.errors import OptionError
from unrote.memorization import Score, detection_auc, leave_one_out, self_influence
from unrote.memorization.fitting import fit_softmax
from unrote.memorization.penalty import best_penalty, scaled_penalties

TRIED = (1.0, 0.1, 0.01)


def retrained_loss(x: np.ndarray, y: np.ndarray, penalty: float) -> float:
    losses = []
    for i in range(len(y)):
        kept = np.arange(len(y)) != i
        head = fit_softmax(x[kept], y[kept], 3, penalty=penalty * len(y) / (len(y) - 1))
        z = x[i] @ head.weight.T + head.bias
        losses.append(np.log(np.exp(z - z[y[i]]).sum()))
    return float(np.mean(losses))


def test_is_the_one_that_retraining_would_choose() -> None:
    x, y = (values.numpy() for values in clusters(60, 3, 8, distance=0.7))
    x = x.astype(np.float64)
    retrained = [retrained_loss(x, y, penalty) for penalty in TRIED]
    found = best_penalty(x, y, 3, TRIED)
    assert found.penalty == TRIED[int(np.argmin(retrained))]
    assert found.loss == pytest.approx(min(retrained), abs=0.01)


def test_does_not_depend_on_units_of_features_that_are_alike() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_allclose(scaled_penalties(10 * x), 100 * np.array(scaled_penalties(x)))
    assert min(scaled_penalties(np.ones((5, 2)))) > 0


@pytest.mark.parametrize("score", [leave_one_out, self_influence])
def test_auto_is_the_head_fitted_with_it(score: Callable[..., Score]) -> None:
    x, y = (values.numpy() for values in clusters(80, 2, 6, distance=0.5))
    weight = np.linspace(0.5, 1.5, 80)
    chosen = best_penalty(x, y, 2, scaled_penalties(x), weight)
    model = LogisticRegression(C=1e3).fit(x, y)
    found = score(model, x, y, damping="auto", weight=weight)
    wanted = score(chosen.head, None, None, damping=chosen.penalty, weight=weight)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert f"penalty {chosen.penalty:.3g}" in found.notes[-1]


def test_finds_wrong_labels_that_a_loose_head_learned() -> None:
    x, y = (values.numpy() for values in clusters(300, 2, 60, distance=0.25))
    wrong = np.arange(300) < 30
    noisy = np.where(wrong, 1 - y, y)
    model = LogisticRegression(C=1e4).fit(x, noisy)
    as_trained, chosen = (
        detection_auc(self_influence(model, x, noisy, damping=d), wrong) for d in (None, "auto")
    )
    assert chosen > as_trained + 0.03


def test_other_words_are_refused(shapes_unchecked: None) -> None:
    x, y = (values.numpy() for values in clusters(20, 2, 3))
    with pytest.raises(OptionError, match="'auto' or None"):
        leave_one_out(LogisticRegression().fit(x, y), x, y, damping="best")
