"""Precision, compilation, memory format and minibatches in parts, each against plain PyTorch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import assert_same_bits, clusters

from unrote.checkpoint import Checkpoints
from unrote.errors import OptionError
from unrote.models import Compute, ModuleStack, small_cnn
from unrote.seeding import global_seed
from unrote.supervision import Supervision
from unrote.training import LossScale, Recipe, Supervised, train

X, Y = clusters(23, 3, 6)
PICTURES = X[:, :4].reshape(-1, 1, 2, 2).repeat(1, 2, 4, 4)
RECIPE = Recipe("adam", 0.02, batch_size=9, epochs=4)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def run(
    factory: Callable[[], nn.Module] = perceptron, x: Tensor = X, recipe: Recipe = RECIPE, **compute: Any
) -> ModuleStack:
    stack = ModuleStack(factory, 3, (4, 5), compute=Compute(**compute))
    train(stack, x, Supervised(Supervision(Y)), recipe, seed=3)
    return stack


def assert_close(found: ModuleStack, wanted: ModuleStack, tolerance: float = 1e-5) -> None:
    states = found.state_dict(), wanted.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=tolerance, atol=tolerance)


class TestParts:
    @pytest.mark.parametrize("part", [1, 4, 8, 9, 100])
    @pytest.mark.parametrize("reduction", ["mean", "class_balanced"])
    def test_give_the_gradient_of_the_whole_minibatch(self, part: int, reduction: Any) -> None:
        weight = (torch.rand(2, 23, generator=torch.Generator().manual_seed(0)) * 2).floor()
        weight[:, 0] = 1
        gradients = []
        for size in (None, part):
            stack = ModuleStack(lambda: perceptron().double(), 3, (4, 5), compute=Compute(part=size)).train()
            batch = Supervision(Y, weight, None, reduction).batch(torch.arange(23))
            batch.loss(stack(X.double(), weight > 0)).sum().backward()
            gradients.append({name: p.grad for name, p in stack.named_parameters()})
        for name, wanted in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], wanted, rtol=1e-10, atol=1e-12)

    def test_hold_the_activations_of_one_part(self) -> None:
        """What autograd keeps of a forward pass is that of one part, and the inputs."""

        def kept(part: int | None) -> int:
            numbers = 0

            def count(t: Tensor) -> Tensor:
                nonlocal numbers
                numbers += t.numel()
                return t

            stack = ModuleStack(perceptron, 3, compute=Compute(part=part)).train()
            with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
                stack(torch.zeros(400, 6))
            return numbers

        assert kept(10) < kept(None) / 3

    def test_count_once_in_batch_norm_and_draw_dropout_again_as_before(self) -> None:
        def factory() -> nn.Module:
            return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))

        stack = ModuleStack(factory, 3, (4,), compute=Compute(part=10)).train()
        plain = ModuleStack(factory, 3, (4,)).train().members[0]
        F.cross_entropy(stack(X)[0], Y).backward()
        parts = []
        for rows in torch.arange(23).split(10):
            with global_seed(4, "forward", 0):
                parts.append(plain(X[rows]))
        F.cross_entropy(torch.cat(parts), Y).backward()
        assert_same_bits(stack.members[0].state_dict(), plain.state_dict())
        for found, wanted in zip(stack.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(found.grad, wanted.grad)


class TestPrecision:
    @pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 5e-2), ("fp16", 1e-2)])
    def test_half_is_used_and_ends_near_float32(self, precision: Any, tolerance: float) -> None:
        seen: list[torch.dtype] = []

        def factory() -> nn.Module:
            module = perceptron()
            module.get_submodule("1").register_forward_hook(lambda *rest: seen.append(rest[2].dtype))
            return module

        found, wanted = run(factory, precision=precision), run()
        assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
        assert {p.dtype for p in found.parameters()} == {torch.float32}
        logits = found.predict(X)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, wanted.predict(X), rtol=tolerance, atol=tolerance)
        assert not torch.equal(logits, wanted.predict(X))
        features, _ = found.features_and_logits(X)
        assert features.dtype == torch.float32

    def test_an_overflow_costs_a_member_that_update_and_halves_its_factor(self, tmp_path: Any) -> None:
        stack = ModuleStack(perceptron, 3, (4, 5), compute=Compute(precision="fp16"))
        before = stack.snapshot()
        weight = torch.ones(2, 23)
        # the gradient of the first member's loss does not fit fp16 under its factor
        shift = torch.zeros(2, 23, 3)
        objective = _Louder(Supervision(Y, weight, shift))
        checkpoints = Checkpoints(tmp_path, {}, every=1)
        train(stack, X, objective, Recipe("adam", 0.1, batch_size=None, steps=1), checkpoints=checkpoints)
        for name, value in stack.state_dict().items():
            assert torch.equal(value, before[name]) == name.startswith("members.0."), name
        saved = checkpoints.latest()
        assert saved is not None
        assert saved.tensors["scale/factor"].tolist() == [2.0**15, 2.0**16]
        train(stack, X, objective, Recipe("adam", 0.1, batch_size=None, steps=2), checkpoints=checkpoints)
        saved = checkpoints.latest()
        assert saved is not None
        assert saved.tensors["scale/factor"].tolist() == [2.0**14, 2.0**16]

    def test_factor_grows_again(self) -> None:
        scale = LossScale(2, torch.device("cpu"))
        scale.update(torch.tensor([False, True]))
        for _ in range(2000):
            scale.update(torch.tensor([True, True]))
        assert scale.factor.tolist() == [2.0**16, 2.0**17]
        assert scale.good.tolist() == [0, 1]


class _Louder(Supervised):
    def loss(self, stack: Any, batch: Any) -> Tensor:
        return super().loss(stack, batch) * torch.tensor([1e6, 1.0])


class TestCompiled:
    def test_ends_where_plain_modules_end_and_is_saved_under_their_names(self) -> None:
        calls = []

        def backend(graph: Any, inputs: Any) -> Any:
            calls.append(graph)
            return graph.forward

        import torch._dynamo

        torch._dynamo.register_backend(backend, name="counting")  # type: ignore[no-untyped-call]
        found = run(compile="counting")
        assert calls
        assert_close(found, run())
        features, _ = found.features_and_logits(X)
        torch.testing.assert_close(features, run().features_and_logits(X)[0])
        assert torch.equal(found.select([1]).predict(X)[0], found.predict(X)[1])


def test_channels_last_are_last_in_memory_and_change_no_result() -> None:
    seen: list[bool] = []

    def factory() -> nn.Module:
        module = small_cnn((2, 8, 8), 3)
        module.register_forward_pre_hook(
            lambda _, x: seen.append(x[0].is_contiguous(memory_format=torch.channels_last))
        )
        return module

    found = run(factory, PICTURES, channels_last=True)
    assert all(seen)
    weight = found.members[0].get_submodule("0").weight
    assert isinstance(weight, Tensor)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(found, run(lambda: small_cnn((2, 8, 8), 3), PICTURES))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimisers_that_are_not_fused_end_at_the_same(optimizer: Any) -> None:
    recipe = Recipe(optimizer, 0.02, 0.1, batch_size=9, epochs=3)
    assert_close(run(recipe=recipe, fused=False), run(recipe=recipe))


@pytest.mark.parametrize("options", [{"precision": "fp8"}, {"part": 0}, {"part": -1}])
@pytest.mark.usefixtures("shapes_unchecked")
def test_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(options))}="):
        Compute(**options)
