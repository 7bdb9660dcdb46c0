"""What goes in and what comes out: types of input and labels, attributes, options, errors."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import NotFittedError

import unrote
from unrote import ERMClassifier, MATClassifier, Recipe, Split, Task, UnroteClassifier, UnroteError
from unrote.estimators import NotTrainedError

X, Y = load_iris(return_X_y=True)
QUICK: dict[str, Any] = {"epochs": 20, "learning_rate": 0.05, "random_state": 0}
KINDS = [ERMClassifier, MATClassifier, UnroteClassifier]


class TestInput:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "wrap",
        [
            torch.from_numpy,
            lambda x: torch.from_numpy(x).requires_grad_(),
            pd.DataFrame,
            lambda x: pd.DataFrame(x, columns=list("abcd")).convert_dtypes(),
            lambda x: x.tolist(),
            np.asfortranarray,
        ],
        ids=["tensor", "tensor with gradient", "frame", "frame of nullable columns", "lists", "by column"],
    )
    def test_what_holds_the_numbers_does_not_matter(self, kind: Any, wrap: Any) -> None:
        wanted = kind(**QUICK).fit(X, Y).predict_proba(X)
        classifier = kind(**QUICK).fit(wrap(X), Y)
        np.testing.assert_array_equal(classifier.predict_proba(wrap(X)), wanted)

    def test_half_precision_tensors(self) -> None:
        x = torch.from_numpy(X).bfloat16()
        found = ERMClassifier(**QUICK).fit(x, torch.from_numpy(Y)).predict_proba(x)
        np.testing.assert_array_equal(
            found, ERMClassifier(**QUICK).fit(x.float(), Y).predict_proba(x.float())
        )

    @pytest.mark.parametrize("standardize", [True, False])
    def test_sparse_rows_are_as_good_as_dense_ones(self, standardize: bool) -> None:
        x = np.where(np.median(X, 0) < X, X, 0.0)
        if standardize:  # sparse features are scaled but not centred, so compare with that done by hand
            dense = MATClassifier(standardize=False, **QUICK).fit(x / x.std(0), Y).predict_proba(x / x.std(0))
        else:
            dense = MATClassifier(standardize=False, **QUICK).fit(x, Y).predict_proba(x)
        for kind in (sparse.csr_array, sparse.csr_matrix, sparse.coo_array):
            classifier = MATClassifier(standardize=standardize, **QUICK).fit(kind(x), Y)
            np.testing.assert_allclose(classifier.predict_proba(kind(x)), dense, atol=1e-5)

    def test_column_names(self) -> None:
        frame = load_iris(as_frame=True).data
        classifier = ERMClassifier(**QUICK).fit(frame, Y)
        assert classifier.n_features_in_ == 4
        assert list(classifier.feature_names_in_) == list(frame.columns)
        with pytest.raises(UnroteError, match="same order"):
            classifier.predict(frame[frame.columns[::-1]])
        assert not hasattr(ERMClassifier(**QUICK).fit(X, Y), "feature_names_in_")

    def test_input_is_left_alone(self) -> None:
        x, y = X.astype(np.float32), Y.copy()
        before = x.copy()
        MATClassifier(standardize=False, **QUICK).fit(x, y)
        np.testing.assert_array_equal(x, before)


class TestLabels:
    @pytest.mark.parametrize(
        "labels",
        [
            np.array(["setosa", "versicolor", "virginica"]),
            np.array(["setosa", "versicolor", "virginica"], dtype=object),
            np.array([-7, 0, 12]),
            np.array([0.0, 1.0, 2.0]),
        ],
        ids=["strings", "objects", "integers", "whole floats"],
    )
    @pytest.mark.parametrize("wrap", [np.asarray, pd.Series, list], ids=["array", "series", "list"])
    def test_any_type(self, labels: np.ndarray, wrap: Any) -> None:
        y = labels[Y]
        classifier = ERMClassifier(**QUICK).fit(X, wrap(y))
        np.testing.assert_array_equal(classifier.classes_, labels)
        np.testing.assert_array_equal(classifier.predict(X), labels[classifier.predict_proba(X).argmax(1)])
        assert classifier.score(X, wrap(y)) > 0.9

    def test_booleans(self) -> None:
        classifier = MATClassifier(**QUICK).fit(X, Y == 2)
        assert classifier.predict(X).dtype == bool
        assert classifier.score(X, torch.from_numpy(Y == 2)) > 0.9

    def test_categories_and_arrow_strings(self) -> None:
        names = pd.Series(np.array(["a", "b", "c"])[Y])
        wanted = ERMClassifier(**QUICK).fit(X, names.to_numpy(dtype=object)).predict(X)
        for y in (names.astype("category"), names.astype("string")):
            np.testing.assert_array_equal(ERMClassifier(**QUICK).fit(X, y).predict(X), wanted)

    def test_columns_follow_the_sorted_labels(self) -> None:
        swapped = ERMClassifier(**QUICK).fit(X, np.array(["z", "y", "x"])[Y])
        np.testing.assert_array_equal(swapped.classes_, ["x", "y", "z"])
        assert (swapped.classes_[swapped.predict_proba(X).argmax(1)] == swapped.predict(X)).all()


class TestPrediction:
    def test_probabilities_are_softmax_of_the_decision_function(self) -> None:
        classifier = MATClassifier(**QUICK).fit(X, Y)
        logits = classifier.decision_function(X)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        np.testing.assert_allclose(classifier.predict_proba(X), p)
        np.testing.assert_allclose(classifier.predict_log_proba(X), np.log(p))

    def test_two_classes_have_one_decision(self) -> None:
        classifier = MATClassifier(**QUICK).fit(X, Y == 2)
        p = classifier.predict_proba(X)
        np.testing.assert_allclose(classifier.decision_function(X), np.log(p[:, 1] / p[:, 0]), rtol=1e-6)

    @pytest.mark.parametrize("module", ["linear", "mlp"])
    def test_a_row_is_predicted_the_same_in_any_company(self, module: str) -> None:
        classifier = ERMClassifier(module, **QUICK).fit(X, Y)
        alone = np.concatenate([classifier.predict_proba(X[i : i + 1]) for i in range(len(X))])
        np.testing.assert_allclose(alone, classifier.predict_proba(X), rtol=1e-12)


class TestAgreement:
    @pytest.mark.parametrize("seed", [0, 3])
    @pytest.mark.parametrize(
        ("classifier", "method", "settings"),
        [
            (MATClassifier(temperature=0.5), "mat", {"temperature": 0.5}),
            (MATClassifier(held_out="kfold"), "mat", {"held_out": "kfold"}),
            (ERMClassifier(), "erm", {}),
            (UnroteClassifier("jtt", method__upweight=5.0), "jtt", {"upweight": 5.0}),
        ],
        ids=repr,
    )
    def test_with_fit(self, classifier: Any, method: str, settings: dict[str, Any], seed: int) -> None:
        """Standardisation is all that an estimator adds; without it the two are the same, bit for bit."""
        x = X.astype(np.float32)
        recipe = Recipe("sgd", 0.05, weight_decay=1e-4, epochs=7, batch_size=32)
        fitted = unrote.fit(
            Task("iris", train=Split(x, Y)), method, model="linear", recipe=recipe, seed=seed, **settings
        )
        classifier.set_params(
            standardize=False,
            optimizer="sgd",
            learning_rate=0.05,
            weight_decay=1e-4,
            epochs=7,
            batch_size=32,
            random_state=seed,
        )
        classifier.fit(X.astype(np.float32), Y)
        for name, value in fitted.stack.state_dict().items():
            assert torch.equal(classifier.stack_.state_dict()[name], value), name
        np.testing.assert_allclose(
            classifier.decision_function(x), fitted.logits(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5
        )
        if method == "mat":
            np.testing.assert_array_equal(classifier.shift_, fitted.artefacts["shift"].numpy())


class TestStandardize:
    def test_units_do_not_matter(self) -> None:
        scale, offset = np.array([1e-6, 1.0, 1e3, 1e8]), np.array([1e-3, 0.0, -5e5, 1.6e12])
        plain = MATClassifier(**QUICK).fit(X, Y)
        other = MATClassifier(**QUICK).fit(X * scale + offset, Y)
        np.testing.assert_allclose(
            other.predict_proba(X * scale + offset), plain.predict_proba(X), rtol=1e-2, atol=1e-3
        )

    def test_attributes(self) -> None:
        constant = np.c_[X, np.full(len(X), 3.0)]
        classifier = ERMClassifier(**QUICK).fit(constant, Y)
        np.testing.assert_allclose(classifier.feature_mean_, constant.mean(0))
        np.testing.assert_allclose(classifier.feature_scale_, [*X.std(0), 1.0])
        left = ERMClassifier(standardize=False, **QUICK).fit(X, Y)
        assert left.feature_mean_ is None
        assert left.feature_scale_ is None

    def test_many_rows_are_standardised_in_parts(self) -> None:
        x = np.random.default_rng(0).normal(5.0, 3.0, (20_000, 3))
        classifier = ERMClassifier(epochs=1, random_state=0).fit(x, x[:, 0] > 5)
        np.testing.assert_allclose(classifier.feature_mean_, x.mean(0))
        np.testing.assert_allclose(classifier.feature_scale_, x.std(0))


class TestRandomState:
    def test_same_seed_same_classifier(self) -> None:
        one, other = (MATClassifier(**QUICK).fit(X, Y).predict_proba(X) for _ in range(2))
        np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
    def test_generators_are_drawn_from(self, make: Any) -> None:
        first, again = make(5), make(5)
        seeds = [ERMClassifier(epochs=1, random_state=first).fit(X, Y).seed_ for _ in range(2)]
        assert seeds[0] != seeds[1]
        assert seeds[0] == ERMClassifier(epochs=1, random_state=again).fit(X, Y).seed_

    def test_none_draws_from_numpy(self) -> None:
        state = np.random.get_state()  # noqa: NPY002
        one = ERMClassifier(epochs=1).fit(X, Y).seed_
        assert one != ERMClassifier(epochs=1).fit(X, Y).seed_
        np.random.set_state(state)  # noqa: NPY002
        assert one == ERMClassifier(epochs=1).fit(X, Y).seed_

    def test_global_generators_are_left_alone(self) -> None:
        before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        MATClassifier(**QUICK).fit(X, Y)
        assert torch.equal(before[0], torch.random.get_rng_state())
        np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


class TestHistory:
    def test_one_record_an_epoch(self) -> None:
        history = ERMClassifier(**QUICK).fit(X, Y).history_
        assert [record["epoch"] for record in history] == list(range(20))
        assert [record["step"] for record in history] == list(range(2, 42, 2))
        assert history[-1]["loss"] < history[0]["loss"]

    @pytest.mark.parametrize(
        ("n", "options", "steps"),
        [
            (50, {}, 1000),  # all rows in one step
            (3_000, {}, 1008),  # 42 passes of 24 steps
            (30_000, {}, 1062),  # 9 passes of 118 steps of 256 rows
            (3_000, {"batch_size": None}, 1000),
            (3_000, {"batch_size": 1000, "epochs": 2}, 6),
        ],
    )
    def test_length_by_default(self, n: int, options: dict[str, Any], steps: int) -> None:
        x = np.random.default_rng(0).normal(size=(n, 2))
        classifier = ERMClassifier(random_state=0, **options).fit(x, x[:, 0] > 0)
        assert classifier.history_[-1]["step"] == steps

    def test_progress_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        MATClassifier(verbose=True, **QUICK).fit(X, Y)
        captured = capsys.readouterr()
        assert "twins" in captured.err
        assert captured.out == ""
        MATClassifier(**QUICK).fit(X, Y)
        assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("shapes_unchecked")
class TestErrors:
    def test_not_fitted(self) -> None:
        for call in ("predict", "predict_proba", "decision_function"):
            with pytest.raises(NotTrainedError, match="not fitted"):
                getattr(MATClassifier(), call)(X)
        assert issubclass(NotTrainedError, UnroteError)
        assert issubclass(NotTrainedError, NotFittedError)
        with pytest.raises(NotTrainedError):
            MATClassifier().report()

    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [
            (np.where(X > 7, np.nan, X), Y, "NaN"),
            (X * np.inf, Y, "infinity"),
            (X, Y[:-1], "inconsistent numbers of samples"),
            (X, np.zeros(150), "one class, .*at least two"),
            (X, X[:, 0], "continuous"),
            (X, np.array(["a", None] * 75, dtype=object), "cannot be sorted"),
            (X[:, 0], Y, "2D array"),
            (X[:0], Y[:0], "0 sample"),
            (X.reshape(150, 2, 2), Y, "module='cnn'"),
            (np.full((150, 2), "a"), Y, "strings"),
            (X.astype(complex), Y, "[Cc]omplex"),
        ],
    )
    def test_data(self, x: Any, y: Any, message: str) -> None:
        with pytest.raises(UnroteError, match=message) as error:
            MATClassifier(**QUICK).fit(x, y)
        assert isinstance(error.value, (ValueError, TypeError))

    def test_objects_that_are_no_numbers(self) -> None:
        x = X.astype(object)
        x[3, 1] = {"sepal": 1}
        with pytest.raises(UnroteError) as error:
            MATClassifier(**QUICK).fit(x, Y)
        assert isinstance(error.value, TypeError)

    def test_values_beyond_32_bits(self) -> None:
        x = X.copy()
        x[7, 2] = 1e300
        with pytest.raises(UnroteError, match="row 7"):
            ERMClassifier(standardize=False, **QUICK).fit(x, Y)

    def test_other_examples_at_prediction(self) -> None:
        classifier = ERMClassifier(**QUICK).fit(X, Y)
        with pytest.raises(UnroteError, match="3 features, but ERMClassifier is expecting 4"):
            classifier.predict(X[:, :3])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": 0.0}, "temperature"),
            ({"temperature": "hot"}, "temperature"),
            ({"held_out": "loo"}, "'auto', 'xrm', 'trunk', 'kfold', 'alo' or"),
            ({"held_out": None}, "'auto', 'xrm', 'trunk', 'kfold', 'alo' or"),
            ({"held_out": np.zeros((150, 2))}, r"shape \(150, 2\)"),
            ({"held_out": [["a"] * 3] * 150}, "could not convert"),
            ({"optimizer": "lbfgs"}, "lbfgs"),
            ({"learning_rate": -1.0}, "learning_rate"),
            ({"learning_rate": "fast"}, "learning_rate"),
            ({"weight_decay": np.nan}, "weight_decay"),
            ({"batch_size": 0}, "batch_size"),
            ({"epochs": 1.5}, "epochs"),
            ({"random_state": -1}, "random_state"),
            ({"random_state": "x"}, "seed"),
            ({"tempreature": 1.0}, "did you mean 'temperature'"),
            ({"method__upweight": 1.0}, "no parameter 'method__upweight'"),
            ({"module": "resnet"}, "resnet"),
            ({"module": 7}, "module=7"),
            ({"module__width": 7}, "module__width"),
        ],
        ids=str,
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UnroteError, match=message):
            MATClassifier(**{**QUICK, **options}).fit(X, Y)

    def test_unknown_parameter(self) -> None:
        with pytest.raises(UnroteError, match="Invalid parameter 'tempreature'"):
            MATClassifier().set_params(tempreature=1.0)

    def test_wine_diverges(self) -> None:
        x, y = load_wine(return_X_y=True)
        with pytest.raises(UnroteError, match="lower the learning rate"):
            ERMClassifier("mlp", standardize=False, optimizer="sgd", learning_rate=1e9).fit(x, y)
