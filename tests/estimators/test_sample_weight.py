"""Sample weights: of the final model's loss, of the models behind held-out predictions, of the calibration."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from unrote import ERMClassifier, MATClassifier, Supervision, UnroteClassifier, logit_shift
from unrote.data import Split, Task
from unrote.errors import CheckpointError, OptionError
from unrote.methods import METHODS, Session
from unrote.models import StackedLinear
from unrote.shift import confusion
from unrote.training import Objective, Recipe

X, Y = load_iris(return_X_y=True)
RNG = np.random.default_rng(0)
QUICK: dict[str, Any] = {"epochs": 20, "learning_rate": 0.05, "random_state": 0}
FULL: dict[str, Any] = {**QUICK, "batch_size": None}


class TestEquivalence:
    def test_weights_are_repetitions(self) -> None:
        """Of ERM on all rows at once, where nothing is drawn by row: what scikit-learn checks, to 32 bits."""
        weight = RNG.integers(0, 4, len(Y))
        weighted = ERMClassifier(**FULL).fit(X, Y, sample_weight=weight)
        repeated = ERMClassifier(**FULL).fit(X.repeat(weight, axis=0), Y.repeat(weight))
        np.testing.assert_allclose(weighted.feature_mean_, repeated.feature_mean_)
        np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-4)

    def test_only_ratios_matter(self) -> None:
        weight = RNG.uniform(0.5, 2.0, len(Y))
        one = MATClassifier(**QUICK).fit(X, Y, sample_weight=weight)
        other = MATClassifier(**QUICK).fit(X, Y, sample_weight=8 * weight)
        np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-3)

    @pytest.mark.parametrize("kind", [ERMClassifier, MATClassifier, UnroteClassifier])
    def test_ones_are_no_weights(self, kind: Any) -> None:
        one = kind(**QUICK).fit(X, Y, sample_weight=np.ones(len(Y)))
        np.testing.assert_allclose(one.predict_proba(X), kind(**QUICK).fit(X, Y).predict_proba(X), atol=1e-3)

    @pytest.mark.parametrize("held_out", ["xrm", "kfold"])
    def test_rows_of_weight_0_teach_nothing(self, held_out: str) -> None:
        """Neither the model nor the held-out models nor the scaling: their features may be anything."""
        weight = (RNG.random(len(Y)) < 0.7).astype(float)
        strange = np.where(weight[:, None] > 0, X, RNG.normal(1e3, 1e3, X.shape))
        one = MATClassifier(held_out=held_out, **QUICK).fit(X, Y, sample_weight=weight)
        other = MATClassifier(held_out=held_out, **QUICK).fit(strange, Y, sample_weight=weight)
        np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
        kept = weight > 0
        np.testing.assert_allclose(one.held_out_logits_[kept], other.held_out_logits_[kept], rtol=1e-5)
        np.testing.assert_allclose(one.shift_[kept], other.shift_[kept], rtol=1e-5, atol=1e-6)
        assert np.isfinite(other.memorization_).all()


class TestMeaning:
    @pytest.mark.parametrize("kind", [ERMClassifier, MATClassifier])
    def test_what_weighs_more_is_learned_better(self, kind: Any) -> None:
        """Two classes at the same place: the heavier one wins."""
        x, y = RNG.normal(size=(400, 2)), np.arange(400) % 2
        for heavy in (0, 1):
            weight = np.where(y == heavy, 20.0, 1.0)
            p = ERMClassifier(**QUICK).fit(x, y, sample_weight=weight).predict_proba(x)
            np.testing.assert_allclose(p[:, heavy].mean(), 20 / 21, atol=0.05)

    def test_confusion_counts_by_weight(self) -> None:
        q, weight = RNG.dirichlet(np.ones(3), len(Y)), RNG.uniform(0, 3, len(Y))
        wanted = np.zeros((3, 3))
        for i, label in enumerate(Y):
            wanted[:, label] += weight[i] * q[i]
        wanted /= wanted.sum(1, keepdims=True)
        found = confusion(torch.from_numpy(q), torch.from_numpy(Y), torch.from_numpy(weight))
        np.testing.assert_allclose(found, wanted)

    def test_shift_of_repeated_rows(self) -> None:
        h, weight = torch.from_numpy(RNG.normal(size=(150, 3))), RNG.integers(1, 4, 150)
        y, times = torch.from_numpy(Y), torch.from_numpy(weight)
        wanted = logit_shift(h.repeat_interleave(times, 0), y.repeat_interleave(times), 0.5)
        found = logit_shift(h, y, 0.5, weight=times.double())
        np.testing.assert_allclose(found.repeat_interleave(times, 0), wanted)

    def test_supervision_multiplies_weights(self) -> None:
        y, weight = torch.tensor([0, 1]), torch.tensor([2.0, 3.0])
        once = Supervision(y).weighted(weight)
        assert once.weight is weight
        twice = once.weighted(torch.tensor([1.0, 0.5])).weight
        assert twice is not None
        assert twice.tolist() == [2.0, 1.5]


@pytest.mark.usefixtures("shapes_unchecked")
class TestErrors:
    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            (np.zeros(150), "zero"),
            (-np.ones(150), "[Nn]egative"),
            (np.ones(149), "shape"),
            (np.full(150, np.nan), "NaN"),
            ((Y == 1).astype(float), "one class among the rows with a sample weight above 0"),
        ],
        ids=["zeros", "negative", "short", "nan", "one class"],
    )
    def test_weights_that_are_none(self, weight: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            MATClassifier(**QUICK).fit(X, Y, sample_weight=weight)

    def test_objectives_that_cannot_weigh_refuse(self) -> None:
        class Own(Objective):
            pass

        session = Session(
            Task("t", train=Split(X, Y)),
            lambda seeds: StackedLinear(4, 3, seeds),
            Recipe(epochs=1),
            sample_weight=torch.ones(150),
        )
        with pytest.raises(OptionError, match="Own takes no sample weights"):
            session.train(Own())


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path) -> None:
    def session(weight: torch.Tensor | None) -> Session:
        return Session(
            Task("t", train=Split(X, Y)),
            lambda seeds: StackedLinear(4, 3, seeds),
            Recipe(epochs=1),
            sample_weight=weight,
            checkpoint_folder=tmp_path,
        )

    METHODS["erm"]().fit(session(torch.ones(150)))
    METHODS["erm"]().fit(session(torch.ones(150)))
    for other in (2 * torch.ones(150), None):
        with pytest.raises(CheckpointError, match="sample_weight"):
            METHODS["erm"]().fit(session(other))
