"""Stacks of any module: against modules trained one at a time, and by counting the rows each member works on."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from toys import assert_same_bits, clusters, differ

from unrote.checkpoint import Checkpoints
from unrote.errors import OptionError
from unrote.heldout import kfold, xrm
from unrote.models import ModuleStack, small_cnn
from unrote.seeding import derive_seed
from unrote.supervision import Supervision
from unrote.training import Order, Recipe, Supervised, train

N, FEATURES, CLASSES = 26, 4, 3
Make = Callable[[], nn.Module]


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, CLASSES))


def dropout() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES))


def batch_norm() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, CLASSES))


def data() -> tuple[Tensor, Tensor]:
    return clusters(N, CLASSES, FEATURES, seed=2)


class _CountBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: list[int]) -> Tensor:
        ctx.rows = rows
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        ctx.rows.append(len(grad))
        return grad, None


class Recorder(nn.Module):
    """A linear model that keeps the number of rows of every pass it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)
        self.trained: list[int] = []  # forward in training mode, with gradients
        self.looked: list[int] = []  # forward in evaluation mode, without
        self.backward: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        assert self.training == torch.is_grad_enabled()
        (self.trained if self.training else self.looked).append(len(x))
        return _CountBackward.apply(self.head(x), self.backward)  # type: ignore[no-any-return, no-untyped-call]


def recorders(stack: ModuleStack) -> list[Recorder]:
    return [member for member in stack.members if isinstance(member, Recorder)]


class TestWork:
    def test_member_passes_only_over_examples_of_positive_weight(self) -> None:
        x, y = data()
        weight = (torch.rand(3, N, generator=torch.Generator().manual_seed(0)) < 0.4).float()
        weight[2] = 0
        stack = ModuleStack(Recorder, CLASSES, (0, 1, 2))
        recipe = Recipe("sgd", 0.1, batch_size=5, epochs=3)
        train(stack, x, Supervised(Supervision(y, weight)), recipe, seed=4)
        order = Order(N, 5, 4)
        for member, recorder in enumerate(recorders(stack)):
            seen = [int(weight[member, index].sum()) for index in order.minibatches(0, 18)]
            assert recorder.trained == [rows for rows in seen if rows]
            assert recorder.backward == recorder.trained
            assert recorder.looked == []
            assert sum(recorder.trained) == 3 * int(weight[member].sum())

    def test_weights_for_all_members_skip_examples_too(self) -> None:
        x, y = data()
        weight = (torch.arange(N) % 3 > 0).float()
        stack = ModuleStack(Recorder, CLASSES, (0, 1))
        train(stack, x, Supervised(Supervision(y, weight)), Recipe("sgd", 0.1, batch_size=None, steps=2))
        for recorder in recorders(stack):
            assert recorder.trained == recorder.backward == [int(weight.sum())] * 2

    @pytest.mark.parametrize("look_every", [1, 3])
    def test_xrm_costs_one_training_pass_and_one_without_gradient_where_it_looks(
        self, look_every: int
    ) -> None:
        x, y = data()
        stacks: list[ModuleStack] = []

        def build(seeds: Any) -> ModuleStack:
            stacks.append(ModuleStack(Recorder, CLASSES, seeds))
            return stacks[-1]

        epochs, m = 4, 7
        recipe = Recipe("sgd", 0.1, batch_size=5, epochs=epochs)
        result = xrm(x, y, build, recipe, n_classes=CLASSES, validation=(x[:m], y[:m]), look_every=look_every)
        order = Order(N, 5, derive_seed(0, "xrm"))
        looks = torch.cat(list(order.minibatches(0, epochs * order.steps_per_epoch))[::look_every])
        twins = recorders(stacks[0])
        own = [int(result.assigned.sum()), int((~result.assigned).sum())]
        for twin in range(2):
            assert sum(twins[twin].trained) == epochs * own[twin]
            assert twins[twin].backward == twins[twin].trained
            # the other twin's examples at each look; at the end both twins see everything once, for the groups
            others = int((result.assigned[0, looks] == bool(twin)).sum())
            assert sum(twins[twin].looked) == others + N + m
        assert sum(sum(twin.trained) for twin in twins) == epochs * N

    def test_kfold_predicts_each_example_once(self) -> None:
        x, y = data()
        stacks: list[ModuleStack] = []

        def build(seeds: Any) -> ModuleStack:
            stacks.append(ModuleStack(Recorder, CLASSES, seeds))
            return stacks[-1]

        kfold(x, y, build, Recipe("sgd", 0.1, batch_size=5, epochs=2), n_folds=3)
        members = recorders(stacks[0])
        assert sum(sum(member.trained) for member in members) == 2 * 2 * N
        assert sum(sum(member.looked) for member in members) == N


class TestAgainstTorch:
    @pytest.mark.parametrize("own_orders", [False, True], ids=["shared order", "own orders"])
    @pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
    def test_stack_ends_where_separate_runs_end(self, optimizer: Any, own_orders: bool) -> None:
        x, y = data()
        rates, decays = (0.05, 0.1), (0.0, 0.2)
        stack = ModuleStack(lambda: perceptron().double(), CLASSES, (5, 6))
        alone = [perceptron().double() for _ in range(2)]
        for module, member in zip(alone, stack.members, strict=True):
            module.load_state_dict(member.state_dict())
        seeds = (1, 2) if own_orders else (1, 1)
        recipe = Recipe(optimizer, rates, decays, batch_size=7, epochs=3)
        train(stack, x.double(), Supervised(Supervision(y)), recipe, seed=seeds if own_orders else 1)
        kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        for k, module in enumerate(alone):
            options = {"lr": rates[k], "weight_decay": decays[k]}
            update = (
                torch.optim.SGD(module.parameters(), momentum=0.9, **options)
                if optimizer == "sgd"
                else kinds[optimizer](module.parameters(), **options)
            )
            for index in Order(N, 7, seeds[k]).minibatches(0, 12):
                update.zero_grad()
                F.cross_entropy(module(x.double()[index]), y[index]).backward()
                update.step()
            for name, wanted in module.state_dict().items():
                found = stack.members[k].state_dict()[name]
                torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)

    def test_logits_where_asked_are_the_members_own(self) -> None:
        x, _ = data()
        stack = ModuleStack(perceptron, CLASSES, (5, 6))
        where = torch.rand(2, N) < 0.5
        logits = stack(x, where)
        for k, member in enumerate(stack.members):
            torch.testing.assert_close(logits[k, where[k]], member(x[where[k]]))
            assert bool((logits[k, ~where[k]] == 0).all())

    def test_members_in_double_precision_with_nothing_to_do(self) -> None:
        stack = ModuleStack(lambda: perceptron().double(), CLASSES, (5, 6))
        where = torch.tensor([[True, True], [False, False]])
        assert stack(torch.zeros(2, FEATURES, dtype=torch.float64), where).dtype == torch.float64


@pytest.mark.parametrize("factory", [perceptron, dropout, batch_norm])
class TestMembers:
    def run(self, factory: Make, seeds: tuple[int, ...], orders: tuple[int, ...]) -> ModuleStack:
        x, y = data()
        stack = ModuleStack(lambda: factory().double(), CLASSES, seeds)
        # not Adam, which would divide by gradients that are nothing but rounding
        recipe = Recipe("sgd", 0.05, batch_size=8, epochs=3)
        train(stack, x.double(), Supervised(Supervision(y)), recipe, seed=orders)
        return stack

    def test_start_from_their_seed_alone(self, factory: Make) -> None:
        together, alone = ModuleStack(factory, CLASSES, (3, 1)), ModuleStack(factory, CLASSES, (1,))
        assert_same_bits(together.members[1].state_dict(), alone.members[0].state_dict())

    def test_do_not_depend_on_their_neighbours(self, factory: Make) -> None:
        """But for rounding: the losses of a stack are vectorised over all its members."""
        together = self.run(factory, (3, 1, 4), (7, 8, 9))
        for k, (seed, order) in enumerate(zip((3, 1, 4), (7, 8, 9), strict=True)):
            alone = self.run(factory, (seed,), (order,)).members[0]
            for name, wanted in alone.state_dict().items():
                found = together.members[k].state_dict()[name]
                torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)

    def test_of_different_seeds_differ(self, factory: Make) -> None:
        one, other = self.run(factory, (3, 4), (7, 7)).members
        assert differ(one.state_dict(), other.state_dict())

    def test_go_on_from_a_checkpoint_bit_for_bit(self, factory: Make, tmp_path: Any) -> None:
        x, y = data()
        objective = Supervised(Supervision(y))
        for steps in (5, 9):
            checkpoints = Checkpoints(tmp_path, {}, every=5)
            stack = ModuleStack(factory, CLASSES, (3, 4))
            recipe = Recipe("adam", 0.05, batch_size=8, steps=steps)
            train(stack, x, objective, recipe, checkpoints=checkpoints)
        unbroken = ModuleStack(factory, CLASSES, (3, 4))
        train(unbroken, x, objective, Recipe("adam", 0.05, batch_size=8, steps=9))
        assert_same_bits(stack.state_dict(), unbroken.state_dict())

    def test_copies_of_some_members_are_their_own(self, factory: Make) -> None:
        stack, x = self.run(factory, (3, 1, 4), (7, 8, 9)), data()[0].double()
        chosen, before = stack.select([2, 0]), stack.snapshot()
        assert chosen.seeds == (4, 3)
        assert torch.equal(chosen.predict(x), stack.predict(x)[[2, 0]])
        with torch.no_grad():
            for p in chosen.parameters():
                p.zero_()
        assert_same_bits(stack.state_dict(), before)

    def test_are_copied_into_a_snapshot_with_their_buffers(self, factory: Make) -> None:
        stack = ModuleStack(factory, CLASSES, (3, 1, 4))
        kept, before = stack.snapshot(), stack.snapshot()
        for value in stack.state_dict().values():
            value.add_(1)
        assert_same_bits(kept, before)  # a copy, not a view
        stack.copy_members(kept, torch.tensor([False, True, False]))
        for name, value in kept.items():
            assert torch.equal(value, before[name] + (1 if name.startswith("members.1.") else 0))


class TestDropout:
    def test_is_the_same_at_the_same_step(self) -> None:
        (x, _), stack = data(), ModuleStack(dropout, CLASSES, (3, 4)).train()
        first = stack(x)
        assert torch.equal(stack(x), first)
        stack.step = 1
        assert not torch.equal(stack(x), first)

    def test_differs_between_members_with_the_same_parameters(self) -> None:
        (x, _), stack = data(), ModuleStack(dropout, CLASSES, (3, 4)).train()
        stack.members[1].load_state_dict(stack.members[0].state_dict())
        logits = stack(x)
        assert not torch.equal(logits[0], logits[1])

    def test_is_off_in_predictions(self) -> None:
        (x, _), stack = data(), ModuleStack(dropout, CLASSES, (3,))
        first = stack.predict(x)
        stack.step = 1
        assert torch.equal(stack.predict(x), first)

    def test_is_off_where_classes_are_predicted_and_nothing_changes(self) -> None:
        def network() -> nn.Module:
            return nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Dropout(), nn.Linear(FEATURES, CLASSES))

        (x, _), stack = data(), ModuleStack(network, CLASSES, (3, 4)).train()
        before = {name: value.clone() for name, value in stack.state_dict().items()}
        found = stack.predict_classes(x)
        assert stack.training
        assert_same_bits(stack.state_dict(), before)
        assert torch.equal(found, stack.predict(x).argmax(-1))

    def test_leaves_the_global_generator_alone(self) -> None:
        before = torch.get_rng_state()
        TestMembers().run(dropout, (3, 4), (7, 8))
        assert torch.equal(torch.get_rng_state(), before)

    def test_global_generator_does_not_reach_it(self) -> None:
        states = []
        for seed in (0, 1):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                states.append(TestMembers().run(dropout, (3, 4), (7, 8)).state_dict())
        assert_same_bits(*states)


class TestBatchNorm:
    def test_statistics_are_those_of_the_examples_seen(self) -> None:
        x, y = data()
        weight = (torch.arange(N) % 2).float()
        stack = ModuleStack(batch_norm, CLASSES, (3,))
        first = stack.members[0].get_submodule("0")(x[1::2]).detach()
        train(stack, x, Supervised(Supervision(y, weight)), Recipe("sgd", 0.1, batch_size=None, steps=1))
        norm = stack.members[0].get_submodule("1")
        torch.testing.assert_close(norm.get_buffer("running_mean"), 0.1 * first.mean(0))
        torch.testing.assert_close(norm.get_buffer("running_var"), 0.9 + 0.1 * first.var(0))

    def test_looking_at_held_out_examples_leaves_them_out(self) -> None:
        """XRM's twins look at each other's examples in evaluation mode: these count in no statistic."""
        x, y = data()
        result = xrm(
            x,
            y,
            lambda seeds: ModuleStack(batch_norm, CLASSES, seeds),
            Recipe("sgd", 0.1, batch_size=None, steps=1),
            n_classes=CLASSES,
        )
        for twin, own in enumerate([result.assigned[0], ~result.assigned[0]]):
            start = ModuleStack(batch_norm, CLASSES, result.stack.seeds).members[twin]
            first = start.get_submodule("0")(x[own]).detach()
            found = result.stack.get_submodule(f"members.{twin}.1").get_buffer("running_mean")
            torch.testing.assert_close(found, 0.1 * first.mean(0))


class _Pairs(Dataset[Any]):
    """Examples in two parts, named or not, with a label that is not for the model."""

    def __init__(self, x: Tensor, named: bool) -> None:
        self.x, self.named = x, named

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        left, right = self.x[i, :2], self.x[i, 2:]
        return ({"left": left, "right": right} if self.named else (left, right)), 0


class _TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> Any:
        return SimpleNamespace(logits=self.head(torch.cat([left, right], dim=1)), loss=None)


@pytest.mark.parametrize("named", [True, False], ids=["mapping", "tuple"])
def test_inputs_of_several_parts_and_outputs_with_logits(named: bool) -> None:
    """A model with keyword arguments, as Hugging Face has them, trains as its plain counterpart does."""
    x, y = data()
    weight = torch.ones(2, N)
    weight[0, ::3] = 0
    results = []
    for factory, inputs in ((_TwoInputs, _Pairs(x, named)), (lambda: nn.Linear(FEATURES, CLASSES), x)):
        stack = ModuleStack(factory, CLASSES, (3, 4))
        recipe = Recipe("sgd", 0.1, batch_size=8, epochs=2)
        train(stack, inputs, Supervised(Supervision(y, weight)), recipe, seed=(1, 2))
        results.append((stack.predict(inputs), list(stack.state_dict().values())))
    torch.testing.assert_close(results[0], results[1])


class TestRefuses:
    @pytest.mark.parametrize(
        ("factory", "shape"),
        [
            (lambda: nn.Linear(FEATURES, CLASSES + 1), f"({N}, 4)"),
            (lambda: nn.Sequential(nn.Linear(FEATURES, 1), nn.Flatten(0)), f"({N},)"),
            (lambda: nn.Sequential(nn.Linear(FEATURES, CLASSES), nn.Unflatten(1, (1, 3))), f"({N}, 1, 3)"),
        ],
        ids=["another number of classes", "no class dimension", "three dimensions"],
    )
    def test_logits_of_another_shape(self, factory: Make, shape: str) -> None:
        stack = ModuleStack(factory, CLASSES)
        with pytest.raises(OptionError) as caught:
            stack(data()[0])
        assert shape in str(caught.value)
        assert f"(batch, {CLASSES}) is wanted" in str(caught.value)

    @pytest.mark.usefixtures("shapes_unchecked")
    def test_factory_of_something_else(self) -> None:
        with pytest.raises(OptionError, match="the factory gave a str"):
            ModuleStack(lambda: "a model", CLASSES)  # type: ignore[arg-type, return-value]

    def test_factory_of_one_shared_module(self) -> None:
        module = perceptron()
        with pytest.raises(OptionError, match="one module twice"):
            ModuleStack(lambda: module, CLASSES, (0, 1))


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 28, 28), (3, 7, 10)])
def test_small_cnn_takes_pictures(shape: tuple[int, ...]) -> None:
    assert small_cnn(shape, CLASSES)(torch.zeros(5, *shape)).shape == (5, CLASSES)
