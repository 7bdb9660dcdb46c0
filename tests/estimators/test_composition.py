"""With the rest of scikit-learn: pipelines, searches, clone, pickle, metadata routing of groups."""

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from unrote import ERMClassifier, MATClassifier, UnroteClassifier, UnroteError
from unrote.errors import HiddenGroupsError
from unrote.estimators.base import BaseClassifier
from unrote.methods import METHODS, Session

X, Y = load_wine(return_X_y=True)
QUICK: dict[str, Any] = {"epochs": 20, "learning_rate": 0.03, "random_state": 0}
GROUPS = np.where(X[:, 0] > np.median(X[:, 0]), "strong", "weak")
VALIDATED = {"class_scaling"}  # learns from a validation split, without groups


@pytest.fixture
def routing() -> Iterator[None]:
    with sklearn.config_context(enable_metadata_routing=True):
        yield


class TestPipelines:
    def test_numbers_and_categories(self) -> None:
        frame = load_wine(as_frame=True).data
        frame["origin"] = np.array(["hill", "valley", "plain"])[np.arange(len(frame)) % 3]
        columns = make_column_transformer(
            (StandardScaler(), list(frame.columns[:-1])), (OneHotEncoder(), ["origin"])
        )
        pipeline = make_pipeline(columns, MATClassifier(**QUICK)).fit(frame, Y)
        assert pipeline.score(frame, Y) > 0.9
        np.testing.assert_array_equal(pipeline.classes_, [0, 1, 2])
        assert pipeline[-1].n_features_in_ == 16

    def test_named_columns(self) -> None:
        frame = load_wine(as_frame=True).data
        pipeline = make_pipeline(StandardScaler(), ERMClassifier(**QUICK)).set_output(transform="pandas")
        assert list(pipeline.fit(frame, Y)[-1].feature_names_in_) == list(frame.columns)

    def test_sparse_words(self) -> None:
        texts = [f"{'good' if i % 2 else 'bad'} film number {i}" for i in range(60)]
        pipeline = make_pipeline(TfidfVectorizer(), MATClassifier("linear", **QUICK))
        assert pipeline.fit(texts, np.arange(60) % 2).score(texts, np.arange(60) % 2) > 0.9

    def test_sample_weight_through_a_pipeline(self) -> None:
        weight = np.random.default_rng(0).uniform(size=len(Y))
        pipeline = make_pipeline(StandardScaler(), ERMClassifier(**QUICK))
        found = pipeline.fit(X, Y, ermclassifier__sample_weight=weight).predict_proba(X)
        scaled = StandardScaler().fit_transform(X)
        wanted = ERMClassifier(**QUICK).fit(scaled, Y, sample_weight=weight).predict_proba(scaled)
        np.testing.assert_array_equal(found, wanted)


class TestSearches:
    def test_grid_over_temperature(self) -> None:
        search = GridSearchCV(MATClassifier(**QUICK), {"temperature": [0.01, 1.0, 10.0]}, cv=3)
        search.fit(X, Y)
        assert search.best_score_ > 0.9
        assert set(search.best_params_) == {"temperature"}
        assert len(np.unique(search.cv_results_["mean_test_score"].round(6))) > 1

    def test_grid_over_module_and_method(self) -> None:
        grid = [
            {"method": ["jtt"], "method__upweight": [2.0, 10.0]},
            {"method": ["erm"], "module": ["linear", "mlp"]},
        ]
        search = GridSearchCV(UnroteClassifier(**QUICK), grid, cv=2).fit(X, Y)
        assert len(search.cv_results_["params"]) == 4
        assert not np.isnan(search.cv_results_["mean_test_score"]).any()

    def test_held_out_predictions_follow_the_folds(self) -> None:
        held_out = cross_val_predict(ERMClassifier(**QUICK), X, Y, method="predict_proba")
        search = GridSearchCV(MATClassifier(**QUICK), {"temperature": [0.1, 1.0]}, cv=3, error_score="raise")
        search.fit(X, Y, held_out=held_out)
        np.testing.assert_allclose(
            search.best_estimator_.predict_proba(X),
            MATClassifier(temperature=search.best_params_["temperature"], **QUICK)
            .fit(X, Y, held_out=held_out)
            .predict_proba(X),
        )

    def test_meta_estimators(self) -> None:
        assert CalibratedClassifierCV(MATClassifier(**QUICK), cv=2).fit(X, Y).score(X, Y) > 0.9
        assert OneVsRestClassifier(MATClassifier(**QUICK)).fit(X, Y).score(X, Y) > 0.9
        assert cross_val_score(MATClassifier(**QUICK), X, Y, scoring="roc_auc_ovr", cv=3).mean() > 0.9


class TestCopies:
    @pytest.mark.parametrize(
        "classifier",
        [ERMClassifier(held_out="kfold"), MATClassifier(), UnroteClassifier("rwg", infer_groups="xrm")],
        ids=repr,
    )
    def test_pickle(self, classifier: BaseClassifier) -> None:
        classifier.set_params(**QUICK).fit(X, Y)
        again = pickle.loads(pickle.dumps(classifier))  # noqa: S301
        np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))
        np.testing.assert_array_equal(again.memorization_, classifier.memorization_)
        assert repr(again.report()) == repr(classifier.report())
        assert again.get_params() == classifier.get_params()

    def test_clone_takes_parameters_alone(self) -> None:
        held_out = np.full((len(Y), 3), 1 / 3)
        classifier = MATClassifier("mlp", held_out=held_out, temperature=0.3, **QUICK).fit(X, Y)
        copied = clone(classifier)
        assert not hasattr(copied, "classes_")
        np.testing.assert_array_equal(copied.held_out, held_out)
        np.testing.assert_array_equal(copied.fit(X, Y).predict_proba(X), classifier.predict_proba(X))


class TestGroups:
    def test_a_method_that_needs_them_gets_them(self) -> None:
        classifier = UnroteClassifier("rwg", **QUICK).fit(X, Y, groups=GROUPS)
        group = 2 * Y + (GROUPS == "weak")
        size = np.bincount(group)
        weight = 1 / size[group]
        wanted = ERMClassifier(**QUICK).fit(X, Y, sample_weight=weight)
        # the same loss, but for standardisation, which only a sample weight enters
        plain = ERMClassifier(standardize=False, **QUICK)
        scaled = (X - X.mean(0)) / X.std(0)
        np.testing.assert_allclose(
            classifier.predict_proba(X),
            plain.fit(scaled, Y, sample_weight=weight).predict_proba(scaled),
            atol=1e-4,
        )
        assert not np.allclose(wanted.feature_mean_, classifier.feature_mean_)

    @pytest.mark.parametrize("wrap", [torch.tensor, pd.Series, list, lambda g: np.array(["no", "yes"])[g]])
    def test_labels_of_any_type(self, wrap: Any) -> None:
        codes = (GROUPS == "weak").astype(int)
        wanted = UnroteClassifier("rwg", **QUICK).fit(X, Y, groups=codes)
        found = UnroteClassifier("rwg", **QUICK).fit(X, Y, groups=wrap(codes))
        np.testing.assert_array_equal(found.predict_proba(X), wanted.predict_proba(X))

    @pytest.mark.parametrize("method", ["erm", "mat", "jtt"])
    def test_others_cannot_see_them(self, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        hidden = []

        def spy(session: Session, *args: Any, **options: Any) -> Any:
            with pytest.raises(HiddenGroupsError):
                session.training_groups()
            hidden.append(session.task.n_attributes)
            return train(session, *args, **options)

        train = Session.train
        monkeypatch.setattr(Session, "train", spy)
        found = UnroteClassifier(method, **QUICK).fit(X, Y, groups=GROUPS)
        assert hidden
        assert set(hidden) == {0}
        wanted = UnroteClassifier(method, **QUICK).fit(X, Y)
        np.testing.assert_array_equal(found.predict_proba(X), wanted.predict_proba(X))

    @pytest.mark.parametrize("method", METHODS.names())
    def test_every_method_fits_or_says_why_not(self, method: str) -> None:
        classifier = UnroteClassifier(method, "mlp", epochs=2, random_state=0)
        if METHODS[method].needs == "train":
            with pytest.raises(UnroteError, match="group"):
                classifier.fit(X, Y)
        if method in VALIDATED or METHODS[method].needs == "val":
            with pytest.raises(UnroteError, match="validation split"):
                classifier.fit(X, Y, groups=GROUPS)
            return
        classifier.fit(X, Y, groups=GROUPS)
        p = classifier.predict_proba(X)
        np.testing.assert_allclose(p.sum(1), 1.0)
        again = pickle.loads(pickle.dumps(classifier))  # noqa: S301
        np.testing.assert_array_equal(again.predict_proba(X), p)

    def test_inferred_ones_need_no_labels(self) -> None:
        classifier = UnroteClassifier("groupdro", infer_groups="xrm", **QUICK).fit(X, Y)
        assert classifier.flip_rate_ is not None
        other = UnroteClassifier("groupdro", infer_groups="xrm", **QUICK).fit(X, Y, groups=GROUPS)
        np.testing.assert_array_equal(other.predict_proba(X), classifier.predict_proba(X))

    @pytest.mark.usefixtures("routing")
    def test_are_routed(self) -> None:
        classifier = UnroteClassifier("rwg", **QUICK).set_fit_request(groups=True)
        pipeline = make_pipeline(StandardScaler(), classifier).fit(X, Y, groups=GROUPS)
        scaled = StandardScaler().fit_transform(X)
        wanted = UnroteClassifier("rwg", **QUICK).fit(scaled, Y, groups=GROUPS)
        np.testing.assert_array_equal(pipeline.predict_proba(X), wanted.predict_proba(scaled))
        search = GridSearchCV(pipeline, {"unroteclassifier__epochs": [2, 20]}, cv=2, error_score="raise")
        assert search.fit(X, Y, groups=GROUPS).best_score_ > 0.8
        scores = cross_validate(classifier, X, Y, cv=2, params={"groups": GROUPS}, error_score="raise")
        assert len(scores["test_score"]) == 2

    @pytest.mark.usefixtures("routing")
    def test_weights_and_held_out_predictions_are_routed(self) -> None:
        held_out, weight = np.full((len(Y), 3), 1 / 3), np.ones(len(Y))
        classifier = MATClassifier(**QUICK).set_fit_request(held_out=True, sample_weight=True)
        classifier.set_score_request(sample_weight=True)
        search = GridSearchCV(classifier, {"temperature": [0.1, 1.0]}, cv=2, error_score="raise")
        search.fit(X, Y, held_out=held_out, sample_weight=weight)
        np.testing.assert_allclose(search.best_estimator_.held_out_logits_, np.log(held_out), rtol=1e-5)

    @pytest.mark.usefixtures("shapes_unchecked")
    @pytest.mark.parametrize(
        ("options", "groups", "message"),
        [
            ({"method": "rwg"}, None, "group"),
            ({"method": "rwg"}, GROUPS[:-1], "177 entries for 178"),
            ({"method": "rwg"}, np.where(np.arange(178) == 5, None, GROUPS), "row 5"),
            ({"method": "dfr"}, GROUPS, "validation split"),
            ({"method": "erm", "infer_groups": "xrm"}, None, "takes no inferred groups"),
            ({"method": "rwg", "infer_groups": "guess"}, None, "guess"),
            ({"method": "jtt", "method__upwheight": 3.0}, None, "upwheight"),
            ({"method": "nonsense"}, None, "nonsense"),
        ],
        ids=str,
    )
    def test_errors(self, options: dict[str, Any], groups: Any, message: str) -> None:
        with pytest.raises(UnroteError, match=message):
            UnroteClassifier(**options, **QUICK).fit(X, Y, groups=groups)
