"""The loss of a `Supervision` against loops over examples in plain Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unrote.errors import DataError
from unrote.supervision import Supervision, SupervisionBatch, take_examples


def cross_entropy_by_hand(logits: list[float], target: int) -> float:
    top = max(logits)
    return top + math.log(sum(math.exp(z - top) for z in logits)) - logits[target]


def loss_by_loops(
    logits: list[list[float]],
    target: list[int],
    weight: list[float],
    shift: list[list[float]],
    balanced: bool,
) -> float:
    """The loss of one member on one minibatch."""
    losses = [
        cross_entropy_by_hand([z + b for z, b in zip(row, extra, strict=True)], c)
        for row, c, extra in zip(logits, target, shift, strict=True)
    ]
    loss = 0.0
    for one_class in sorted(set(target)) if balanced else [None]:
        rows = [i for i, c in enumerate(target) if one_class in (c, None)]
        total = sum(weight[i] for i in rows)
        if total:
            loss += sum(weight[i] * losses[i] for i in rows) / total
    return loss


@st.composite
def supervised_batches(draw: st.DrawFn) -> tuple[Supervision, Tensor, Tensor]:
    """A supervision whose parts are absent, shared or per member; a minibatch's index; its logits (S, B, C)."""
    members, n, n_classes = draw(st.integers(1, 3)), draw(st.integers(2, 7)), draw(st.integers(2, 4))
    size = draw(st.integers(1, n))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def leading(shared: bool) -> tuple[int, ...]:
        return () if shared else (members,)

    target = torch.randint(n_classes, (*leading(draw(st.booleans())), n), generator=random)
    weight = shift = None
    if draw(st.booleans()):
        weight = torch.rand(*leading(draw(st.booleans())), n, generator=random, dtype=torch.float64)
        weight[torch.rand(weight.shape, generator=random) < 0.4] = 0.0
    if draw(st.booleans()):
        kind = leading(draw(st.booleans()))
        shift = 3 * torch.randn(*kind, n, n_classes, generator=random, dtype=torch.float64)
    orders = [torch.randperm(n, generator=random)[:size] for _ in range(members)]
    index = torch.stack(orders) if draw(st.booleans()) else orders[0]
    reduction = draw(st.sampled_from(["mean", "class_balanced"]))
    logits = 5 * torch.randn(members, size, n_classes, generator=random, dtype=torch.float64)
    return Supervision(target, weight, shift, reduction), index, logits


class TestLoss:
    @given(supervised_batches())
    def test_is_what_loops_give(self, drawn: tuple[Supervision, Tensor, Tensor]) -> None:
        supervision, index, logits = drawn
        wanted = []
        for member, values in enumerate(logits.tolist()):
            rows = (index[member] if index.ndim == 2 else index).tolist()
            target, weight, shift = (
                value if value is None or value.ndim == plain else value[member]
                for value, plain in ((supervision.target, 1), (supervision.weight, 1), (supervision.shift, 2))
            )
            weights = [1.0 if weight is None else float(weight[i]) for i in rows]
            shifts = [[0.0] * len(values[0]) if shift is None else shift[i].tolist() for i in rows]
            labels = [int(target[i]) for i in rows]
            balanced = supervision.reduction == "class_balanced"
            wanted.append(loss_by_loops(values, labels, weights, shifts, balanced))
        np.testing.assert_allclose(supervision.batch(index).loss(logits), wanted, rtol=1e-12, atol=1e-12)

    def test_class_balanced_mean_of_each_class_then_sum(self) -> None:
        # logits (0, log 3) give class 0 a loss of log 4 and class 1 a loss of log 4/3
        logits = torch.tensor([0.0, math.log(3)], dtype=torch.float64).expand(1, 4, 2)
        batch = Supervision(torch.tensor([0, 1, 1, 1]), reduction="class_balanced").batch(torch.arange(4))
        assert float(batch.loss(logits)) == pytest.approx(math.log(4) + math.log(4 / 3), rel=1e-12)

    @pytest.mark.parametrize("reduction", ["mean", "class_balanced"])
    def test_class_absent_from_the_minibatch_adds_nothing(self, reduction: str) -> None:
        logits = torch.randn(1, 3, 5, dtype=torch.float64)
        target = torch.tensor([1, 1, 3])
        batch = Supervision(target, reduction=reduction).batch(torch.arange(3))  # type: ignore[arg-type]
        values = logits[0].tolist()
        losses = [cross_entropy_by_hand(row, c) for row, c in zip(values, target.tolist(), strict=True)]
        mean = sum(losses) / 3
        balanced = (losses[0] + losses[1]) / 2 + losses[2]
        assert float(batch.loss(logits)) == pytest.approx(
            mean if reduction == "mean" else balanced, rel=1e-12
        )

    @pytest.mark.parametrize("reduction", ["mean", "class_balanced"])
    def test_member_without_examples_has_loss_and_gradient_zero(self, reduction: str) -> None:
        logits = torch.randn(2, 4, 3, requires_grad=True)
        weight = torch.tensor([[0.0, 0, 0, 0], [1, 0, 2, 1]])
        supervision = Supervision(torch.tensor([0, 1, 2, 0]), weight, reduction=reduction)  # type: ignore[arg-type]
        losses = supervision.batch(torch.arange(4)).loss(logits)
        losses.sum().backward()
        assert losses[0] == 0.0
        assert losses[1] > 0.0
        assert logits.grad is not None
        assert torch.equal(logits.grad[0], torch.zeros(4, 3))
        assert bool((logits.grad[1].abs().sum(1) > 0).equal(weight[1] > 0))

    @pytest.mark.parametrize("reduction", ["mean", "class_balanced"])
    @pytest.mark.parametrize("shifted", [False, True])
    @pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 3e38])
    def test_logits_of_weight_zero_reach_neither_loss_nor_gradient(
        self, reduction: str, shifted: bool, poison: float
    ) -> None:
        clean = torch.randn(2, 5, 3)
        weight = torch.tensor([[1.0, 0, 2, 0, 1], [0, 3, 0, 1, 1]])
        poisoned = torch.where((weight == 0).unsqueeze(-1), poison, clean).requires_grad_()
        clean.requires_grad_()
        shift = torch.randn(5, 3) if shifted else None
        supervision = Supervision(torch.tensor([0, 1, 2, 0, 2]), weight, shift, reduction)  # type: ignore[arg-type]
        batch = supervision.batch(torch.arange(5))
        for logits in (clean, poisoned):
            batch.loss(logits).sum().backward()
        assert torch.equal(batch.loss(poisoned), batch.loss(clean))
        assert clean.grad is not None
        assert poisoned.grad is not None
        assert torch.equal(poisoned.grad, clean.grad)
        assert bool((poisoned.grad[weight == 0] == 0).all())

    def test_scale_of_the_weights_does_not_matter(self) -> None:
        logits, target = torch.randn(1, 6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
        weight = torch.rand(6, dtype=torch.float64)
        losses = [
            Supervision(target, factor * weight).batch(torch.arange(6)).loss(logits)
            for factor in (1.0, 1e-6, 1e6)
        ]
        torch.testing.assert_close(losses[1], losses[0])
        torch.testing.assert_close(losses[2], losses[0])

    def test_shift_is_added_before_the_softmax(self) -> None:
        # equal logits and the shift (log 1/4, log 3/4) say class 0 with probability 1/4
        shift = torch.tensor([[0.25, 0.75]]).log()
        loss = Supervision(torch.tensor([0]), shift=shift).batch(torch.tensor([0])).loss(torch.zeros(1, 1, 2))
        assert float(loss) == pytest.approx(math.log(4))


class TestTakeExamples:
    @pytest.mark.parametrize("member_dim", [False, True])
    @pytest.mark.parametrize("own_minibatches", [False, True])
    def test_is_indexing_by_loops(self, member_dim: bool, own_minibatches: bool) -> None:
        values = torch.arange(3 * 5 * 2).view(3, 5, 2) if member_dim else torch.arange(5 * 2).view(5, 2)
        index = torch.tensor([[4, 0], [1, 1], [2, 3]]) if own_minibatches else torch.tensor([4, 0])
        found = take_examples(values, index, member_dim)
        for member in range(3 if member_dim or own_minibatches else 1):
            for place in range(2):
                row = int(index[member, place] if own_minibatches else index[place])
                wanted = values[member, row] if member_dim else values[row]
                assert torch.equal(found[member, place], wanted)

    def test_shared_rows_are_held_once(self) -> None:
        assert take_examples(torch.zeros(5, 2), torch.tensor([0, 1, 2]), False).shape == (1, 3, 2)


class TestStack:
    def test_each_item_is_a_member(self) -> None:
        weight, shift = torch.tensor([1.0, 0, 2]), torch.randn(3, 2)
        y, z = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1])
        items = [Supervision(y, weight), Supervision(z, shift=shift), Supervision(y)]
        index, logits = torch.tensor([2, 0, 1]), torch.randn(3, 3, 2)
        together = Supervision.stack(items).batch(index).loss(logits)
        alone = [item.batch(index).loss(logits[k : k + 1]) for k, item in enumerate(items)]
        torch.testing.assert_close(together, torch.cat(alone))

    def test_what_all_share_is_held_once(self) -> None:
        y, weights = torch.tensor([0, 1, 1]), torch.eye(3)
        stacked = Supervision.stack([Supervision(y, weight) for weight in weights])
        assert stacked.target is y
        assert stacked.shift is None
        assert stacked.weight is not None
        assert torch.equal(stacked.weight, weights)

    def test_reductions_cannot_be_mixed(self) -> None:
        y = torch.tensor([0, 1])
        with pytest.raises(DataError, match="reduction"):
            Supervision.stack([Supervision(y), Supervision(y, reduction="class_balanced")])


class TestRefuses:
    y = torch.tensor([0, 1, 1])

    @pytest.mark.parametrize("value", [-1.0, math.nan])
    def test_weights_below_zero(self, value: float) -> None:
        with pytest.raises(DataError, match="at least 0, finite and not NaN"):
            Supervision(self.y, weight=torch.tensor([1.0, value, 1.0]))

    @pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
    def test_shift_that_is_not_finite(self, value: float) -> None:
        with pytest.raises(DataError, match="NaN or infinity"):
            Supervision(self.y, shift=torch.tensor([[0.0, 0], [0, value], [0, 0]]))

    def test_infinite_weights(self) -> None:
        with pytest.raises(DataError, match="weights must be"):
            Supervision(self.y, weight=torch.tensor([1.0, math.inf, 1.0]))

    @pytest.mark.parametrize("shape", [(4,), (2, 4)])
    def test_weight_of_another_length(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match="weight has 4 examples, the target 3"):
            Supervision(self.y, weight=torch.ones(shape))

    @pytest.mark.parametrize("shape", [(4, 2), (2, 4, 2)])
    def test_shift_of_another_length(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match="shift has 4 examples, the target 3"):
            Supervision(self.y, shift=torch.zeros(shape))


def test_batch_keeps_the_reduction() -> None:
    batch = Supervision(torch.tensor([0, 1]), reduction="class_balanced").batch(torch.tensor([0]))
    assert isinstance(batch, SupervisionBatch)
    assert batch.reduction == "class_balanced"
