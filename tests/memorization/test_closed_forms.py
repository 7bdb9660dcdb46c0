"""The closed forms of a head, against dense matrices, retraining and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unrote.errors import DataError, OptionError
from unrote.memorization import (
    influence_matrix,
    least_squares_leave_one_out,
    leave_one_out,
    leave_one_out_check,
    self_influence,
    top_influencers,
)
from unrote.memorization.head_solver import leave_out, settle
from unrote.memorization.hessian import Factor, HeadData, residuals
from unrote.memorization.reading import Head, softmax


def random_head(n: int, d: int, n_classes: int, *, seed: int = 0, scale: float = 1.0) -> Head:
    random = np.random.default_rng(seed)
    features, weight = random.normal(size=(n, d)), scale * random.normal(size=(n_classes, d))
    bias = random.normal(size=n_classes)
    y = random.integers(0, n_classes, n)
    return Head(features, features @ weight.T + bias, y, weight, bias)


def dense(head: Head, damping: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean Hessian of all C classes with damping, gradients as rows, and each example's own part of n H."""
    a = np.c_[head.features, np.ones(len(head.y))]
    p = softmax(head.logits)
    parts = np.stack(
        [np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for q, x in zip(p, a, strict=True)]
    )
    r = p - np.eye(p.shape[1])[head.y]
    gradients = np.stack([np.kron(u, x) for u, x in zip(r, a, strict=True)])
    return parts.mean(0) + damping * np.eye(parts.shape[1]), gradients, parts


@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("form", ["primal", "dual"])
def test_self_influence_and_removal_equal_the_dense_ones(n_classes: int, form: str) -> None:
    head = random_head(25, 4, n_classes)
    h, g, parts = dense(head, 0.01)
    data = head.data()
    found = leave_out(data, head.y, settle(data, 0.01, "float64", form=form))
    np.testing.assert_allclose(
        found.self_influence, np.einsum("ip,pi->i", g, np.linalg.solve(h, g.T)), rtol=1e-8
    )
    for i in (0, 7, 24):
        step = np.linalg.solve(25 * h - parts[i], g[i]).reshape(n_classes, -1)
        np.testing.assert_allclose(found.change[i], step @ np.append(head.features[i], 1), atol=1e-9)


def test_autograd_agrees_about_the_hessian() -> None:
    head = random_head(12, 3, 3)
    x, y = torch.from_numpy(np.c_[head.features, np.ones(12)]), torch.from_numpy(head.y)
    theta = torch.from_numpy(np.c_[head.weight, head.bias])

    def loss(flat: torch.Tensor, rows: slice = slice(None)) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(x[rows] @ flat.view(3, 4).T, y[rows])

    h = torch.autograd.functional.hessian(loss, theta.flatten()) + 0.02 * torch.eye(12).double()
    g = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda t, i=i: loss(t, slice(i, i + 1)), theta.flatten())
            for i in range(12)
        ]
    )
    wanted = (g * torch.linalg.solve(h, g.T).T).sum(1)
    found = self_influence(head, None, None, damping=0.02, dtype="float64")
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_weights_count_like_repeated_examples() -> None:
    head = random_head(20, 3, 3)
    count = np.arange(20) % 3 + 1
    rows = np.repeat(np.arange(20), count)
    many = Head(head.features[rows], head.logits[rows], head.y[rows], head.weight, head.bias)
    first = np.searchsorted(rows, np.arange(20))
    found = self_influence(head, None, None, damping=0.1, weight=count)
    np.testing.assert_allclose(found, self_influence(many, None, None, damping=0.1).values[first], rtol=1e-10)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_single_precision_is_near_and_chunks_do_not_matter(
    n_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = random_head(900, 70, n_classes, scale=0.1)
    exact = leave_one_out(head, None, None, damping=1e-2, dtype="float64")
    near = leave_one_out(head, None, None, damping=1e-2, dtype="float32")
    np.testing.assert_allclose(near, exact, atol=1e-5)
    monkeypatch.setattr("unrote.memorization.hessian.chunk_rows", lambda q: 128)
    cut = leave_one_out(head, None, None, damping=1e-2, dtype="float64")
    np.testing.assert_allclose(cut, exact, atol=1e-11)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_leave_one_out_is_true_to_retraining_by_scikit_learn(n_classes: int) -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(80, 5))
    y = (x[:, 0] + 0.7 * random.normal(size=80) > 0).astype(int)
    y = y + ((x[:, 1] > 0) if n_classes == 3 else 0)
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(x, y)
    score = leave_one_out(model, x, y)
    assert "penalty that the head was trained with" in score.notes[0]
    p = model.predict_proba(x)[np.arange(80), y]
    truth = []
    for i in range(40):
        kept = np.arange(80) != i
        without = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(x[kept], y[kept])
        truth.append(p[i] - without.predict_proba(x[i : i + 1])[0, y[i]])
    assert np.corrcoef(truth, score.values[:40])[0, 1] > 0.998
    assert np.polyfit(truth, score.values[:40], 1)[0] == pytest.approx(1, abs=0.05)
    plain = self_influence(model, x, y).values[:40]
    assert np.corrcoef(truth, plain)[0, 1] < np.corrcoef(truth, score.values[:40])[0, 1]


def test_check_refits_and_retrains() -> None:
    head = random_head(60, 4, 3)
    found = leave_one_out_check(head, None, None, damping=0.02, sample=20)
    assert found["pearson"] > 0.999
    assert found["slope"] == pytest.approx(1, abs=0.05)


def test_least_squares_is_exact() -> None:
    random = np.random.default_rng(0)
    for n, d in ((30, 4), (15, 40)):
        x, y = random.normal(size=(n, d)), random.normal(size=n)
        score = least_squares_leave_one_out(x, y, penalty=0.1)
        for i in (0, 5):
            kept = np.arange(n) != i
            # the penalty of the sum stays what it was
            model = Ridge(alpha=0.1 * n, tol=1e-12).fit(x[kept], y[kept])
            wanted = model.predict(x[i : i + 1])[0] - y[i]
            assert score.details["held_out_residual"][i] == pytest.approx(wanted, abs=1e-8)


def test_pipeline_and_string_labels() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 3)) * [1, 10, 100]
    y = np.where(x[:, 0] > 0, "yes", "no")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    alone = LogisticRegression().fit(StandardScaler().fit_transform(x), y)
    expected = self_influence(alone, StandardScaler().fit_transform(x), y)
    np.testing.assert_allclose(self_influence(model, x, y), expected, rtol=1e-6)


def test_influence_matrix_in_memory_and_on_disk(tmp_path: object) -> None:
    head, other = random_head(30, 4, 3), random_head(11, 4, 3, seed=5)
    test = Head(other.features, other.features @ head.weight.T + head.bias, other.y, head.weight, head.bias)
    module = torch.nn.Linear(4, 3).double()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(head.weight))
        module.bias.copy_(torch.from_numpy(head.bias))
    h, g, _ = dense(head, 0.05)
    _, g_test, _ = dense(test, 0.05)
    wanted = g @ np.linalg.solve(h, g_test.T)
    options = {"damping": 0.05, "dtype": "float64"}
    both = (module, head.features, head.y, test.features, test.y)
    np.testing.assert_allclose(influence_matrix(*both, **options, block=4), wanted, rtol=1e-7, atol=1e-9)
    path = f"{tmp_path}/influence.npy"
    mapped = influence_matrix(*both, path=path, **options)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_allclose(np.load(path), wanted, rtol=1e-7, atol=1e-9)
    own = influence_matrix(*both[:3], **options)
    np.testing.assert_allclose(np.diag(own), self_influence(*both[:3], **options), rtol=1e-8)
    index, values = top_influencers(*both, k=4, **options)
    order = np.argsort(-wanted, axis=0)[:4].T
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(values, np.take_along_axis(wanted.T, order, 1), rtol=1e-7)
    index, _ = top_influencers(*both, k=4, by="harmful", **options)
    np.testing.assert_array_equal(index, np.argsort(wanted, axis=0)[:4].T)


class TestBadInput:
    def test_singular_hessian_without_damping(self) -> None:
        head = random_head(50, 3, 3)
        doubled = Head(
            np.c_[head.features, head.features[:, 0]],
            head.logits,
            head.y,
            np.c_[head.weight, head.weight[:, 0]],
            head.bias,
        )
        with pytest.raises(OptionError, match=r"singular with damping=0.*pass a damping above 0"):
            self_influence(doubled, None, None, damping=0.0)
        assert np.isfinite(leave_one_out(doubled, None, None).values).all()

    def test_zero_damping_of_a_regular_hessian(self) -> None:
        head = random_head(50, 3, 3)
        h, g, _ = dense(head, 1e-9)  # the dense form has directions that only damping holds
        wanted = np.einsum("ip,pi->i", g, np.linalg.solve(h, g.T))
        np.testing.assert_allclose(self_influence(head, None, None, damping=0.0), wanted, rtol=1e-4)

    @pytest.mark.parametrize("damping", [-1.0, float("nan"), float("inf")])
    def test_damping_out_of_range(self, damping: float) -> None:
        with pytest.raises(OptionError, match="a finite number of at least 0"):
            self_influence(random_head(9, 2, 2), None, None, damping=damping)

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_saturated_probabilities(self, n_classes: int) -> None:
        head = random_head(40, 3, n_classes, scale=1e4)
        score = leave_one_out(head, None, None)
        assert np.isfinite(score.values).all()
        assert (np.abs(score.values) <= 1).all()

    def test_all_probabilities_saturated_and_right(self) -> None:
        head = random_head(40, 3, 2, scale=1e6)
        sure = Head(head.features, head.logits, head.logits.argmax(1), head.weight, head.bias)
        score = self_influence(sure, None, None)
        np.testing.assert_allclose(score, 0, atol=1e-6)
        with pytest.raises(OptionError, match="singular"):
            self_influence(sure, None, None, damping=0.0)

    def test_duplicated_rows_hide_each_other(self) -> None:
        head = random_head(40, 3, 2)
        rows = np.r_[np.arange(40), [0] * 20]
        many = Head(head.features[rows], head.logits[rows], head.y[rows], head.weight, head.bias)
        alone, among = (abs(leave_one_out(h, None, None, damping=1e-3).values[0]) for h in (head, many))
        assert among < alone / 2

    def test_one_example_in_a_class(self) -> None:
        random = np.random.default_rng(0)
        x, y = random.normal(size=(30, 2)), np.zeros(30, int)
        y[7], x[7] = 1, 4.0
        model = LogisticRegression(C=10.0, max_iter=5000).fit(x, y)
        score = leave_one_out(model, x, y)
        assert int(score.values.argmax()) == 7
        assert np.isfinite(score.details["held_out_logits"]).all()

    def test_no_head(self) -> None:
        with pytest.raises(OptionError, match="head of Sequential was not found"):
            self_influence(
                torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3)),
                np.zeros((3, 1, 4), np.float32),
                np.zeros(3, int),
            )
        with pytest.raises(OptionError, match="no head that can be read"):
            self_influence(object(), np.zeros((3, 2)), np.zeros(3, int))

    def test_labels_that_do_not_fit(self, shapes_unchecked: None) -> None:
        module = torch.nn.Linear(2, 3)
        x = np.zeros((4, 2), np.float32)
        for y in (np.array([0, 1, 2, 3]), np.array([0, 1]), np.array([0.5, 1, 1, 0])):
            with pytest.raises(DataError):
                self_influence(module, x, y)

    def test_too_many_unknowns(self) -> None:
        data = HeadData(np.zeros((5, 40_000), np.float32), np.full((5, 2), 0.5))
        with pytest.raises(OptionError, match="at most 30,000 are solved exactly"):
            Factor(data, 1.0, damp_bias=True, dtype="float32")


def test_residuals_keep_their_digits() -> None:
    p = softmax(np.array([[40.0, 0.0, 1.0]]))
    r = residuals(p, np.array([0]))
    assert r[0, 0] == -(p[0, 1] + p[0, 2])
