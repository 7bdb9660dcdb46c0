"""Refitted heads against their stated problems: stationary points by autograd, subgradients by numpy."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import assert_same_bits, clusters, planted_task

from unrote.data import Split, Task
from unrote.errors import DataError, OptionError
from unrote.methods import METHODS, Session
from unrote.methods.heads import (
    Standardizer,
    average,
    check_hold_out,
    erm_and_held_out,
    fit_head,
    fit_sparse_head,
    group_scores,
    halves,
    predicted,
    stratified_share,
    with_head,
)
from unrote.models import Stack, StackedLinear, StackedMLP
from unrote.training import Recipe

X, Y = clusters(40, 3, 5)
X = X.double()
WEIGHT = torch.linspace(0, 2, 40, dtype=torch.float64)
RECIPE = Recipe("adam", 0.05, batch_size=16, epochs=3)


def make_session(task: Task | None = None, hidden: bool = True, **options: Any) -> Session:
    def build(seeds: Any) -> Stack:
        return StackedMLP(8, 2, seeds, hidden=6) if hidden else StackedLinear(8, 2, seeds)

    return Session(planted_task() if task is None else task, build, RECIPE, seed=2, **options)


class TestFitHead:
    @pytest.mark.parametrize("penalty", [1e-3, 1.0])
    @pytest.mark.parametrize("anchored", [False, True])
    def test_is_where_the_slope_of_what_it_minimises_is_zero(self, penalty: float, anchored: bool) -> None:
        random = torch.Generator().manual_seed(0)
        start = torch.randn(3, 5, generator=random), torch.randn(3, generator=random)
        weight, bias = fit_head(X, Y, 3, penalty=penalty, weight=WEIGHT, start=start if anchored else None)
        w, b = weight.requires_grad_(), bias.requires_grad_()
        w0, b0 = start if anchored else (torch.zeros(3, 5), torch.zeros(3))
        losses = F.cross_entropy(X @ w.T + b, Y, reduction="none")
        away = (w - w0).square().sum() + (b - b0).square().sum()
        ((WEIGHT * losses).sum() / WEIGHT.sum() + penalty * away).backward()
        assert w.grad is not None
        assert b.grad is not None
        assert float(w.grad.abs().max()) < 1e-4
        assert float(b.grad.abs().max()) < 1e-4

    def test_a_large_penalty_keeps_the_start(self) -> None:
        start = torch.ones(3, 5), torch.zeros(3)
        weight, bias = fit_head(X, Y, 3, penalty=1e6, start=start)
        torch.testing.assert_close(weight, start[0].double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(bias, start[1].double(), rtol=0, atol=1e-5)

    def test_a_class_without_examples_is_finite_and_never_wins(self) -> None:
        head = fit_head(X[Y < 2], Y[Y < 2], 3, penalty=1e-3)
        assert bool(torch.isfinite(head[0]).all())
        assert int(predicted(head, X[Y < 2]).max()) < 2

    @pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan")])
    def test_refuses_penalties_that_are_not_positive(self, penalty: float) -> None:
        with pytest.raises(OptionError, match="penalty="):
            fit_head(X, Y, 3, penalty=penalty)


class TestFitSparseHead:
    @pytest.mark.parametrize("C", [0.05, 1.0])
    def test_two_classes_meet_the_conditions_of_the_l1_problem(self, C: float) -> None:
        """|w| + |b| + C * sum of weighted logistic losses: where w_j is 0 its slope is at most 1, else exactly."""
        x, y = X[Y < 2], Y[Y < 2]
        weight = 1 + (torch.arange(len(y)) % 3).double()
        head = fit_sparse_head(x, y, 2, C=C, weight=weight)
        torch.testing.assert_close(head[0][0], -head[0][1])
        theta = np.append((head[0][1] - head[0][0]).numpy(), float(head[1][1] - head[1][0]))
        columns = np.append(x.numpy(), np.ones((len(x), 1)), axis=1)
        p = 1 / (1 + np.exp(-columns @ theta))
        slope = C * columns.T @ (weight.numpy() * (p - y.numpy()))
        used = theta != 0
        np.testing.assert_allclose(slope[used], -np.sign(theta[used]), atol=0.02)
        assert np.all(np.abs(slope[~used]) <= 1.02)

    def test_more_classes_are_one_against_the_rest(self) -> None:
        head = fit_sparse_head(X, Y, 4, C=1.0)
        for c in range(3):
            alone = fit_sparse_head(X, (c == Y).long(), 2, C=1.0)
            score = X @ head[0][c] + head[1][c]
            wanted = X @ (alone[0][1] - alone[0][0]) + alone[1][1] - alone[1][0]
            torch.testing.assert_close(score, wanted)
        assert int(predicted(head, X).max()) == 2  # the fourth class has no example
        assert float((predicted(head, X) == Y).double().mean()) > 0.6

    def test_one_class_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"all 4 examples .* are of class 2.*hold out more"):
            fit_sparse_head(X[:4], torch.full((4,), 2), 3, C=1.0)

    def test_a_weak_fit_is_sparse(self) -> None:
        assert int((fit_sparse_head(X, Y, 3, C=0.02)[0] != 0).sum()) < 5


class TestStandardizer:
    def test_features_have_mean_zero_and_deviation_one(self) -> None:
        x = torch.cat([X, torch.full((40, 1), 7.0)], dim=1)
        found = Standardizer.of(x)(x).numpy()
        np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(found.std(0), [1] * 5 + [0], atol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_rounding_is_no_deviation(self, dtype: torch.dtype) -> None:
        x = torch.full((1000, 1), 0.1, dtype=dtype)
        assert float(Standardizer.of(x)(x.double()).abs().max()) < 1e-6

    def test_folded_into_a_head_it_changes_no_logit(self) -> None:
        standardize = Standardizer.of(3 * X + 5)
        weight, bias = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
        plain = standardize.fold((weight, bias))
        x = torch.randn(7, 5, dtype=torch.float64)
        torch.testing.assert_close(x @ plain[0].T + plain[1], standardize(x) @ weight.T + bias)


class TestHeldOut:
    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_a_share_of_every_class_never_all_of_it(self, share: float) -> None:
        y = torch.tensor([0] * 20 + [1] * 7 + [2] * 2)
        rows = stratified_share(y, share, seed=0)
        found = torch.bincount(y[rows], minlength=3).tolist()
        assert found == [round(share * 20), round(share * 7), 1]
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert rows.tolist() != stratified_share(y, share, seed=1).tolist()

    def test_a_class_with_one_example_keeps_it_and_says_so(self) -> None:
        with pytest.warns(UserWarning, match="class 1 has one training example, so none is held out"):
            rows = stratified_share(torch.tensor([0, 0, 0, 0, 1]), 0.5, seed=0)
        assert 4 not in rows.tolist()

    def test_what_is_held_out_of_training_leaves_no_trace_in_the_model(self) -> None:
        task = planted_task()
        held_out = erm_and_held_out(make_session(task), "train", 0.25)
        rows = stratified_share(task.train.y, 0.25, seed=2)
        y, x = task.train.y.clone(), task.train.x[torch.arange(64)].clone()
        assert torch.equal(held_out.y, y[rows])
        assert torch.equal(held_out.x[torch.arange(len(rows))], x[rows])
        x[rows] += 100.0
        changed = replace(task, train=Split(x, y, task.train.attribute))
        other = erm_and_held_out(make_session(changed), "train", 0.25)
        assert_same_bits(other.stack.state_dict(), held_out.stack.state_dict())

    def test_the_validation_split_leaves_all_of_training(self) -> None:
        run = make_session()
        held_out = erm_and_held_out(run, "validation", length=0.5)
        assert held_out.training is run.erm(0.5)
        assert torch.equal(held_out.y, run.validation.y)
        torch.testing.assert_close(held_out.logits(), held_out.stack.predict(run.validation.x)[0])

    def test_is_made_once_in_a_session(self) -> None:
        run = make_session()
        assert erm_and_held_out(run, "train").training is erm_and_held_out(run, "train").training
        assert erm_and_held_out(run, "train", 0.5).training is not erm_and_held_out(run, "train").training

    def test_carries_sample_weights(self) -> None:
        weight = torch.linspace(0.5, 1, 64)
        rows = stratified_share(planted_task().train.y, 0.25, seed=2)
        run = make_session(sample_weight=weight)
        assert torch.equal(erm_and_held_out(run, "train", 0.25).weight, weight[rows])
        assert erm_and_held_out(run, "validation").weight.tolist() == [1.0] * 64

    def test_says_what_to_do_without_a_validation_split(self) -> None:
        with pytest.raises(OptionError, match="no validation split: hold_out='train' takes a share"):
            erm_and_held_out(make_session(replace(planted_task(), validation=None)), "validation")

    @pytest.mark.usefixtures("shapes_unchecked")
    def test_options_are_checked(self) -> None:
        with pytest.raises(OptionError, match="hold_out='test': 'train' or 'validation'"):
            check_hold_out("test", 0.2)
        for share in (0.0, 1.0, -1.0):
            with pytest.raises(OptionError, match=f"share={share}"):
                check_hold_out("train", share)

    @pytest.mark.parametrize("name", ["afr", "self", "evals", "neurontune", "dpe"])
    @pytest.mark.parametrize("hold_out", ["train", "validation"])
    @pytest.mark.parametrize("hidden", [False, True])
    def test_every_method_that_holds_out_takes_both(self, name: str, hold_out: str, hidden: bool) -> None:
        run = make_session(hidden=hidden)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # so small a model may make no mistake
            fitted = METHODS[name](hold_out=hold_out).fit(run)
        assert bool(torch.isfinite(fitted.logits(run.task.train.x)).all())


def test_halves_hold_half_of_every_group() -> None:
    group = torch.tensor([0, 0, 0, 0, 2, 2, 2, 5])
    first, second = halves(group, seed=0)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(8))
    assert torch.bincount(group[first]).tolist() == [2, 0, 2, 0, 0, 1]
    assert torch.bincount(group[second]).tolist() == [2, 0, 1]


def test_scores_are_the_worst_groups_and_the_groups_mean() -> None:
    right = torch.tensor([1.0, 1, 0, 1, 0, 0])
    assert group_scores(right, torch.tensor([0, 0, 0, 3, 1, 3])) == pytest.approx(
        (0.0, (2 / 3 + 0 + 0.5) / 3)
    )


def test_the_average_head_gives_the_average_logits() -> None:
    random = torch.Generator().manual_seed(0)
    heads = [(torch.randn(3, 5, generator=random), torch.randn(3, generator=random)) for _ in range(4)]
    weight, bias = average(heads)
    x = X.float()
    wanted = torch.stack([x @ w.T + b for w, b in heads]).mean(0)
    torch.testing.assert_close(x @ weight.T + bias, wanted)


class TestWithHead:
    HEAD = (torch.ones(2, 6, dtype=torch.float64), torch.arange(2).double())

    def test_wears_the_head_and_leaves_the_original_alone(self) -> None:
        run = make_session()
        erm = run.erm()
        before = erm.stack.snapshot()
        fitted = with_head(METHODS["erm"](), run, erm, self.HEAD)
        x = run.task.test.x  # type: ignore[union-attr]
        features = erm.stack.predict_features(x)[0]
        torch.testing.assert_close(fitted.logits(x), features.sum(1, keepdim=True) + torch.tensor([0.0, 1.0]))
        assert_same_bits(erm.stack.state_dict(), before)
        assert fitted.training.history == erm.history

    def test_the_history_ends_with_the_refitted_model(self) -> None:
        def evaluate(stack: Stack) -> dict[str, Tensor]:
            return {"bias": stack.head()[1][1].reshape(1)}

        run = make_session(evaluate=evaluate)
        fitted = with_head(METHODS["erm"](), run, run.erm(), self.HEAD)
        assert len(fitted.training.history) == len(run.erm().history) + 1
        assert fitted.training.history[-1]["bias"] == [1.0]
        assert fitted.training.history[-1]["step"] == run.erm().history[-1]["step"]
