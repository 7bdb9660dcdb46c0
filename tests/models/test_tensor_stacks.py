"""Stacks of linear heads and perceptrons against torch.nn modules trained one at a time."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import assert_same_bits, clusters

from unrote.errors import OptionError, UnknownNameError
from unrote.models import ModuleStack, Stack, StackedLinear, StackedMLP, stack_builder
from unrote.supervision import Supervision, SupervisionBatch
from unrote.training import Batch, Order, Recipe, Supervised, train

N, FEATURES, CLASSES, HIDDEN = 37, 6, 3, 5
RATES, DECAYS = (0.05, 0.02, 0.1), (0.0, 0.1, 0.01)
SEEDS = (3, 1, 4)


def make(kind: str, seeds: tuple[int, ...] = SEEDS, dtype: torch.dtype = torch.float64) -> Stack:
    if kind == "linear":
        return StackedLinear(FEATURES, CLASSES, seeds, dtype=dtype)
    return StackedMLP(FEATURES, CLASSES, seeds, hidden=HIDDEN, dtype=dtype)


def as_module(stack: Stack, member: int) -> nn.Module:
    """The member as torch has it, with parameters of its own."""
    layers: list[nn.Module] = []
    parameters = [p[member].detach().clone() for p in stack.parameters()]
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        layers += [nn.ReLU(), layer]
    return nn.Sequential(*layers[1:])


def torch_optimizer(name: str, momentum: float, module: nn.Module, member: int) -> torch.optim.Optimizer:
    rates: dict[str, Any] = {"lr": RATES[member], "weight_decay": DECAYS[member]}
    if name == "sgd":
        return torch.optim.SGD(module.parameters(), momentum=momentum, **rates)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](module.parameters(), **rates)


def data() -> tuple[Tensor, Tensor]:
    x, y = clusters(N, CLASSES, FEATURES, seed=5)
    return x.double(), y


@pytest.mark.parametrize("own_orders", [False, True], ids=["shared order", "own orders"])
@pytest.mark.parametrize(
    ("optimizer", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("adam", 0.0), ("adamw", 0.0)]
)
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_stack_ends_where_separate_runs_end(
    kind: str, optimizer: Any, momentum: float, own_orders: bool
) -> None:
    x, y = data()
    stack = make(kind)
    modules = [as_module(stack, member) for member in range(3)]
    recipe = Recipe(optimizer, RATES, DECAYS, momentum=momentum, batch_size=8, epochs=3)
    seeds = (21, 22, 23) if own_orders else (21, 21, 21)
    train(stack, x, Supervised(Supervision(y)), recipe, seed=seeds if own_orders else 21)
    for member, module in enumerate(modules):
        update = torch_optimizer(optimizer, momentum, module, member)
        for index in Order(N, 8, seeds[member]).minibatches(0, 3 * math.ceil(N / 8)):
            update.zero_grad()
            F.cross_entropy(module(x[index]), y[index]).backward()
            update.step()
        found = as_module(stack, member).state_dict()
        for name, wanted in module.state_dict().items():
            torch.testing.assert_close(found[name], wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_members_with_weights_targets_and_shifts_of_their_own_end_where_separate_runs_end(kind: str) -> None:
    """Each member on its own random half, its own labels and its own shift, full batch."""
    x, _ = data()
    random = torch.Generator().manual_seed(0)
    weight = torch.rand(3, N, generator=random, dtype=torch.float64)
    weight[torch.rand(3, N, generator=random) < 0.5] = 0
    target = torch.randint(CLASSES, (3, N), generator=random)
    shift = torch.randn(3, N, CLASSES, generator=random, dtype=torch.float64)
    stack = make(kind)
    modules = [as_module(stack, member) for member in range(3)]
    recipe = Recipe("sgd", 0.1, momentum=0.9, batch_size=None, steps=15)
    train(stack, x, Supervised(Supervision(target, weight, shift)), recipe)
    for member, module in enumerate(modules):
        update = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        seen = weight[member] > 0
        for _ in range(15):
            update.zero_grad()
            logits = module(x[seen]) + shift[member, seen]
            losses = F.cross_entropy(logits, target[member, seen], reduction="none")
            (losses @ weight[member, seen] / weight[member].sum()).backward()
            update.step()
        found = as_module(stack, member).state_dict()
        for name, wanted in module.state_dict().items():
            torch.testing.assert_close(found[name], wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
class TestMembers:
    def test_start_from_their_seed_alone(self, kind: str) -> None:
        together, alone = make(kind), make(kind, (1,))
        for name, value in together.state_dict().items():
            assert torch.equal(value[1:2], alone.state_dict()[name])
            assert not torch.equal(value[0], value[1])

    def test_train_by_their_seed_alone(self, kind: str) -> None:
        x, y = data()
        recipe = Recipe("adam", 0.05, batch_size=8, epochs=2)
        together, alone = make(kind), make(kind, (1,))
        train(together, x, Supervised(Supervision(y)), recipe, seed=(7, 8, 9))
        train(alone, x, Supervised(Supervision(y)), recipe, seed=(8,))
        for name, value in together.state_dict().items():
            torch.testing.assert_close(value[1:2], alone.state_dict()[name], rtol=1e-10, atol=1e-12)

    def test_logits_are_those_of_torch(self, kind: str) -> None:
        stack, x = make(kind), torch.randn(3, 4, FEATURES, dtype=torch.float64)
        shared, own = stack(x[0]), stack(x, per_member=True)
        for member in range(3):
            module = as_module(stack, member)
            torch.testing.assert_close(shared[member], module(x[0]))
            torch.testing.assert_close(own[member], module(x[member]))

    def test_take_pictures_as_vectors(self, kind: str) -> None:
        stack, x = make(kind), torch.randn(3, 4, 2, 1, 3, dtype=torch.float64)
        assert torch.equal(stack(x[0]), stack(x[0].reshape(4, FEATURES)))
        own = stack(x.reshape(3, 4, FEATURES), per_member=True)
        assert torch.equal(stack(x, per_member=True), own)

    def test_take_whole_numbers(self, kind: str) -> None:
        x = torch.randint(0, 256, (4, FEATURES), dtype=torch.uint8)
        assert torch.equal(make(kind)(x), make(kind)(x.double()))

    def test_copies_of_some_members_are_their_own(self, kind: str) -> None:
        stack, x = make(kind), torch.randn(4, FEATURES, dtype=torch.float64)
        before = stack.snapshot()
        chosen = stack.select([2, 0])
        assert chosen.seeds == (4, 3)
        torch.testing.assert_close(chosen(x), stack(x)[[2, 0]])
        with torch.no_grad():
            for p in chosen.parameters():
                p.zero_()
        assert_same_bits(stack.state_dict(), before)

    def test_are_copied_into_a_snapshot_one_by_one(self, kind: str) -> None:
        stack = make(kind)
        kept, before = stack.snapshot(), stack.snapshot()
        with torch.no_grad():
            for p in stack.parameters():
                p.add_(1)
        assert_same_bits(kept, before)  # a copy, not a view
        stack.copy_members(kept, torch.tensor([False, True, False]))
        for name, value in kept.items():
            assert torch.equal(value[[0, 2]], before[name][[0, 2]])
            assert torch.equal(value[1], before[name][1] + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fan_in", [1, 64])
def test_parameters_start_as_those_of_torch_linear(fan_in: int, dtype: torch.dtype) -> None:
    stack = StackedLinear(fan_in, 50, range(20), dtype=dtype)
    bound = 1 / math.sqrt(fan_in)
    for values in (stack.weight, stack.bias):
        assert values is not None
        assert values.dtype == dtype
        assert float(values.detach().abs().max()) <= bound
        # uniform on [-bound, bound]: mean 0, standard deviation bound / sqrt(3)
        spread = bound / math.sqrt(3)
        assert abs(values.mean().item()) < 5 * spread / math.sqrt(values.numel())
        assert values.std().item() == pytest.approx(spread, rel=0.05)


def test_layers_of_a_perceptron_start_apart() -> None:
    stack = StackedMLP(4, 4, (0,), hidden=4)
    assert not torch.equal(stack.weight, stack.hidden_weight)
    assert not torch.equal(stack.bias, stack.hidden_bias)


@pytest.mark.parametrize("own_batches", [False, True], ids=["one minibatch", "own minibatches"])
@pytest.mark.parametrize("reduction", ["mean", "class_balanced"])
@pytest.mark.parametrize("shift", [None, 1, 3])
@pytest.mark.parametrize("weight", [None, 1, 3])
@pytest.mark.parametrize("kind", ["linear", "without bias", "binary", "binary without bias", "mlp"])
def test_gradients_that_are_written_down_are_those_of_autograd(
    kind: str, weight: int | None, shift: int | None, reduction: Any, own_batches: bool
) -> None:
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    classes = 2 if "binary" in kind else CLASSES
    if kind == "mlp":
        stack: Stack = make("mlp")
    else:
        stack = StackedLinear(FEATURES, classes, SEEDS, bias="without" not in kind, dtype=torch.float64)
    x = drawn(3, N, FEATURES) if own_batches else drawn(N, FEATURES)
    rows = SupervisionBatch(
        torch.randint(classes, (1, N), generator=random),
        None if weight is None else drawn(weight, N).clamp_min(0),
        None if shift is None else 3 * drawn(shift, N, classes),
        reduction,
    )
    losses, logits = stack.loss_and_logits(x, rows, per_member=own_batches)
    losses.sum().backward()
    derived = [p.grad for p in stack.parameters()]
    for p in stack.parameters():
        p.grad = None
    with torch.no_grad():
        found = stack.write_gradients(x, rows, per_member=own_batches)
    torch.testing.assert_close(found, (losses.detach(), logits))
    for p, gradient in zip(stack.parameters(), derived, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_a_loss_of_ones_own_is_derived() -> None:
    class Louder(Supervised):
        def loss(self, stack: Stack, batch: Batch) -> Tensor:
            return 2 * super().loss(stack, batch)

    x, y = clusters(N, 2, FEATURES, seed=5)
    recipe = Recipe("sgd", 0.1, steps=1)
    plain, louder = (StackedLinear(FEATURES, 2, init="zeros") for _ in range(2))
    train(plain, x, Supervised(Supervision(y)), recipe)
    train(louder, x, Louder(Supervision(y)), recipe)
    torch.testing.assert_close(louder.weight, 2 * plain.weight)


def test_zeros() -> None:
    stack = StackedLinear(FEATURES, CLASSES, SEEDS, init="zeros")
    assert torch.equal(stack(torch.randn(4, FEATURES)), torch.zeros(3, 4, CLASSES))


def test_without_bias() -> None:
    stack, x = StackedLinear(FEATURES, CLASSES, SEEDS, bias=False), torch.randn(4, FEATURES)
    assert [name for name, _ in stack.named_parameters()] == ["weight"]
    for member in range(3):
        torch.testing.assert_close(stack(x)[member], x @ stack.weight[member].T)
    torch.testing.assert_close(stack.select([1])(x), stack(x)[1:2])


class TestPredict:
    def test_does_not_depend_on_the_batch_size(self) -> None:
        stack, (x, _) = make("mlp"), data()
        whole = stack.predict(x)
        assert whole.shape == (3, N, CLASSES)
        assert not whole.requires_grad
        for batch_size in (1, 5, N):
            torch.testing.assert_close(stack.predict(x, batch_size=batch_size), whole)

    @pytest.mark.parametrize("training", [False, True])
    def test_leaves_the_mode_as_it_was(self, training: bool) -> None:
        stack = make("linear").train(training)
        modes = []
        stack.register_forward_pre_hook(lambda module, _: modes.append(module.training))
        stack.predict(data()[0], batch_size=10)
        assert modes == [False] * 4
        assert stack.training == training

    @pytest.mark.usefixtures("shapes_unchecked")
    def test_restores_the_mode_after_an_error(self) -> None:
        stack = make("linear").train()
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            stack.predict(torch.zeros(3, FEATURES + 1))
        assert stack.training


class TestBuilder:
    @pytest.mark.parametrize(
        ("model", "shape", "kind"),
        [
            ("linear", (2, 3), StackedLinear),
            ("mlp", (6,), StackedMLP),
            ("cnn", (2, 8, 8), ModuleStack),
            (lambda: nn.Linear(6, 3), (6,), ModuleStack),
        ],
        ids=["linear", "mlp", "cnn", "function"],
    )
    def test_makes_a_member_per_seed(self, model: Any, shape: tuple[int, ...], kind: type[Stack]) -> None:
        stack = stack_builder(model, shape, 3)([8, 9])
        assert type(stack) is kind
        assert stack.seeds == (8, 9)
        assert stack(torch.zeros(5, *shape)).shape == (2, 5, 3)

    def test_unknown_model_names_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown model 'linaer': did you mean 'linear'"):
            stack_builder("linaer", (6,), 3)

    def test_cnn_wants_pictures(self) -> None:
        with pytest.raises(OptionError, match=r"not shape \(6,\)"):
            stack_builder("cnn", (6,), 3)

    def test_examples_that_are_no_tensors_need_a_module(self) -> None:
        with pytest.raises(OptionError, match="takes tensors"):
            stack_builder("mlp", (), 3)

    @pytest.mark.usefixtures("shapes_unchecked")
    def test_a_module_instead_of_a_function_that_makes_one(self) -> None:
        with pytest.raises(OptionError, match="Linear"):
            stack_builder(nn.Linear(6, 3), (6,), 3)([0])


@pytest.mark.parametrize("kind", [StackedLinear, StackedMLP])
@pytest.mark.parametrize(
    ("classes", "seeds", "message"), [(3, (), "at least one seed"), (1, (0,), "stack with 1 class")]
)
def test_refuses_to_be_empty(kind: Any, classes: int, seeds: tuple[int, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kind(FEATURES, classes, seeds)


def test_seeds_give_independent_parameters() -> None:
    """Correlations between 30 members with neighbouring seeds are those of noise."""
    weights = StackedLinear(200, 10, range(30)).weight.detach().flatten(1)
    correlations = torch.corrcoef(weights)[~torch.eye(30, dtype=torch.bool)]
    assert float(correlations.abs().max()) < 5 / math.sqrt(weights.shape[1])
    assert all(not torch.equal(one, other) for one, other in pairwise(weights))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", [StackedLinear, StackedMLP])
def test_classes_are_those_of_the_logits(kind: Any, n_classes: int) -> None:
    x, _ = clusters(50, n_classes)
    stack = kind(4, n_classes, (0, 1, 2))
    found = stack.predict_classes(x, batch_size=7)
    assert torch.equal(found, stack.predict(x).argmax(-1))
    assert found.shape == (3, 50)
    assert len(found.unique()) == n_classes
