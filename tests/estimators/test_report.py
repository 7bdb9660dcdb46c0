"""report(): what it says of the training data and of new data, in figures, in print and for JSON."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import load_wine

from unrote import ERMClassifier, MATClassifier, UnroteError
from unrote.estimators import EvaluationReport, TrainingReport

X, Y = load_wine(return_X_y=True)
NAMES = np.array(["barolo", "grignolino", "barbera"])[Y]
GROUPS = np.where(X[:, 0] > np.median(X[:, 0]), "strong", "weak")
QUICK: dict[str, Any] = {"epochs": 20, "learning_rate": 0.03, "random_state": 0}


@pytest.fixture(scope="module")
def classifier() -> MATClassifier:
    return MATClassifier(**QUICK).fit(X, NAMES)


class TestOnTrainingData:
    def test_figures(self, classifier: MATClassifier) -> None:
        report = classifier.report(n_memorized=3)
        assert isinstance(report, TrainingReport)
        right = classifier.predict(X) == NAMES
        assert (report.n, report.accuracy) == (178, right.mean())
        assert {one.name: one.accuracy for one in report.classes} == {
            name: right[name == NAMES].mean() for name in np.unique(NAMES)
        }
        for group, one in enumerate(report.inferred_groups):
            members = classifier.inferred_groups_ == group
            assert one.n == members.sum()
            assert one.accuracy == right[members].mean()
        held_out = classifier.classes_[classifier.held_out_logits_.argmax(1)]
        assert report.rote_share == pytest.approx((right & (held_out != NAMES)).mean())
        assert report.flip_rate == classifier.flip_rate_

    def test_most_memorized(self, classifier: MATClassifier) -> None:
        rows = classifier.report(n_memorized=5).most_memorized
        order = np.argsort(-classifier.memorization_, kind="stable")[:5]
        assert [one.row for one in rows] == order.tolist()
        assert [one.label for one in rows] == NAMES[order].tolist()
        np.testing.assert_allclose([one.memorization for one in rows], classifier.memorization_[order])
        assert classifier.report(n_memorized=0).most_memorized == ()
        assert len(classifier.report(n_memorized=1000).most_memorized) == 178

    def test_print(self, classifier: MATClassifier) -> None:
        text = str(classifier.report(n_memorized=2))
        for words in ("MATClassifier on its 178 training rows", "barolo", "a twin wrong", "flip rate"):
            assert words in text
        assert str(classifier.report(n_memorized=2)) == repr(classifier.report(n_memorized=2))
        lines = text.splitlines()
        table = lines[lines.index("most memorized") + 1 :]
        assert len(table) == 3
        assert all(len(line) < 100 for line in lines)

    def test_without_held_out_predictions(self) -> None:
        report = ERMClassifier(**QUICK).fit(X, NAMES).report()
        assert report.rote_share is None
        assert report.inferred_groups == ()
        assert "no held-out predictions" in str(report)

    def test_json(self, classifier: MATClassifier) -> None:
        record = classifier.report().to_dict()
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        assert len(record["most_memorized"]) == 10
        assert record["classes"][0]["name"] == "barbera"


class TestOnNewData:
    def test_figures_by_true_group(self, classifier: MATClassifier) -> None:
        rows = np.random.default_rng(0).permutation(178)[:120]
        report = classifier.report(X[rows], NAMES[rows], groups=GROUPS[rows], level=0.9)
        assert isinstance(report, EvaluationReport)
        right = classifier.predict(X[rows]) == NAMES[rows]
        worst = 1.0
        for one in report.figures.groups:
            name, attribute = one.name.split(", ")
            members = (NAMES[rows] == name) & (GROUPS[rows] == attribute)
            assert one.n == members.sum()
            if one.n:
                assert one.accuracy == right[members].mean()
                interval = binomtest(int(right[members].sum()), one.n).proportion_ci(0.9, method="exact")
                assert one.interval == pytest.approx((interval.low, interval.high))
                worst = min(worst, one.accuracy)
        assert report.figures.worst_group.accuracy == worst
        assert report.figures.average == right.mean()

    def test_print(self, classifier: MATClassifier) -> None:
        text = str(classifier.report(X, NAMES, groups=GROUPS))
        for words in ("178 rows", "barolo, strong", "95% interval", "worst group"):
            assert words in text

    def test_by_class_alone(self, classifier: MATClassifier) -> None:
        report = classifier.report(X, NAMES)
        assert [one.name for one in report.figures.class_accuracy] == ["barbera", "barolo", "grignolino"]
        assert "worst group" not in str(report)

    def test_a_class_without_rows(self, classifier: MATClassifier) -> None:
        rows = NAMES != "barolo"
        report = classifier.report(X[rows], NAMES[rows], groups=GROUPS[rows])
        assert [one.n for one in report.figures.class_accuracy if one.name == "barolo"] == [0]
        record = report.to_dict()
        assert json.loads(json.dumps(record, allow_nan=False)) == record

    @pytest.mark.usefixtures("shapes_unchecked")
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((X, np.where(NAMES == "barolo", "chianti", NAMES)), "'chianti' in row 0"),
            ((X, NAMES[:-1]), "177 entries, X has 178"),
            ((X[:, :5], NAMES), "5 features"),
            ((X, None), "y"),
        ],
    )
    def test_errors(self, classifier: MATClassifier, arguments: Any, message: str) -> None:
        with pytest.raises(UnroteError, match=message):
            classifier.report(*arguments)

    @pytest.mark.usefixtures("shapes_unchecked")
    def test_options_out_of_range(self, classifier: MATClassifier) -> None:
        with pytest.raises(UnroteError, match="n_memorized"):
            classifier.report(n_memorized=-1)
        with pytest.raises(UnroteError, match="level"):
            classifier.report(X, NAMES, level=95.0)
