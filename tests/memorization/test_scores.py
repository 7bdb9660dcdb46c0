"""Scores that train models or differentiate them, against enumerations and autograd."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from toys import clusters

from unrote.errors import DataError, OptionError
from unrote.memorization import (
    compare,
    curvature,
    data_map,
    detection_auc,
    el2n,
    forgetting,
    grand,
    held_out_gap,
    influence,
    leave_one_out,
    linear_datamodeling_score,
    network_self_influence,
    noise_map,
    rank_agreement,
    second_split_forgetting,
    self_influence,
    subsampled,
    tracin,
    trak,
)
from unrote.memorization.dynamics import Dynamics, record_dynamics
from unrote.memorization.second_split_forgetting import last_right
from unrote.memorization.subsampled import difference, random_subsets
from unrote.models import StackedMLP
from unrote.training import Recipe

QUICK = Recipe("adam", 1e-2, epochs=4, batch_size=16)


@pytest.fixture
def examples() -> tuple[np.ndarray, np.ndarray]:
    x, y = clusters(60, 3, 5)
    return x.numpy(), y.numpy()


def module(*, convolution: bool = False) -> nn.Module:
    torch.manual_seed(0)
    if convolution:
        first: list[nn.Module] = [nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 3), nn.Flatten()]
        return nn.Sequential(*first, nn.ReLU(), nn.Linear(6, 3))
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def loop_gradients(net: nn.Module, x: np.ndarray, y: np.ndarray) -> torch.Tensor:
    """Each example's gradient by a backward pass of its own."""
    rows = []
    for i in range(len(y)):
        loss = nn.functional.cross_entropy(
            net(torch.from_numpy(x[i : i + 1])), torch.from_numpy(y[i : i + 1])
        )
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]))
    return torch.stack(rows)


@pytest.mark.parametrize("convolution", [False, True])
def test_gradient_norms_equal_a_loop(examples: tuple[np.ndarray, np.ndarray], convolution: bool) -> None:
    x, y = examples
    net = module(convolution=convolution)
    g = loop_gradients(net, x, y).double()
    np.testing.assert_allclose(tracin(net, x, y, parameters="all"), g.square().sum(1), rtol=1e-4)
    np.testing.assert_allclose(grand(net, x, y, parameters="all"), g.norm(dim=1), rtol=1e-4)
    head = sum(p.numel() for p in list(net.parameters())[-2:])
    np.testing.assert_allclose(tracin(net, x, y), g[:, -head:].square().sum(1), rtol=1e-4)
    named = tracin(net, x, y, parameters=["0." if not convolution else "1."])
    np.testing.assert_allclose(named, g[:, :-head].square().sum(1), rtol=1e-4)
    weighted = tracin(net, x, y, checkpoints=[net, net], rates=[0.5, 0.25], parameters="all")
    np.testing.assert_allclose(weighted, 0.75 * g.square().sum(1), rtol=1e-4)


def test_trak_is_leverage_times_doubt(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    net = module()
    score = trak(net, x, y, dimensions=50)
    assert ((score.values >= 0) & (score.values <= 1)).all()
    p = net(torch.from_numpy(x)).softmax(1).detach().numpy()[np.arange(60), y]
    np.testing.assert_allclose(score.values, score.details["leverage"] * (1 - p), rtol=1e-4)
    # leverages of k independent directions add up to k, less what the small ridge takes of the weakest
    assert score.details["leverage"].sum() == pytest.approx(50, rel=0.06)
    with pytest.raises(OptionError, match="1 to 59"):
        trak(net, x, y, dimensions=60)


def test_curvature_is_the_squared_hessian(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    net = module().double()
    score = curvature(net, x.astype(np.float64), y, step=1e-4, draws=400)
    wanted = []
    for i in range(5):
        h = torch.autograd.functional.hessian(
            lambda v, i=i: nn.functional.cross_entropy(net(v[None]), torch.tensor([y[i]])),
            torch.from_numpy(x[i]).double(),
        )
        wanted.append(float((h @ h).trace()))
    assert (np.abs(score.values[:5] - wanted) < 5 * score.errors[:5] + 1e-9).all()


def test_kfac_of_a_head_with_one_direction_per_layer_is_exact() -> None:
    """Where each layer's curvature truly is a product, EK-FAC is the dense Fisher: a one-feature head."""
    x, y = clusters(400, 2, 1, distance=0.5)
    net = nn.Sequential(nn.Linear(1, 2, bias=False))
    found = network_self_influence(net, x, y, approximation="kfac", damping=1e-3)
    # two classes: delta = (p1 - y) (-1, 1), so the Fisher is 2 E[v x^2] along (-1, 1)/sqrt 2, v of drawn labels
    p = net(x).softmax(1)[:, 1].detach()
    fisher = float((2 * p * (1 - p) * x[:, 0] ** 2).mean())
    wanted = 2 * (p - y) ** 2 * x[:, 0] ** 2 / (fisher + 1e-3)
    np.testing.assert_allclose(found, wanted, rtol=0.15)


def test_projected_influence_ranks_like_the_exact_one(examples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = examples
    stack = StackedMLP(5, 3, [0], hidden=6)
    whole = network_self_influence(stack, x, y, dimensions=200)
    factored = network_self_influence(stack, x, y, approximation="kfac")
    _, matrix = rank_agreement({"whole": whole, "factored": factored, "head": self_influence(stack, x, y)})
    assert matrix[0, 1] > 0.8
    assert (matrix > 0.6).all()


class TestSubsampled:
    def test_every_subset_of_a_small_set(self) -> None:
        """All subsets of 3 of 6 examples: the two means are those of the enumeration."""
        x, y = clusters(6, 2, 2)
        subsets = list(itertools.combinations(range(6), 3))
        masks = np.zeros((len(subsets), 6), bool)
        for row, subset in enumerate(subsets):
            masks[row, list(subset)] = True
        score = subsampled("linear", x, y, masks=masks, recipe=QUICK)
        p = score.details["outcomes"]
        for i in range(6):
            inside = [p[k, i] for k, subset in enumerate(subsets) if i in subset]
            outside = [p[k, i] for k, subset in enumerate(subsets) if i not in subset]
            assert score.values[i] == pytest.approx(np.mean(inside) - np.mean(outside), abs=1e-6)
            error = np.var(inside, ddof=1) / len(inside) + np.var(outside, ddof=1) / len(outside)
            assert score.errors[i] == pytest.approx(error**0.5, abs=1e-6)
        found, errors = influence(score)
        np.testing.assert_allclose(np.diag(found), score.values, atol=1e-9)
        np.testing.assert_allclose(np.diag(errors), score.errors, atol=1e-9)

    def test_errors_cover_the_truth(self) -> None:
        """A learner that looks up what it saw: outcome .9 if trained on, .2 if not, with noise."""
        random, covered = np.random.default_rng(0), []
        for trial in range(60):
            masks = random_subsets(20, 50, 0.7, trial)
            outcomes = np.where(masks, 0.9, 0.2) + 0.1 * random.normal(size=masks.shape)
            means = difference(masks, outcomes)
            covered.append(np.abs(means.inside - means.outside - 0.7) < 1.96 * means.errors)
        assert 0.92 < np.mean(covered) < 0.97

    def test_batches_of_members_and_bad_options(self) -> None:
        x, y = clusters(30, 2, 3)
        whole = subsampled("linear", x, y, n_models=24, recipe=QUICK, X_test=x[:4], y_test=y[:4])
        assert whole.details["test_outcomes"].shape == (24, 4)
        assert subsampled("linear", x, y, n_models=24, recipe=QUICK, at_once=10).values.shape == (30,)
        with pytest.raises(OptionError, match="neither none nor all"):
            subsampled("linear", x, y, share=1.0)
        with pytest.raises(OptionError, match="train more models"):
            subsampled("linear", x, y, n_models=3, share=0.9)


def test_linear_datamodeling_score_of_a_linear_truth() -> None:
    random = np.random.default_rng(0)
    effects, masks = random.normal(size=(20, 3)), random.random((40, 20)) < 0.5
    outcomes = np.exp(masks @ effects)
    np.testing.assert_allclose(linear_datamodeling_score(effects, masks, outcomes), 1)
    np.testing.assert_allclose(linear_datamodeling_score(-effects, masks, outcomes), -1)
    assert linear_datamodeling_score(effects, masks, np.ones((40, 3))).tolist() == [0, 0, 0]


def test_influences_predict_subset_models() -> None:
    x, y = clusters(80, 2, 6, distance=0.6)
    from unrote.memorization import influence_matrix
    from unrote.memorization.fitting import fit_softmax

    runs = random_subsets(80, 40, 0.5, 0)
    features, target = x.numpy().astype(np.float64), y.numpy()
    said = []
    for mask in runs:
        head = fit_softmax(features[mask], target[mask], 2, penalty=0.05)
        p = features @ head.weight.T + head.bias
        said.append(-np.log1p(np.exp(p[np.arange(80), 1 - target] - p[np.arange(80), target])))
    full = fit_softmax(features, target, 2, penalty=0.05)
    scores = linear_datamodeling_score(influence_matrix(full, None, None, damping=0.05), runs, np.stack(said))
    assert scores.mean() > 0.9


class TestDynamics:
    def record(self, correct: list[list[int]]) -> Dynamics:
        right = np.array(correct, bool)
        p = np.where(right, 0.8, 0.3)
        return Dynamics(p, right, 1 - p, np.zeros(right.shape[1], int), 0.0, StackedMLP(2, 2))

    def test_counts(self) -> None:
        seen = self.record([[0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1]])
        score = forgetting(seen, None, None)
        assert score.values.tolist() == [0, 2, 4, 0]
        assert score.details["first_right"].tolist() == [1, 0, 4, 0]
        assert score.details["never"].tolist() == [False, False, True, False]
        assert data_map(seen, None, None).details["correctness"].tolist() == [0.75, 0.5, 0, 1]
        np.testing.assert_allclose(data_map(seen, None, None).values, [0.325, 0.45, 0.7, 0.2])
        assert last_right(seen.correct).tolist() == [4, 3, 0, 4]

    def test_watching_changes_nothing(self) -> None:
        x, y = clusters(40, 2, 3)
        one, other = (record_dynamics("mlp", x, y, recipe=QUICK, seed=3) for _ in range(2))
        np.testing.assert_array_equal(one.p, other.p)
        assert one.p.shape == (4, 40)

    def test_trained_scores(self) -> None:
        x, y = clusters(40, 2, 3, distance=2.0)
        noisy = y.clone()
        noisy[:4] = 1 - noisy[:4]
        slow = Recipe("sgd", 0.1, epochs=8, batch_size=8)
        score = second_split_forgetting("linear", x, noisy, recipe=slow, repeats=2)
        assert detection_auc(score, np.arange(40) < 4) > 0.9
        assert score.errors is not None
        assert detection_auc(el2n("linear", x, noisy, n_models=2, recipe=slow), np.arange(40) < 4) > 0.9
        assert detection_auc(data_map("linear", x, noisy, recipe=slow), np.arange(40) < 4) > 0.9


def test_held_out_gap(examples: tuple[np.ndarray, np.ndarray], shapes_unchecked: None) -> None:
    x, y = examples
    net = module()
    without = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    p, q = (
        z.softmax(1)[torch.arange(60), torch.from_numpy(y)].detach()
        for z in (net(torch.from_numpy(x)), without)
    )
    np.testing.assert_allclose(held_out_gap(net, x, y, held_out=without, log=False), p - q, atol=1e-6)
    np.testing.assert_allclose(held_out_gap(net, x, y, held_out=without), (p / q).log(), atol=1e-3)
    with pytest.raises(DataError, match="wanted"):
        held_out_gap(net, x, y, held_out=without[:5])


def test_compare_and_map() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = clusters(200, 2, 4, distance=1.0)
    group = (np.arange(200) < 30).astype(int)
    noisy = np.where(group == 1, 1 - y.numpy(), y.numpy())
    models = {name: LogisticRegression(C=c).fit(x, noisy) for name, c in (("loose", 100.0), ("tight", 0.01))}
    found = compare(models, x, noisy, group, group_names=["clean", "wrong"])
    loose = {kept.group: kept for kept in found.kept if kept.method == "loose"}
    values = found.scores["loose"].values[group == 1]
    assert loose["wrong"].mean == pytest.approx(values.mean())
    assert sum(loose["wrong"].shares) == pytest.approx(1)
    assert loose["wrong"].auc == pytest.approx(detection_auc(found.scores["loose"], group == 1))
    assert loose["wrong"].auc > 0.8
    assert {shift.group for shift in found.shifts} == {"clean", "wrong"}
    assert all(0 <= shift.p_value <= 1 for shift in found.shifts)
    assert sum(found.maps["loose"]["clean"]) == 170
    assert set(found.to_dict()) >= {"kept", "distance", "maps"}
    with pytest.raises(DataError, match="one index from 0"):
        compare(models, x, noisy, group[:5])
    with pytest.raises(OptionError, match="no models"):
        compare({}, x, noisy, group)


def test_same_method_twice_is_no_shift() -> None:
    x, y = clusters(40, 2, 3)
    score = leave_one_out(StackedMLP(3, 2), x, y)
    found = compare({"a": score, "b": score}, x, y, np.zeros(40, int))
    assert found.shifts[0].p_value == 1.0
    assert found.distance == {"a": 0.0, "b": 0.0}


def test_kinds_of_the_map() -> None:
    assert noise_map([0.0, 0.6, 0.9, 0.0], [0.9, 0.3, 0.05, 0.2]).tolist() == [0, 1, 2, 3]


def test_detection_auc_counts_pairs() -> None:
    random = np.random.default_rng(0)
    score, planted = random.integers(0, 4, 30), random.random(30) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in score[planted] for b in score[~planted]]
    assert detection_auc(score, planted) == pytest.approx(np.mean(pairs))
    with pytest.raises(DataError, match="both kinds"):
        detection_auc(score, np.zeros(30, bool))
