"""SGD and Adam of a stack against torch.optim, member by member, in float64; Adam in compiled code and without."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unrote.compiled import library
from unrote.models.optimizers import Optimizer, StackedAdam, StackedSGD

SHAPES = [(3, 4, 2), (3, 4), (3, 1, 2, 2), (3, 5, 3500)]  # three members each; the last for several threads
STEPS = 12

Make = Callable[..., Optimizer]
KINDS: dict[str, tuple[Make, Make]] = {
    "sgd": (StackedSGD, torch.optim.SGD),
    "sgd, momentum": (
        lambda p, lr, wd: StackedSGD(p, lr, wd, momentum=0.9),
        lambda p, **rest: torch.optim.SGD(p, momentum=0.9, **rest),
    ),
    "adam": (StackedAdam, torch.optim.Adam),
    "adamw": (lambda p, lr, wd: StackedAdam(p, lr, wd, decoupled=True), torch.optim.AdamW),
}


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does the work."""
    if request.param == "torch":
        monkeypatch.setattr("unrote.models.optimizers.library", lambda *_, **__: None)
    elif library("adam", REAL="double") is None:
        pytest.skip("no C compiler")


def random_tensors(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in SHAPES]


def descend(optimizer: Optimizer, parameters: list[Tensor], pick: Any = slice(None)) -> None:
    """Steps along gradients that depend on the parameter, and so on every step before."""
    for step in range(STEPS):
        for p, noise in zip(parameters, random_tensors(100 + step), strict=True):
            p.grad = noise[pick] + p.detach().sin()
        optimizer.step()


@pytest.mark.parametrize("learning_rate", [[0.1, 0.1, 0.1], [0.1, 0.02, 0.0]], ids=["one rate", "own rates"])
@pytest.mark.parametrize("weight_decay", [[0.0] * 3, [0.3] * 3, [0.0, 0.3, 0.05]], ids=["none", "one", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_member_moves_as_under_torch(
    kind: str, learning_rate: list[float], weight_decay: list[float]
) -> None:
    stacked_kind, torch_kind = KINDS[kind]
    stacked = [p.requires_grad_() for p in random_tensors(0)]
    descend(stacked_kind(stacked, learning_rate, weight_decay), stacked)
    for member in range(3):
        alone = [p[member].clone().requires_grad_() for p in random_tensors(0)]
        rates = {"lr": learning_rate[member], "weight_decay": weight_decay[member]}
        descend(torch_kind(alone, **rates), alone, member)
        for found, wanted in zip(stacked, alone, strict=True):
            torch.testing.assert_close(found[member], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_without_gradient_stay(kind: str) -> None:
    used, unused = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    optimizer = KINDS[kind][0]([used, unused], [0.1, 0.1], [0.5, 0.5])
    used.grad = torch.ones(2, 3)
    optimizer.step()
    assert bool((used < 1).all())
    assert torch.equal(unused, torch.ones(2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_one_member_moves_no_other(kind: str) -> None:
    p = torch.ones(3, 2, requires_grad=True)
    p.grad = torch.tensor([[0.0, 0], [7, 7], [0, 0]])
    KINDS[kind][0]([p], [0.1, 0.2, 0.3], [0.0] * 3).step()
    assert torch.equal(p[[0, 2]], torch.ones(2, 2))
    assert bool((p[1] < 1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_through_a_state_dict(kind: str) -> None:
    """What a checkpoint relies on: an optimiser with the state of another goes on where that one stood."""
    make, rates, decays = KINDS[kind][0], [0.1, 0.2, 0.3], [0.01, 0.0, 0.02]
    straight = [p.requires_grad_() for p in random_tensors(0)]
    optimizer = make(straight, rates, decays)
    descend(optimizer, straight)
    halfway = [p.detach().clone().requires_grad_() for p in straight]
    resumed = make(halfway, rates, decays)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    descend(optimizer, straight)
    descend(resumed, halfway)
    for found, wanted in zip(halfway, straight, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_that_lie_otherwise_and_other_numbers(dtype: torch.dtype) -> None:
    """What compiled code does not read is read all the same."""
    start, slope = torch.ones(2, 6, 4, dtype=dtype), torch.arange(48.0, dtype=dtype).view(2, 4, 6)
    found = []
    for gradient in (slope.mT, slope.mT.contiguous()):
        p = start.clone().requires_grad_()
        p.grad = gradient.clone() if gradient.is_contiguous() else gradient
        StackedAdam([p], [0.1, 0.2], [0.0, 0.5]).step()
        found.append(p.detach())
    torch.testing.assert_close(found[0], found[1])
