"""XRM's twins: flips against their formula, the loss against loops, and what makes held-out logits held out."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import assert_same_bits, clusters, planted_task

from unrote.checkpoint import Checkpoints
from unrote.errors import DataError
from unrote.heldout import HeldOut, XRMResult, xrm
from unrote.heldout.xrm import TwinObjective
from unrote.models import ModuleStack, Stack, StackedLinear
from unrote.training import Batch, Recipe

N, FEATURES, CLASSES = 45, 4, 3
X, Y = clusters(N, CLASSES, FEATURES, seed=1)
RECIPE = Recipe("sgd", 0.1, batch_size=7, epochs=4)


def build(seeds: Any) -> Stack:
    return StackedLinear(FEATURES, CLASSES, seeds, dtype=torch.float64)


class _Table(nn.Module):
    """Gives the logits it is shown: x is (B, S, C), one row of logits for each member."""

    def __init__(self) -> None:
        super().__init__()
        self.member, self.offset = 0, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.member] + self.offset


def table_stack(n_members: int, n_classes: int) -> ModuleStack:
    stack = ModuleStack(_Table, n_classes, range(n_members))
    for k, member in enumerate(stack.members):
        member.member = k  # type: ignore[assignment]
    return stack


def flip(logits: Tensor, y: Tensor, assigned: Tensor, seed: int = 0, epoch: int = 0) -> Tensor:
    """The labels (n,) after one look at all examples; `logits` (n, 2, C) are those of the two twins."""
    objective = TwinObjective(y, assigned.unsqueeze(0), logits.shape[-1], [seed])
    batch = Batch(torch.arange(len(y)), logits, step=0, epoch=epoch)
    objective.loss(table_stack(2, logits.shape[-1]), batch)
    return objective.labels[0]


class TestFlips:
    n = 20_000

    @pytest.mark.parametrize("n_classes", [2, 3, 5])
    @pytest.mark.parametrize("confidence", [0.55, 0.7, 0.9, 0.99])
    def test_come_with_the_probability_of_the_formula(self, n_classes: int, confidence: float) -> None:
        """A share of 20,000 examples, within 4 standard deviations; the others keep their label."""
        rest = (1 - confidence) / (n_classes - 1)
        p = torch.full((n_classes,), rest)
        p[1] = confidence
        logits = p.log().expand(self.n, 2, n_classes)
        y, assigned = torch.zeros(self.n, dtype=torch.long), torch.rand(self.n) < 0.5
        labels = flip(logits, y, assigned)
        wanted = (confidence - 1 / n_classes) * n_classes / (n_classes - 1)
        deviation = math.sqrt(wanted * (1 - wanted) / self.n)
        assert abs((labels == 1).double().mean().item() - wanted) < 4 * deviation
        assert bool(((labels == 0) | (labels == 1)).all())

    def test_come_as_often_from_fewer_looks(self) -> None:
        """One look in three steps flips with the chance of three looks."""
        logits = torch.tensor([0.3, 0.7]).log().expand(self.n, 2, 2)
        y, assigned = torch.zeros(self.n, dtype=torch.long), torch.rand(self.n) < 0.5
        objective, stack = TwinObjective(y, assigned.unsqueeze(0), 2, [0], look_every=3), table_stack(2, 2)
        for step in (1, 2):
            objective.loss(stack, Batch(torch.arange(self.n), logits, step, epoch=0))
        assert torch.equal(objective.labels[0], y)
        objective.loss(stack, Batch(torch.arange(self.n), logits, 3, epoch=0))
        wanted = 1 - (1 - 0.4) ** 3
        deviation = math.sqrt(wanted * (1 - wanted) / self.n)
        assert abs(objective.labels[0].double().mean().item() - wanted) < 4 * deviation

    def test_never_come_from_a_twin_that_knows_nothing(self) -> None:
        logits, y = torch.zeros(self.n, 2, 3), torch.randint(3, (self.n,))
        assert torch.equal(flip(logits, y, torch.rand(self.n) < 0.5), y)

    def test_always_come_from_a_twin_that_is_certain(self) -> None:
        logits, y = torch.zeros(self.n, 2, 3), torch.randint(3, (self.n,))
        logits[..., 2] = 1000.0
        assert bool((flip(logits, y, torch.rand(self.n) < 0.5) == 2).all())

    def test_come_from_the_twin_that_did_not_train_on_the_example(self) -> None:
        """The first twin is certain of class 1, the second of class 2: the examples of each go to the other's."""
        logits, y = torch.zeros(100, 2, 3), torch.zeros(100, dtype=torch.long)
        logits[:, 0, 1] = logits[:, 1, 2] = 1000.0
        first = torch.arange(100) % 3 == 0
        assert torch.equal(flip(logits, y, assigned=first), torch.where(first, 2, 1))

    def test_never_come_from_the_twin_that_trains_on_the_example(self) -> None:
        logits, y = torch.zeros(100, 2, 2), torch.zeros(100, dtype=torch.long)
        logits[:, 0, 1] = 1000.0  # only the first twin would flip
        first = torch.arange(100) % 3 == 0
        assert torch.equal(flip(logits, y, assigned=first), torch.where(first, 0, 1))

    def test_of_a_diverged_twin_change_nothing(self) -> None:
        logits, y = torch.full((50, 2, 3), math.nan), torch.randint(3, (50,))
        assert torch.equal(flip(logits, y, torch.rand(50) < 0.5), y)

    def test_are_drawn_anew_each_epoch_and_for_each_seed(self) -> None:
        logits = torch.tensor([0.25, 0.75]).log().expand(400, 2, 2)
        y, assigned = torch.zeros(400, dtype=torch.long), torch.rand(400) < 0.5
        drawn = [flip(logits, y, assigned, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
        for k, labels in enumerate(drawn):
            for other in drawn[:k]:
                # independent draws of 1/2 agree on half the examples
                assert abs(int((labels == other).sum()) - 200) < 4 * math.sqrt(400 / 4)

    def test_do_not_depend_on_the_order_of_the_minibatches(self) -> None:
        random = torch.Generator().manual_seed(0)
        logits = torch.randn(60, 2, 3, generator=random)
        y, assigned = torch.randint(3, (60,), generator=random), torch.rand(60, generator=random) < 0.5
        wanted = flip(logits, y, assigned)
        objective, stack = TwinObjective(y, assigned.unsqueeze(0), 3, [0]), table_stack(2, 3)
        for step, index in enumerate(torch.randperm(60, generator=random).split(7)):
            objective.loss(stack, Batch(index, logits[index], step, epoch=0))
        assert torch.equal(objective.labels[0], wanted)

    def test_leave_the_stack_in_training_mode(self) -> None:
        stack = table_stack(2, 3).train()
        objective = TwinObjective(Y, torch.ones(1, N, dtype=torch.bool), 3, [0])
        objective.loss(stack, Batch(torch.arange(N), torch.zeros(N, 2, 3), 0, 0))
        assert stack.training


def test_loss_is_class_balanced_on_current_labels_and_own_examples() -> None:
    """Two pairs with labels of their own, against loops: mean per class present, summed over classes."""
    random = torch.Generator().manual_seed(0)
    n, members = 30, 4
    logits = torch.randn(n, members, CLASSES, generator=random, dtype=torch.float64)
    y = torch.randint(CLASSES, (n,), generator=random)
    assigned = torch.rand(2, n, generator=random) < 0.5
    objective = TwinObjective(y, assigned, CLASSES, [0, 1])
    objective.supervision.target[:] = torch.randint(CLASSES, (2, n), generator=random).repeat_interleave(
        2, dim=0
    )
    labels = objective.labels.clone()  # before they flip
    index = torch.randperm(n, generator=random)[:11]
    found = objective.loss(table_stack(members, CLASSES), Batch(index, logits[index], 0, 0))
    for member in range(members):
        pair, first = member // 2, member % 2 == 0
        wanted = 0.0
        for label in range(CLASSES):
            own = [i for i in index.tolist() if bool(assigned[pair, i]) == first]
            rows = [i for i in own if int(labels[pair, i]) == label]
            losses = [-float(logits[i, member].log_softmax(0)[label]) for i in rows]
            wanted += sum(losses) / len(losses) if losses else 0.0
        assert found[member].item() == pytest.approx(wanted, rel=1e-12)


class _Tagged(nn.Module):
    """A linear model on all columns but the first, the example's number; remembers whom it trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)
        self.seen: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.update(x[:, 0].long().tolist())
        return self.head(x[:, 1:])  # type: ignore[no-any-return]


def test_each_twin_trains_on_exactly_what_is_assigned_to_it() -> None:
    tagged = torch.cat([torch.arange(float(N)).unsqueeze(1), X], dim=1)
    result = xrm(
        tagged,
        Y,
        lambda seeds: ModuleStack(_Tagged, CLASSES, seeds),
        RECIPE,
        n_classes=CLASSES,
        seeds=(0, 1),
    )
    for pair in range(2):
        held_out = result.held_out(pair)
        for twin in range(2):
            member = result.stack.get_submodule(f"members.{2 * pair + twin}")
            assert held_out.trained_on is not None
            assert member.seen == set(held_out.trained_on[twin].nonzero().squeeze(1).tolist())  # type: ignore[comparison-overlap]
    assert not torch.equal(result.assigned[0], result.assigned[1])


class TestHeldOutLogits:
    result = xrm(X, Y, build, RECIPE, n_classes=CLASSES, seeds=(0, 1))

    def test_are_those_of_the_twin_that_did_not_train_on_the_example(self) -> None:
        for pair in range(2):
            for i in range(N):
                twin = 2 * pair + int(self.result.assigned[pair, i])
                weight = self.result.stack.get_parameter("weight")[twin]
                bias = self.result.stack.get_parameter("bias")[twin]
                torch.testing.assert_close(self.result.logits[pair, i], weight @ X[i].double() + bias)

    @pytest.mark.parametrize("batch_size", [1, 8, 1000])
    def test_do_not_depend_on_the_order_in_which_examples_are_asked(self, batch_size: int) -> None:
        order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
        logits = self.result.stack.predict(X[order], batch_size=batch_size)
        for place, i in enumerate(order.tolist()):
            twin = int(self.result.assigned[0, i])
            torch.testing.assert_close(logits[twin, place], self.result.logits[0, i])

    def test_come_in_the_order_of_the_examples_whatever_the_order_of_training(self) -> None:
        """Full-batch training knows no order: examples in another order get the same logits, once the coin
        and the flips are the same; here nothing flips, as the twins start and stay at 0."""
        still = Recipe("sgd", 0.0, batch_size=None, steps=1)
        result = xrm(X, Y, lambda s: StackedLinear(FEATURES, CLASSES, s), still, n_classes=CLASSES)
        start = StackedLinear(FEATURES, CLASSES, result.stack.seeds).predict(X)
        for i in range(N):
            torch.testing.assert_close(result.logits[0, i], start[int(result.assigned[0, i]), i])

    def test_prove_that_they_are_held_out(self) -> None:
        held_out = self.result.held_out(1)
        assert held_out.trained_on is not None
        assert held_out.predicted_by is not None
        assert torch.equal(held_out.trained_on[0], self.result.assigned[1])
        assert torch.equal(held_out.trained_on[1], ~self.result.assigned[1])
        with pytest.raises(DataError, match="trained on them"):
            HeldOut(held_out.logits, held_out.trained_on, 1 - held_out.predicted_by)


def test_inferred_groups_are_where_either_twin_is_wrong() -> None:
    result = xrm(X, Y, build, RECIPE, n_classes=CLASSES, seeds=(0, 1), validation=(X[:9] + 1, Y[:9]))
    assert result.validation_mistakes is not None
    for x, y, found in ((X, Y, result.mistakes), (X[:9] + 1, Y[:9], result.validation_mistakes)):
        said = result.stack.predict(x).argmax(-1).tolist()
        for pair in range(2):
            for i, label in enumerate(y.tolist()):
                wrong = said[2 * pair][i] != label or said[2 * pair + 1][i] != label
                assert int(found[pair, i]) == int(wrong)
        assert 0 < int(found.sum()) < found.numel()  # else this would show little


class TestDegenerate:
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    labels = torch.tensor([[0, 1, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]])
    # the second pair has class 1 without a mistake, the third class 0 with nothing else
    mistakes = torch.tensor([[0, 1, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 1], [1, 1, 0, 0, 1, 1]])

    def result(self, **rest: Any) -> XRMResult:
        return XRMResult(
            logits=torch.zeros(4, 6, 2),
            assigned=torch.ones(4, 6, dtype=torch.bool),
            labels=self.labels,
            y=self.y,
            mistakes=self.mistakes,
            validation_mistakes=rest.get("validation_mistakes"),
            validation_y=rest.get("validation_y"),
            trained=build([0]),
        )

    def test_on_training_examples(self) -> None:
        result = self.result()
        assert result.degenerate.tolist() == [False, True, True, False]
        torch.testing.assert_close(result.flip_rate, torch.tensor([1 / 6, 0.0, 0.0, 1 / 6]))
        assert result.best == 0

    def test_on_validation_examples(self) -> None:
        validation = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]])
        result = self.result(validation_mistakes=validation, validation_y=torch.tensor([0, 0, 1]))
        assert result.degenerate.tolist() == [True, True, True, True]
        validation = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1]])
        result = self.result(validation_mistakes=validation, validation_y=torch.tensor([0, 0, 1, 1]))
        assert result.degenerate.tolist() == [True, True, True, False]
        torch.testing.assert_close(result.flip_rate, torch.tensor([0.0, 0.0, 0.0, 1 / 6]))
        assert result.best == 3

    def test_run_on_data_without_exceptions(self) -> None:
        x, y = clusters(60, 2, FEATURES, seed=4, distance=20.0)
        recipe = Recipe("sgd", 0.1, batch_size=10, epochs=10)
        result = xrm(x, y, lambda s: StackedLinear(FEATURES, 2, s), recipe, n_classes=2)
        assert result.mistakes.sum() == 0
        assert bool(result.degenerate.all())
        assert result.flip_rate.tolist() == [0.0]

    def test_best_pair_has_the_largest_flip_rate(self) -> None:
        x, y = clusters(90, CLASSES, FEATURES, seed=1, distance=0.5)
        result = xrm(x, y, build, RECIPE, n_classes=CLASSES, seeds=range(4))
        shares = [float((labels != y).double().mean()) for labels in result.labels]
        assert not bool(result.degenerate.any())
        assert shares[result.best] == max(shares) > min(shares)
        assert torch.equal(result.held_out().logits, result.logits[result.best])


class TestStackOfPairs:
    SEEDS = (5, 6, 7)
    RATES = (0.05, 0.1, 0.2)

    def agree(self, together: XRMResult, pair: int, alone: XRMResult) -> None:
        assert torch.equal(together.assigned[pair], alone.assigned[0])
        assert torch.equal(together.labels[pair], alone.labels[0])
        assert torch.equal(together.mistakes[pair], alone.mistakes[0])
        torch.testing.assert_close(together.logits[pair], alone.logits[0], rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("alone_own_order", [False, True])
    def test_with_orders_of_their_own_equals_each_pair_alone(self, alone_own_order: bool) -> None:
        recipe = Recipe("adam", self.RATES, (0.0, 0.1, 0.0), batch_size=7, epochs=4)
        together = xrm(X, Y, build, recipe, n_classes=CLASSES, seeds=self.SEEDS, own_order=True)
        for pair, seed in enumerate(self.SEEDS):
            recipe = Recipe("adam", self.RATES[pair], (0.0, 0.1, 0.0)[pair], batch_size=7, epochs=4)
            options: dict[str, Any] = {"seeds": [seed], "own_order": alone_own_order}
            self.agree(together, pair, xrm(X, Y, build, recipe, n_classes=CLASSES, **options))
        assert len({tuple(labels.tolist()) for labels in together.labels}) == 3

    def test_of_modules_with_dropout_equals_each_pair_alone(self) -> None:
        def factory() -> nn.Module:
            return nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES)).double()

        def modules(seeds: Any) -> Stack:
            return ModuleStack(factory, CLASSES, seeds)

        x, recipe = X.double(), Recipe("sgd", 0.01, batch_size=7, epochs=4)
        together = xrm(x, Y, modules, recipe, n_classes=CLASSES, seeds=self.SEEDS, own_order=True)
        for pair, seed in enumerate(self.SEEDS):
            self.agree(together, pair, xrm(x, Y, modules, recipe, n_classes=CLASSES, seeds=[seed]))

    def test_with_a_shared_order_has_the_order_of_the_first(self) -> None:
        together = xrm(X, Y, build, RECIPE, n_classes=CLASSES, seeds=self.SEEDS)
        self.agree(together, 0, xrm(X, Y, build, RECIPE, n_classes=CLASSES, seeds=self.SEEDS[:1]))


class TestRun:
    def test_finds_the_exceptions_to_a_shortcut(self) -> None:
        """Labels flip where the attribute contradicts the class, and hardly elsewhere."""
        task = planted_task(400)
        exception = task.train.attribute != task.train.y
        recipe = Recipe("sgd", 0.05, batch_size=32, epochs=20)
        result = xrm(task.train.x, task.train.y, lambda s: StackedLinear(8, 2, s), recipe, n_classes=2)
        flipped = (result.labels[0] != task.train.y).float()
        assert float(flipped[exception].mean()) > 0.8
        assert float(flipped[~exception].mean()) < 0.02
        inferred = result.mistakes[0].float()
        assert float(inferred[exception].mean()) > 0.8
        assert float(inferred[~exception].mean()) < 0.05

    def test_repeats_bit_for_bit(self) -> None:
        before = torch.get_rng_state()
        one, other = (xrm(X, Y, build, RECIPE, n_classes=CLASSES, seeds=[3]) for _ in range(2))
        assert_same_bits(one.stack.state_dict(), other.stack.state_dict())
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(torch.get_rng_state(), before)
        another = xrm(X, Y, build, RECIPE, n_classes=CLASSES, seeds=[4])
        assert not torch.equal(another.assigned, one.assigned)

    def test_coin_is_fair_and_not_bound_to_the_label(self) -> None:
        """Each of the 4 cells of coin and class holds a quarter, within 4 standard deviations."""
        n = 4000
        y = torch.arange(n) % 2
        recipe = Recipe("sgd", 0.0, batch_size=None, steps=1)
        result = xrm(torch.zeros(n, 1), y, lambda s: StackedLinear(1, 2, s), recipe, n_classes=2)
        for label in range(2):
            share = int((result.assigned[0] & (y == label)).sum())
            assert abs(share - n / 4) < 4 * math.sqrt(n / 2 / 4)

    def test_labels_go_through_checkpoints(self, tmp_path: Any) -> None:
        for steps in (9, 20):
            recipe = Recipe("sgd", 0.1, batch_size=7, steps=steps)
            broken = xrm(
                X, Y, build, recipe, n_classes=CLASSES, checkpoints=Checkpoints(tmp_path, {}, every=4)
            )
        unbroken = xrm(X, Y, build, recipe, n_classes=CLASSES)
        assert torch.equal(broken.labels, unbroken.labels)
        assert torch.equal(broken.logits, unbroken.logits)
        assert not torch.equal(unbroken.labels[0], Y)


@pytest.mark.usefixtures("shapes_unchecked")
class TestRefuses:
    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (Y[:-1], "44 labels for 45 examples"),
            (torch.cat([Y, Y]), "90 labels for 45 examples"),
            (Y + 1, "labels run from 1 to 3"),
            (Y - 1, "labels run from -1 to 1"),
        ],
        ids=["too few", "too many", "too large", "negative"],
    )
    def test_labels(self, tmp_path: Any, y: Tensor, message: str) -> None:
        checkpoints = Checkpoints(tmp_path / "c", {})
        with pytest.raises(DataError, match=message):
            xrm(X, y, build, RECIPE, n_classes=CLASSES, checkpoints=checkpoints)
        assert not (tmp_path / "c").exists()

    @pytest.mark.parametrize("y", [Y[:8], Y[:10], Y[:9] + 1], ids=["too few", "too many", "too large"])
    def test_validation_labels_before_training(self, tmp_path: Any, y: Tensor) -> None:
        checkpoints = Checkpoints(tmp_path / "c", {})
        with pytest.raises(DataError, match=r"validation: .*labels"):
            xrm(X, Y, build, RECIPE, n_classes=CLASSES, validation=(X[:9], y), checkpoints=checkpoints)
        assert not (tmp_path / "c").exists()

    def test_another_number_of_classes_than_the_stack(self) -> None:
        with pytest.raises(DataError, match="n_classes=4, the stack has 3"):
            xrm(X, Y, build, RECIPE, n_classes=4)
