"""The compiled step of linear heads against PyTorch's: the same losses, logits, heads and momentum, case by case."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import assert_same_bits, clusters

from unrote import compiled
from unrote.data.inputs import as_inputs
from unrote.errors import DataError
from unrote.models import LinearStep, Stack, StackedLinear, StackedMLP
from unrote.supervision import Supervision
from unrote.training import Batch, Recipe, Supervised, train
from unrote.training.updates import Updates

pytestmark = pytest.mark.skipif(
    compiled.library("linear_step", REAL="double") is None, reason="no C compiler"
)

N = 150


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class _Seen(Supervised):
    """Keeps the logits it is shown."""

    def see(self, stack: Stack, batch: Batch, logits: Tensor) -> None:
        self.logits = logits.clone()


def after_three_steps(
    by: str,
    supervision: Supervision,
    x: Tensor,
    *,
    members: int,
    classes: int,
    size: int,
    momentum: float = 0.9,
    bias: bool = True,
    own_batches: bool = False,
    held: bool = True,
) -> dict[str, Tensor]:
    """What three steps leave, by "compiled" code or by "torch"."""
    stack = StackedLinear(x.shape[-1], classes, range(members), bias=bias, dtype=x.dtype)
    rates, decays = [0.1 * (k + 1) for k in range(members)], [0.01 * k for k in range(members)]
    recipe = Recipe(
        "sgd", tuple(rates), weight_decay=tuple(decays), momentum=momentum, batch_size=size, steps=3
    )
    objective = _Seen(supervision)
    objective.prepare(stack, N)
    inputs = as_inputs(x if held else x.numpy().astype("float16"))
    updates = Updates(stack, objective, recipe, inputs)
    assert updates._compiled is not None
    assert updates.reads_rows == (held and x.dtype in (torch.float32, torch.float64))
    if by == "torch":
        updates._compiled = None
    left = {}
    for step in range(3):
        shape = (members, size) if own_batches else (size,)
        index = torch.randint(N, shape, generator=torch.Generator().manual_seed(step))
        updates.start()
        left[f"losses {step}"] = updates.take(Batch(index, inputs[index], step, 0))
        logits = objective.logits
        left[f"logits {step}"] = logits - logits[..., :1]
    left |= stack.state_dict()
    for k, kept in updates.optimizers["optimizer"].state_dict()["state"].items():
        left[f"momentum {k}"] = kept["momentum"]
    return left


def assert_same_steps(supervision: Supervision, x: Tensor, **options: Any) -> None:
    wanted = after_three_steps("torch", supervision, x, **options)
    found = after_three_steps("compiled", supervision, x, **options)
    single = x.dtype == torch.float32 or not options.get("held", True)
    exact = {"rtol": 1e-4, "atol": 1e-5} if single else {"rtol": 1e-9, "atol": 1e-11}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, **exact, msg=lambda text, name=name: f"{name}: {text}")


def supervised(
    classes: int, target: int | None, weight: int | None, shift: int | None, reduction: Any
) -> Supervision:
    """Of N examples, for so many members each; None leaves it out, of the target for all alike."""
    shape = (N,) if target is None else (target, N)
    return Supervision(
        torch.randint(classes, shape, generator=torch.Generator().manual_seed(7)),
        None if weight is None else drawn(weight, N, seed=1).clamp_min(0),
        None if shift is None else 3 * drawn(shift, N, classes, seed=2),
        reduction,
    )


@pytest.mark.parametrize("own_batches", [False, True], ids=["one minibatch", "own minibatches"])
@pytest.mark.parametrize("reduction", ["mean", "class_balanced"])
@pytest.mark.parametrize("shift", [None, 1, 3])
@pytest.mark.parametrize("weight", [None, 1, 3])
@pytest.mark.parametrize("target", [None, 3])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_step_is_that_of_torch(
    classes: int, target: int | None, weight: int | None, shift: int | None, reduction: Any, own_batches: bool
) -> None:
    supervision = supervised(classes, target, weight, shift, reduction)
    assert_same_steps(supervision, drawn(N, 11), members=3, classes=classes, size=20, own_batches=own_batches)


@given(
    members=st.integers(1, 9),
    classes=st.integers(2, 7),
    features=st.integers(1, 150),
    size=st.integers(1, 300),
    momentum=st.sampled_from([0.0, 0.9]),
    bias=st.booleans(),
    own_batches=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_of_any_size(members: int, classes: int, features: int, **options: Any) -> None:
    """Sizes that leave something over when they are cut into vectors, blocks, chunks and panels."""
    supervision = supervised(classes, None, members, None, "class_balanced")
    assert_same_steps(supervision, drawn(N, features), members=members, classes=classes, **options)


@pytest.mark.parametrize("classes", [2, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_many_heads_by_several_threads(classes: int, dtype: torch.dtype) -> None:
    supervision = supervised(classes, None, 1, 50, "mean")
    x = drawn(N, 700, dtype=dtype) / 20
    assert_same_steps(supervision, x, members=50, classes=classes, size=40)


def test_of_minibatches_that_are_handed_over() -> None:
    """Half precision is widened minibatch by minibatch, so the examples are not at hand as a whole."""
    x = drawn(N, 30, dtype=torch.float32).half().float()
    for own_batches in (False, True):
        assert_same_steps(
            supervised(2, None, 3, None, "mean"), x, members=3, classes=2, size=9, own_batches=own_batches
        )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_small_and_large_are_exact(classes: int, scale: float, dtype: torch.dtype) -> None:
    """Of one example at a time: relative to its own size, down to what the type can tell from 0."""
    x = torch.eye(40, dtype=dtype)
    for example in range(40):
        stack = StackedLinear(40, classes, (0,), init="zeros", dtype=dtype)
        with torch.no_grad():
            stack.weight.copy_(scale * drawn(1, classes, 40, seed=example, dtype=dtype))
        optimizer: Any = stack.optimizer("sgd", [0.0], [0.0], 0.0)
        step = LinearStep.of(stack, optimizer, as_inputs(x), 1)
        assert step is not None
        target = torch.full((40,), example % classes)
        found, _ = step.take(None, torch.tensor([example]), Supervision(target))
        logits, eps = stack.weight.detach()[0, :, example].double(), torch.finfo(dtype).eps
        own = logits[target[example]]
        if classes == 2:
            wanted, least = softplus(logits[1 - target[example]] - own), 4 * torch.finfo(dtype).tiny
        else:  # the log of a sum near 1 is known to rounding only, as in torch
            wanted, least = logits.logsumexp(0) - own, 4 * eps * max(1, scale)
        torch.testing.assert_close(found[0].double(), wanted, rtol=20 * eps * max(1, scale / 10), atol=least)


def softplus(z: Tensor) -> Tensor:
    """log(1 + exp(z)), which torch's own takes to be z or 0 where it is small."""
    return z.clamp_min(0) + (-z.abs()).exp().log1p()


class TestMembers:
    def test_do_not_depend_on_their_neighbours(self) -> None:
        """To the bit, whatever the blocks that their products are made in."""
        x, y = clusters(N, 3, 37, seed=0)
        recipe = Recipe("sgd", 0.1, batch_size=17, epochs=3)
        together = StackedLinear(37, 3, range(7))
        train(together, x, Supervised(Supervision(y)), recipe, seed=tuple(range(7)))
        for member in range(7):
            alone = StackedLinear(37, 3, (member,))
            train(alone, x, Supervised(Supervision(y)), recipe, seed=(member,))
            assert_same_bits(
                alone.state_dict(), {k: v[member : member + 1] for k, v in together.state_dict().items()}
            )

    def test_that_diverge_leave_their_neighbours_alone(self) -> None:
        supervision, x = supervised(2, None, None, None, "mean"), drawn(N, 20)
        left = []
        for broken in (False, True):
            stack = StackedLinear(20, 2, range(3), dtype=torch.float64)
            if broken:
                with torch.no_grad():
                    stack.weight[1, 0, 5] = torch.nan
            step = LinearStep.of(stack, stack.optimizer("sgd", [0.1] * 3, [0.0] * 3, 0.9), as_inputs(x), 10)
            assert step is not None
            losses, _ = step.take(None, torch.arange(10), supervision)
            assert bool(losses[1].isnan()) == bool(stack.weight[1].isnan().any()) == broken
            left.append((losses[[0, 2]], stack.weight.detach()[[0, 2]]))
        assert torch.equal(left[0][0], left[1][0])
        assert torch.equal(left[0][1], left[1][1])

    @pytest.mark.parametrize("classes", [2, 3])
    def test_do_not_see_what_weighs_nothing(self, classes: int) -> None:
        """Not even where their logits overflow."""
        x, weight = drawn(N, 20), torch.ones(N, dtype=torch.float64)
        x[4], weight[4] = 1e308, 0
        stack = StackedLinear(20, classes, (0, 1), dtype=torch.float64)
        step = LinearStep.of(stack, stack.optimizer("sgd", [0.1] * 2, [0.0] * 2, 0.9), as_inputs(x), 10)
        assert step is not None
        target = torch.zeros(N, dtype=torch.long)
        losses, _ = step.take(None, torch.arange(10), Supervision(target, weight))
        assert bool(losses.isfinite().all())

    def test_whose_examples_all_weigh_nothing_follow_their_momentum(self) -> None:
        stack = StackedLinear(20, 2, (0, 1), dtype=torch.float64)
        optimizer: Any = stack.optimizer("sgd", [0.1] * 2, [0.0] * 2, 0.9)
        step = LinearStep.of(stack, optimizer, as_inputs(drawn(N, 20)), 10)
        assert step is not None
        target = torch.zeros(N, dtype=torch.long)
        step.take(None, torch.arange(10), Supervision(target))
        before, momentum = stack.snapshot()["weight"], optimizer.state[stack.weight]["momentum"].clone()
        losses, _ = step.take(
            None, torch.arange(10), Supervision(target, torch.zeros(N, dtype=torch.float64))
        )
        assert bool((losses == 0).all())
        torch.testing.assert_close(stack.weight.detach(), before - 0.1 * 0.9 * momentum)


class TestIsLeftToTorch:
    def made(
        self, stack: Stack | None = None, optimizer: str = "sgd", x: Tensor | None = None, size: int = 8
    ) -> Any:
        stack = stack or StackedLinear(6, 2, (0, 1))
        n = stack.n_members
        made = stack.optimizer(optimizer, [0.1] * n, [0.0] * n, 0.9)
        return LinearStep.of(stack, made, as_inputs(drawn(N, 6) if x is None else x), size)

    def test_what_is_no_linear_head_with_sgd(self) -> None:
        assert self.made() is not None
        assert self.made(optimizer="adam") is None
        assert self.made(StackedMLP(6, 2, (0,))) is None

    def test_what_no_compiler_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("unrote.models.linear_step.library", lambda *_, **__: None)
        assert self.made() is None

    def test_more_than_it_is_good_at(self) -> None:
        threads = torch.get_num_threads()
        assert self.made(StackedLinear(6, 2, (0,)), size=2**26) is None
        try:
            torch.set_num_threads(2)
            assert self.made(StackedLinear(6, 2, (0,)), size=2**20) is None  # of which one thread would work
            torch.set_num_threads(1)
            assert self.made(StackedLinear(6, 2, (0,)), size=2**20) is not None
        finally:
            torch.set_num_threads(threads)

    def test_a_frozen_part(self) -> None:
        stack = StackedLinear(6, 2, (0, 1))
        assert stack.bias is not None
        stack.bias.requires_grad_(False)
        assert self.made(stack) is None

    @pytest.mark.parametrize(
        "odd",
        [
            Supervision(torch.zeros(N, dtype=torch.long), torch.ones(N, dtype=torch.float64)),
            Supervision(torch.zeros(N, dtype=torch.long), shift=torch.zeros(2, N, 2).mT.contiguous().mT),
            Supervision(torch.zeros(N, 2, dtype=torch.long).T),
            Supervision(torch.zeros(N, dtype=torch.int32)),
        ],
        ids=["another type", "a shift that lies otherwise", "targets that lie otherwise", "short targets"],
    )
    def test_supervision_it_cannot_read(self, odd: Supervision) -> None:
        assert not self.made().accepts(odd)
        assert self.made().accepts(Supervision(torch.zeros(N, dtype=torch.long)))

    def test_a_stack_whose_parameters_are_others_now(self) -> None:
        stack = StackedLinear(6, 2, (0, 1), bias=False)
        step, supervision = self.made(stack), Supervision(torch.zeros(N, dtype=torch.long))
        assert step.accepts(supervision)
        stack.set_head(torch.zeros(2, 6), torch.ones(2))  # which brings a bias
        assert not step.accepts(supervision)


@pytest.mark.parametrize("target", [-1, 2, 2**40])
def test_targets_that_are_no_class_are_refused_and_change_nothing(target: int) -> None:
    stack = StackedLinear(6, 2, (0, 1))
    inputs = as_inputs(drawn(N, 6, dtype=torch.float32))
    step = LinearStep.of(stack, stack.optimizer("sgd", [0.1] * 2, [0.0] * 2, 0.9), inputs, 8)
    assert step is not None
    before = stack.snapshot()
    with pytest.raises(DataError, match="0 to 1"):
        step.take(None, torch.arange(8), Supervision(torch.full((N,), target)))
    assert_same_bits(stack.state_dict(), before)


def test_minibatches_are_not_brought_together_unless_asked_for() -> None:
    class Asks(Supervised):
        def see(self, stack: Stack, batch: Batch, logits: Tensor) -> None:
            loaded.append("x" in vars(batch))
            assert torch.equal(batch.x, x[batch.index])

    x, y = clusters(N, 2, 6, seed=0)
    loaded: list[bool] = []
    train(StackedLinear(6, 2), x, Asks(Supervision(y)), Recipe("sgd", 0.1, batch_size=10, steps=3))
    assert loaded == [False] * 3
