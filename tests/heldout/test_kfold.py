"""k-fold cross-fitting against a loop over folds in plain torch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from toys import clusters

from unrote.checkpoint import Checkpoints
from unrote.errors import DataError
from unrote.heldout import HeldOut, kfold
from unrote.heldout.kfold import stratified_folds
from unrote.models import Stack, StackedLinear
from unrote.seeding import derive_seed
from unrote.training import Order, Recipe

N, FEATURES, CLASSES, FOLDS = 31, 4, 3, 4
X, Y = clusters(N, CLASSES, FEATURES, seed=2)
RECIPE = Recipe("sgd", 0.1, 0.01, batch_size=6, epochs=4)


def run(**options: Any) -> tuple[HeldOut, StackedLinear]:
    """The result, and the stack as it was before training."""
    started: list[StackedLinear] = []

    def build(seeds: Any) -> Stack:
        started.append(StackedLinear(FEATURES, CLASSES, seeds, dtype=torch.float64))
        return StackedLinear(FEATURES, CLASSES, seeds, dtype=torch.float64)

    return kfold(X, Y, build, RECIPE, n_folds=FOLDS, **options), started[0]


def test_every_row_is_what_a_model_without_its_fold_says() -> None:
    held_out, started = run(seed=9)
    assert held_out.predicted_by is not None
    assert started.bias is not None
    fold = held_out.predicted_by
    for k in range(FOLDS):
        model = nn.Linear(FEATURES, CLASSES, dtype=torch.float64)
        model.weight, model.bias = nn.Parameter(started.weight[k]), nn.Parameter(started.bias[k])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for index in Order(N, 6, derive_seed(9, "kfold")).minibatches(0, 4 * math.ceil(N / 6)):
            rows = index[fold[index] != k]
            optimizer.zero_grad()
            F.cross_entropy(model(X[rows].double()), Y[rows]).backward()
            optimizer.step()
        found = held_out.logits[fold == k]
        torch.testing.assert_close(found, model(X[fold == k].double()).detach(), rtol=1e-9, atol=1e-11)


def test_proof_names_the_folds() -> None:
    held_out, _ = run()
    assert held_out.trained_on is not None
    assert held_out.predicted_by is not None
    for k in range(FOLDS):
        assert torch.equal(held_out.trained_on[k], held_out.predicted_by != k)


def test_repeats_bit_for_bit() -> None:
    before = torch.get_rng_state()
    one, other, another = run(seed=1)[0], run(seed=1)[0], run(seed=2)[0]
    assert torch.equal(one.logits, other.logits)
    assert not torch.equal(one.logits, another.logits)
    assert torch.equal(torch.get_rng_state(), before)


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=40),
    st.integers(2, 6),
    st.integers(0, 2**32),
)
def test_folds_spread_every_class_evenly(labels: list[int], n_folds: int, seed: int) -> None:
    y = torch.tensor(labels)
    fold = stratified_folds(y, n_folds, seed)
    for label in set(labels):
        sizes = torch.bincount(fold[y == label], minlength=n_folds)
        assert len(sizes) == n_folds
        assert int(sizes.max()) - int(sizes.min()) <= 1


def test_folds_are_random() -> None:
    y = torch.zeros(20, dtype=torch.long)
    drawn = {tuple(stratified_folds(y, 4, seed).tolist()) for seed in range(20)}
    assert len(drawn) == 20
    assert torch.equal(stratified_folds(y, 4, 3), stratified_folds(y, 4, 3))


@pytest.mark.usefixtures("shapes_unchecked")
class TestRefuses:
    def build(self, seeds: Any) -> Stack:
        return StackedLinear(FEATURES, CLASSES, seeds)

    @pytest.mark.parametrize("n_folds", [0, 1, N + 1])
    def test_folds(self, n_folds: int) -> None:
        with pytest.raises(DataError, match=f"n_folds={n_folds} for {N} examples"):
            kfold(X, Y, self.build, RECIPE, n_folds=n_folds)

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (Y[:-1], "30 labels for 31"),
            (torch.cat([Y, Y]), "62 labels for 31"),
            (Y + 1, "labels run from 1 to 3"),
        ],
        ids=["too few", "too many", "too large"],
    )
    def test_labels(self, tmp_path: Any, y: Tensor, message: str) -> None:
        with pytest.raises(DataError, match=message):
            kfold(X, y, self.build, RECIPE, checkpoints=Checkpoints(tmp_path / "c", {}))
        assert not (tmp_path / "c").exists()
