"""Held-out predictions: where they come from, and the attributes that follow from them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

from unrote import ERMClassifier, MATClassifier, UnroteClassifier, logit_shift

X, Y = load_wine(return_X_y=True)
QUICK: dict[str, Any] = {"epochs": 40, "learning_rate": 0.02, "random_state": 0}


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(float) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def probabilities() -> np.ndarray:
    forest = RandomForestClassifier(20, random_state=0)
    return cross_val_predict(forest, X, Y, method="predict_proba")


class TestOfOnesOwn:
    def test_probabilities_of_cross_val_predict(self, probabilities: np.ndarray) -> None:
        classifier = MATClassifier(held_out=probabilities, temperature=0.7, **QUICK).fit(X, Y)
        np.testing.assert_allclose(softmax(classifier.held_out_logits_), probabilities, atol=1e-6)
        logits = torch.from_numpy(np.log(np.maximum(probabilities, 1e-12)))
        np.testing.assert_allclose(
            classifier.shift_, logit_shift(logits, torch.from_numpy(Y), 0.7), atol=1e-4
        )
        np.testing.assert_array_equal(classifier.inferred_groups_, probabilities.argmax(1) != Y)
        assert classifier.flip_rate_ is None
        assert classifier.score(X, Y) > 0.9

    @pytest.mark.parametrize(
        "wrap", [torch.from_numpy, pd.DataFrame, lambda p: p.tolist(), lambda p: np.log(p + 1e-12)]
    )
    def test_held_by_anything(self, probabilities: np.ndarray, wrap: Any) -> None:
        wanted = MATClassifier(held_out=probabilities, **QUICK).fit(X, Y).predict_proba(X)
        found = MATClassifier(held_out=wrap(probabilities), **QUICK).fit(X, Y).predict_proba(X)
        np.testing.assert_allclose(found, wanted, atol=1e-4)

    def test_as_an_argument_of_fit(self, probabilities: np.ndarray) -> None:
        wanted = MATClassifier(held_out=probabilities, **QUICK).fit(X, Y).predict_proba(X)
        found = MATClassifier(**QUICK).fit(X, Y, held_out=probabilities).predict_proba(X)
        np.testing.assert_array_equal(found, wanted)

    def test_certain_ones_are_no_infinity(self) -> None:
        classifier = MATClassifier(held_out=np.eye(3)[Y], **QUICK).fit(X, Y)
        assert np.isfinite(classifier.held_out_logits_).all()
        assert np.isfinite(classifier.predict_proba(X)).all()

    def test_of_another_classifier_of_ours(self) -> None:
        h = cross_val_predict(ERMClassifier(**QUICK), X, Y, method="predict_proba")
        assert MATClassifier(held_out=h, **QUICK).fit(X, Y).score(X, Y) > 0.9


class TestTwins:
    def test_attributes(self) -> None:
        classifier = MATClassifier(temperature=1.0, **QUICK).fit(X, Y)
        n, n_classes = len(Y), 3
        assert classifier.automatic_ is None
        assert classifier.held_out_logits_.shape == classifier.shift_.shape == (n, n_classes)
        assert set(np.unique(classifier.inferred_groups_)) <= {0, 1}
        assert 0 <= classifier.flip_rate_ < 0.5
        # a twin that is wrong about a row that it did not train on makes a mistake of the pair
        wrong = classifier.held_out_logits_.argmax(1) != Y
        assert (classifier.inferred_groups_[wrong] == 1).all()
        # rows of the shift are log-probabilities
        np.testing.assert_allclose(np.exp(classifier.shift_).sum(1), 1, atol=1e-4)

    def test_without_a_shortcut_it_is_plain_training(self) -> None:
        classifier, plain = MATClassifier(**QUICK).fit(X, Y), ERMClassifier(**QUICK).fit(X, Y)
        assert classifier.automatic_.strength == 0
        assert not classifier.shift_.any()
        assert classifier.held_out_logits_.shape == (len(Y), 3)
        np.testing.assert_array_equal(classifier.predict_proba(X), plain.predict_proba(X))

    def test_a_planted_exception_is_found(self) -> None:
        x = np.c_[np.where(np.arange(200) % 2, 1.0, -1.0), np.random.default_rng(0).normal(size=(200, 3))]
        y = np.arange(200) % 2
        y[:10] = 1 - y[:10]
        classifier = MATClassifier(**QUICK).fit(x, y)
        assert (classifier.inferred_groups_[:10] == 1).all()
        assert classifier.inferred_groups_[10:].mean() < 0.1


class TestMemorization:
    @pytest.mark.parametrize("held_out", ["xrm", "kfold"])
    @pytest.mark.parametrize("kind", [ERMClassifier, MATClassifier, UnroteClassifier])
    def test_definition(self, kind: Any, held_out: str) -> None:
        classifier = kind(held_out=held_out, **QUICK).fit(X, Y)
        rows = np.arange(len(Y))
        wanted = classifier.predict_proba(X)[rows, Y] - softmax(classifier.held_out_logits_)[rows, Y]
        np.testing.assert_allclose(classifier.memorization_, wanted, atol=1e-5)
        assert classifier.memorization_.min() >= -1
        assert classifier.memorization_.max() <= 1

    def test_noise_is_memorized(self) -> None:
        """Random labels can only be learned by rote: a perceptron does, and its folds cannot guess them."""
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(100, 60)), rng.integers(0, 2, 100)
        classifier = ERMClassifier(held_out="kfold", weight_decay=0.0, random_state=0).fit(x, y)
        assert classifier.score(x, y) == 1.0
        assert classifier.memorization_.mean() > 0.3
        held_out_accuracy = (classifier.held_out_logits_.argmax(1) == y).mean()
        assert classifier.report().rote_share == pytest.approx(1 - held_out_accuracy)

    def test_without_held_out_predictions_there_is_none(self) -> None:
        classifier = ERMClassifier(**QUICK).fit(X, Y)
        for name in ("held_out_logits_", "shift_", "inferred_groups_", "flip_rate_", "memorization_"):
            assert getattr(classifier, name) is None

    @pytest.mark.parametrize("held_out", ["xrm", "kfold"])
    def test_looking_changes_nothing(self, held_out: str) -> None:
        np.testing.assert_array_equal(
            ERMClassifier(**QUICK).fit(X, Y).predict_proba(X),
            ERMClassifier(held_out=held_out, **QUICK).fit(X, Y).predict_proba(X),
        )
