"""The training loop: repeatable to the bit, steps and epochs as asked, members that do not disturb each other."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from toys import assert_same_bits, clusters, differ

from unrote.data import DatasetInputs
from unrote.errors import DataError, DivergedError, OptionError
from unrote.models import ModuleStack, Stack, StackedLinear, StackedMLP
from unrote.supervision import Supervision
from unrote.training import Batch, EarlyStopping, Objective, Order, Recipe, Supervised, TrainingResult, train
from unrote.training.loop import _load_moments, _moments

N, FEATURES, CLASSES = 23, 4, 3
X, Y = clusters(N, CLASSES, FEATURES, seed=1)
RECIPE = Recipe("sgd", 0.1, batch_size=5, epochs=2)


def small_stack(members: int = 2) -> StackedLinear:
    return StackedLinear(FEATURES, CLASSES, range(members))


def supervised(y: Tensor = Y, **rest: Any) -> Supervised:
    return Supervised(Supervision(y, **rest))


class Recorded(Supervised):
    """An ordinary objective that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(Supervision(Y))
        self.batches: list[Batch] = []
        self.losses: list[Tensor] = []
        self.followed: list[int] = []

    def loss(self, stack: Stack, batch: Batch) -> Tensor:
        assert stack.training
        assert stack.step == batch.step
        losses = super().loss(stack, batch)
        self.batches.append(batch)
        self.losses.append(losses.detach())
        return losses

    def after_step(self, stack: Stack, batch: Batch) -> None:
        self.followed.append(batch.step)


def loss_of(stack: Stack) -> dict[str, Tensor]:
    """The mean training loss of every member, by torch."""
    logits = stack.predict(X)
    return {"fit": torch.stack([F.cross_entropy(member, Y) for member in logits])}


class TestRepeats:
    @pytest.mark.parametrize("kind", [StackedLinear, StackedMLP])
    @pytest.mark.parametrize("seed", [3, (3, 4)])
    def test_the_same_seed_gives_the_same_bits(self, kind: Any, seed: int | tuple[int, int]) -> None:
        states = []
        for _ in range(2):
            stack = kind(FEATURES, CLASSES, (0, 1))
            train(stack, X, supervised(), RECIPE, seed=seed)
            states.append(stack.state_dict())
        assert_same_bits(*states)

    def test_another_seed_gives_other_parameters(self) -> None:
        states = []
        for seed in (3, 4):
            stack = small_stack()
            train(stack, X, supervised(), RECIPE, seed=seed)
            states.append(stack.state_dict())
        assert differ(*states)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_global_random_state_is_untouched(self, workers: int) -> None:
        before = torch.get_rng_state()
        train(small_stack(), DatasetInputs(_Rows(), workers), supervised(), RECIPE)
        assert torch.equal(torch.get_rng_state(), before)

    def test_evaluation_does_not_change_training(self) -> None:
        plain, watched = small_stack(), small_stack()
        train(plain, X, supervised(), RECIPE)
        train(watched, X, supervised(), RECIPE, evaluate=loss_of, evaluate_every=1)
        assert_same_bits(watched.state_dict(), plain.state_dict())

    def test_evaluation_that_leaves_the_stack_in_evaluation_mode(self) -> None:
        def evaluate(stack: Stack) -> dict[str, Tensor]:
            stack.eval()
            return {}

        objective = Recorded()  # which looks whether the stack is in training mode
        train(small_stack(), X, objective, RECIPE, evaluate=evaluate, evaluate_every=1)
        assert len(objective.batches) == 10


class TestSteps:
    def run(self, recipe: Recipe, **options: Any) -> Recorded:
        objective = Recorded()
        train(small_stack(), X, objective, recipe, **options)
        return objective

    @pytest.mark.parametrize("recipe", [Recipe(batch_size=5, epochs=3), Recipe(batch_size=5, steps=15)])
    def test_epochs_are_as_many_steps(self, recipe: Recipe) -> None:
        batches = self.run(recipe).batches
        assert [batch.step for batch in batches] == list(range(15))
        assert [batch.epoch for batch in batches] == [0] * 5 + [1] * 5 + [2] * 5

    def test_steps_may_end_within_an_epoch(self) -> None:
        objective = self.run(Recipe(batch_size=5, steps=7))
        assert len(objective.batches) == 7
        assert objective.followed == list(range(7))

    def test_last_minibatch_is_what_is_left(self) -> None:
        sizes = [len(batch.index) for batch in self.run(Recipe(batch_size=5, epochs=2)).batches]
        assert sizes == [5, 5, 5, 5, 3] * 2

    def test_minibatches_larger_than_the_data(self) -> None:
        assert [len(batch.index) for batch in self.run(Recipe(batch_size=99, epochs=2)).batches] == [N, N]

    def test_full_batch(self) -> None:
        for batch in self.run(Recipe(batch_size=None, steps=3)).batches:
            assert torch.equal(batch.index, torch.arange(N))
            assert torch.equal(batch.x, X)

    def test_examples_are_those_of_the_index(self) -> None:
        for seed in (3, (3, 4)):
            for batch in self.run(RECIPE, seed=seed).batches:
                assert batch.per_member == (seed != 3)
                assert torch.equal(batch.x, X[batch.index])

    def test_sampling_is_with_replacement_in_proportion(self) -> None:
        """Against counts of 40 epochs; 4 standard deviations."""
        weights = torch.arange(N).float()
        objective = self.run(Recipe(batch_size=5, epochs=40), sampling=weights)
        counts = torch.bincount(torch.cat([batch.index for batch in objective.batches]), minlength=N)
        share = weights / weights.sum()
        assert int(counts.sum()) == 40 * N
        assert int(counts[0]) == 0
        assert bool(
            ((counts - 40 * N * share).abs() <= 4 * (40 * N * share * (1 - share)).sqrt() + 1e-9).all()
        )


def test_a_step_is_one_step_down_the_mean_loss() -> None:
    """One full-batch step against torch's own gradient."""
    stack = StackedLinear(FEATURES, CLASSES, (0, 1), dtype=torch.float64)
    assert stack.bias is not None
    before = [(stack.weight[m].detach().clone(), stack.bias[m].detach().clone()) for m in range(2)]
    train(stack, X.double(), supervised(), Recipe("sgd", 0.3, batch_size=None, steps=1))
    for member, (weight, bias) in enumerate(before):
        weight.requires_grad_()
        bias.requires_grad_()
        F.cross_entropy(X.double() @ weight.T + bias, Y).backward()
        assert weight.grad is not None
        assert bias.grad is not None
        torch.testing.assert_close(stack.weight[member], weight - 0.3 * weight.grad)
        torch.testing.assert_close(stack.bias[member], bias - 0.3 * bias.grad)


class TestHistory:
    def test_has_a_record_per_evaluation(self) -> None:
        objective, seen = Recorded(), []

        def evaluate(stack: Stack) -> Mapping[str, Tensor]:
            seen.append(loss_of(stack)["fit"].tolist())
            return loss_of(stack)

        recipe = Recipe("sgd", 0.1, batch_size=5, steps=11)
        result = train(small_stack(), X, objective, recipe, evaluate=evaluate, evaluate_every=4)
        assert [record["step"] for record in result.history] == [4, 8, 11]
        assert [record["epoch"] for record in result.history] == [0, 1, 2]
        assert [record["fit"] for record in result.history] == seen
        parts = [objective.losses[:4], objective.losses[4:8], objective.losses[8:]]
        for record, part in zip(result.history, parts, strict=True):
            torch.testing.assert_close(torch.tensor(record["loss"]), torch.stack(part).mean(0))

    def test_is_kept_once_an_epoch_by_default(self) -> None:
        result = train(small_stack(), X, supervised(), RECIPE)
        assert [(record["step"], record["epoch"]) for record in result.history] == [(5, 0), (10, 1)]
        assert set(result.history[0]) == {"step", "epoch", "loss"}
        assert result.best_step.tolist() == [10, 10]
        assert result.diverged_at.tolist() == [-1, -1]
        assert not result.stack.training

    def test_says_that_training_helps(self) -> None:
        recipe = Recipe("adam", 0.05, batch_size=5, epochs=20)
        history = train(small_stack(), X, supervised(), recipe).history
        assert all(
            last < 0.7 * first for first, last in zip(*(history[k]["loss"] for k in (0, -1)), strict=True)
        )


class TestEarlyStopping:
    scores = torch.tensor(
        [[0.2, 0.5, 0.1], [0.6, 0.4, 0.1], [0.5, 0.3, 0.7], [0.4, 0.2, 0.6], [0.3, 0.9, 0.5]]
    )

    def run(self, **rule: Any) -> tuple[TrainingResult, list[dict[str, Tensor]]]:
        """Train three members under scores given in advance; also every evaluation's parameters."""
        snapshots: list[dict[str, Tensor]] = []

        def evaluate(stack: Stack) -> dict[str, Tensor]:
            snapshots.append(stack.snapshot())
            return {"score": self.scores[len(snapshots) - 1]}

        result = train(
            small_stack(3),
            X,
            supervised(),
            Recipe("sgd", 0.1, batch_size=5, steps=10),
            evaluate=evaluate,
            evaluate_every=2,
            early_stopping=EarlyStopping("score", **rule),
        )
        return result, snapshots

    def holds(self, result: TrainingResult, snapshots: list[dict[str, Tensor]], kept: list[int]) -> None:
        """Each member has the parameters of evaluation `kept`, from 0."""
        assert result.best_step.tolist() == [2 * (k + 1) for k in kept]
        for name, value in result.stack.state_dict().items():
            for member, k in enumerate(kept):
                assert torch.equal(value[member], snapshots[k][name][member])

    def test_each_member_keeps_its_own_best_parameters(self) -> None:
        self.holds(*self.run(), [1, 4, 2])

    def test_smaller_may_be_better(self) -> None:
        self.holds(*self.run(maximize=False), [0, 3, 0])

    def test_patience_ends_each_member_and_then_training(self) -> None:
        result, snapshots = self.run(patience=2)
        # member 1 is done after the third evaluation, so its later 0.9 comes too late
        self.holds(result, snapshots, [1, 0, 2])
        assert len(snapshots) == len(result.history) == 5

    def test_training_ends_once_all_are_done(self) -> None:
        result, snapshots = self.run(patience=1)
        # done after evaluations 3, 2 and 2: one without improvement is enough
        self.holds(result, snapshots, [1, 0, 0])
        assert len(snapshots) == 3
        assert result.history[-1]["step"] == 6

    def test_a_member_that_is_done_leaves_the_others_as_they_would_be(self) -> None:
        """Member 2 keeps the parameters of step 6 whether member 1 stopped before or trained on."""
        patient, _ = self.run(patience=2)
        endless, _ = self.run()
        for one, other in zip(patient.stack.parameters(), endless.stack.parameters(), strict=True):
            assert torch.equal(one[2], other[2])

    def test_unknown_metric_names_those_there_are(self) -> None:
        rule = EarlyStopping("worst")
        with pytest.raises(OptionError, match="'worst', but the evaluation gives: fit"):
            train(small_stack(), X, supervised(), RECIPE, evaluate=loss_of, early_stopping=rule)

    def test_without_evaluation(self) -> None:
        with pytest.raises(OptionError, match="early_stopping needs evaluate="):
            train(small_stack(), X, supervised(), RECIPE, early_stopping=EarlyStopping("fit"))


class _Poisoned(Supervised):
    """NaN in the loss of some members from a step on."""

    def __init__(self, members: list[int], step: int) -> None:
        super().__init__(Supervision(Y))
        self.members, self.step = members, step

    def loss(self, stack: Stack, batch: Batch) -> Tensor:
        losses = super().loss(stack, batch)
        if batch.step < self.step:
            return losses
        factor = torch.ones_like(losses)
        factor[self.members] = math.nan
        return losses * factor


class TestDivergence:
    def test_a_member_of_a_tensor_stack_leaves_its_neighbours_alone(self) -> None:
        states = []
        for middle in (0.2, 1e38):
            stack = StackedMLP(FEATURES, CLASSES, (0, 1, 2), hidden=5)
            recipe = Recipe("sgd", (0.1, middle, 0.3), batch_size=5, epochs=3)
            result = train(stack, X, supervised(), recipe)
            states.append(stack.snapshot())
        assert int(result.diverged_at[1]) >= 0
        assert result.diverged_at[[0, 2]].tolist() == [-1, -1]
        assert not bool(torch.isfinite(states[1]["weight"][1]).all())
        for name, value in states[1].items():
            assert torch.equal(value[[0, 2]], states[0][name][[0, 2]])
        assert math.isnan(result.history[-1]["loss"][1])
        assert all(math.isfinite(result.history[-1]["loss"][k]) for k in (0, 2))

    def test_a_module_leaves_its_neighbours_alone(self) -> None:
        def factory() -> nn.Module:
            layers = nn.Linear(FEATURES, 5), nn.Dropout(0.3), nn.Tanh(), nn.Linear(5, CLASSES)
            return nn.Sequential(*layers).double()

        stacks = []
        for middle in (0.2, 1e308):
            stacks.append(ModuleStack(factory, CLASSES, (0, 1, 2)))
            recipe = Recipe("sgd", (0.1, middle, 0.3), batch_size=5, epochs=3)
            result = train(stacks[-1], X.double(), supervised(), recipe)
        assert int(result.diverged_at[1]) >= 0
        without = ModuleStack(factory, CLASSES, (0, 2))
        train(without, X.double(), supervised(), Recipe("sgd", (0.1, 0.3), batch_size=5, epochs=3))
        for one, other in ((0, 0), (2, 1)):
            found = stacks[1].members[one].state_dict()
            assert_same_bits(found, stacks[0].members[one].state_dict())
            for name, wanted in without.members[other].state_dict().items():
                torch.testing.assert_close(found[name], wanted, rtol=1e-9, atol=1e-11)

    def test_the_step_is_recorded(self) -> None:
        result = train(small_stack(3), X, _Poisoned([0], 3), RECIPE)
        assert result.diverged_at.tolist() == [3, -1, -1]

    @pytest.mark.usefixtures("gradients_derived")  # as those of a loss of its own are
    def test_early_stopping_keeps_what_was_good_before(self) -> None:
        recipe = Recipe("sgd", 0.1, batch_size=5, epochs=4)
        rule = EarlyStopping("fit", maximize=False)
        stack = small_stack()
        result = train(stack, X, _Poisoned([1], 7), recipe, evaluate=loss_of, early_stopping=rule)
        assert int(result.best_step[1]) == 5
        assert all(bool(torch.isfinite(p).all()) for p in stack.parameters())
        shorter = small_stack()
        train(shorter, X, supervised(), Recipe("sgd", 0.1, batch_size=5, epochs=1))
        assert torch.equal(stack.weight[1], shorter.weight[1])

    @pytest.mark.parametrize("steps", [6, 40])
    def test_of_all_members_is_an_error_that_names_the_learning_rate(self, steps: int) -> None:
        recipe = Recipe("sgd", 0.1, batch_size=5, steps=steps)
        with pytest.raises(DivergedError, match=r"at step 3 to 3\).*lower the learning rate, now 0.1"):
            train(small_stack(), X, _Poisoned([0, 1], 3), recipe)

    def test_of_huge_learning_rates_is_an_error(self) -> None:
        stack = StackedMLP(FEATURES, CLASSES, (0, 1), hidden=5)
        with pytest.raises(DivergedError, match="1e\\+38"):
            train(stack, X, supervised(), Recipe("sgd", 1e38, batch_size=5, epochs=9))


class _Rows(Dataset[Any]):
    """The examples as a data set with labels of its own, which the loop does not read."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        return X[i], "anything"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_dataset_gives_the_bits_that_a_tensor_gives(workers: int) -> None:
    by_tensor, by_dataset = small_stack(), small_stack()
    train(by_tensor, X, supervised(), RECIPE, seed=5)
    train(by_dataset, DatasetInputs(_Rows(), workers, pin=True), supervised(), RECIPE, seed=5)
    assert_same_bits(by_dataset.state_dict(), by_tensor.state_dict())


def test_members_with_minibatches_of_their_own_read_a_dataset_too() -> None:
    by_tensor, by_dataset = small_stack(), small_stack()
    train(by_tensor, X, supervised(), RECIPE, seed=(5, 6))
    train(by_dataset, _Rows(), supervised(), RECIPE, seed=(5, 6))
    assert_same_bits(by_dataset.state_dict(), by_tensor.state_dict())


def test_minibatch_without_a_weighted_example_moves_nothing() -> None:
    """The first minibatch has only examples of weight 0: plain SGD then stays where it is, in any stack."""
    first = next(iter(Order(N, 5, 0).minibatches(0, 1)))
    weight = torch.ones(N)
    weight[first] = 0
    for stack in (small_stack(), ModuleStack(lambda: nn.Linear(FEATURES, CLASSES), CLASSES, (0, 1))):
        before = stack.snapshot()
        recipe = Recipe("sgd", 0.1, momentum=0.0, batch_size=5, steps=1)
        result = train(stack, X, supervised(weight=weight), recipe)
        assert_same_bits(stack.state_dict(), before)
        assert result.history[0]["loss"] == [0.0, 0.0]


def test_objective_must_give_a_loss() -> None:
    with pytest.raises(NotImplementedError):
        train(small_stack(), X, Objective(), RECIPE)


class TestRefuses:
    """Before the first step: the stack stays as it was."""

    @pytest.mark.parametrize(
        ("objective", "error", "message"),
        [
            (supervised(Y[:-1]), DataError, "22 labels for 23 examples"),
            (supervised(torch.cat([Y, Y])), DataError, "46 labels for 23 examples"),
            (supervised(Y + 1), DataError, "labels run from 1 to 3: 0 to 2 is wanted"),
            (supervised(Y - 1), DataError, "labels run from -1 to 1: 0 to 2 is wanted"),
            (supervised(shift=torch.zeros(N, 1)), DataError, "the shift has 1 columns for 3 classes"),
            (supervised(weight=torch.ones(5, N)), DataError, "weight is for 5 members, the stack has 2"),
            (supervised(shift=torch.zeros(3, N, 3)), DataError, "shift is for 3 members, the stack has 2"),
            (supervised(Y.repeat(3, 1)), DataError, "target is for 3 members, the stack has 2"),
        ],
        ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
    )
    def test_supervision(self, objective: Supervised, error: type[Exception], message: str) -> None:
        self.refuses(error, message, objective, RECIPE)

    @pytest.mark.parametrize(
        ("recipe", "options", "message"),
        [
            (Recipe(learning_rate=(0.1, 0.2, 0.3), epochs=1), {}, "learning_rate has 3 values for 2 members"),
            (Recipe(weight_decay=(0.1,), epochs=1), {}, "weight_decay has 1 values for 2 members"),
            (RECIPE, {"seed": (1, 2, 3)}, "3 seeds for 2 members"),
            (RECIPE, {"evaluate_every": 0}, "evaluate_every=0"),
            (RECIPE, {"evaluate_every": -1}, "evaluate_every=-1"),
            (RECIPE, {"sampling": torch.ones(N + 1)}, "sampling has 24 values for 23 examples"),
        ],
    )
    def test_options(self, recipe: Recipe, options: dict[str, Any], message: str) -> None:
        self.refuses(OptionError, message, supervised(), recipe, **options)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (torch.full((N, FEATURES), math.nan), "NaN or infinity, first in row 0"),
            (torch.zeros(0, FEATURES), "empty"),
            ([[0.0] * FEATURES] * N, "inputs of type list"),
        ],
        ids=["NaN", "empty", "list"],
    )
    def test_inputs(self, x: Any, message: str) -> None:
        self.refuses(DataError, message, supervised(), RECIPE, x=x)

    def refuses(self, error: type[Exception], message: str, *rest: Any, x: Any = X, **options: Any) -> None:
        stack = small_stack()
        before = stack.snapshot()
        with pytest.raises(error, match=message):
            train(stack, x, *rest, **options)
        assert_same_bits(stack.state_dict(), before)


def test_moments_come_in_one_order_however_they_were_read() -> None:
    """Processes that gather shards would else wait for different ones; files come back in any order."""
    stack = small_stack()
    optimizer = torch.optim.Adam(stack.parameters())
    stack(X).sum().backward()
    optimizer.step()
    kept = _moments(optimizer)
    again = torch.optim.Adam(stack.parameters())
    _load_moments(again, dict(reversed(kept.items())))
    assert list(_moments(again)) == list(kept)
    assert_same_bits(_moments(again), kept)
