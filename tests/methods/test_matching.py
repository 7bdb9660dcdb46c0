"""MMD and CORAL: distances against loops over examples, which pairs are compared, and what matching does."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import assert_same_bits, planted_task

from unrote.api import evaluate, fit
from unrote.data import Split, Task, load_task
from unrote.errors import OptionError
from unrote.methods import Groups
from unrote.methods.coral import moment_distance
from unrote.methods.matching import Matching
from unrote.methods.mmd import WIDTHS, squared_mmd
from unrote.models import StackedLinear, StackedMLP
from unrote.training import Batch, Recipe

RANDOM = torch.Generator().manual_seed(0)
ONE, OTHER = torch.randn(5, 3, generator=RANDOM), 0.5 + 2 * torch.randn(4, 3, generator=RANDOM)
BOTH = pytest.mark.parametrize("method", ["mmd", "coral"])


def mmd_by_loops(one: np.ndarray, other: np.ndarray) -> float:
    """Gretton et al. 2012, equation 3, with the kernel summed over the widths."""
    both = [*one, *other]
    median = np.sort([((u - v) ** 2).sum() for u, v in itertools.permutations(both, 2)])
    middle = median[(len(median) - 1) // 2]

    def kernel(u: np.ndarray, v: np.ndarray) -> float:
        return float(np.mean([np.exp(-((u - v) ** 2).sum() / (w * middle)) for w in WIDTHS]))

    within = [np.mean([kernel(u, v) for u, v in itertools.permutations(s, 2)]) for s in (one, other)]
    between = np.mean([kernel(u, v) for u in one for v in other])
    return float(sum(within) - 2 * between)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_mmd_is_grettons_unbiased_estimate(offset: float) -> None:
    found = squared_mmd(ONE + offset, OTHER + offset).item()
    assert found == pytest.approx(mmd_by_loops(ONE.numpy(), OTHER.numpy()), abs=1e-3 if offset else 1e-6)


def test_mmd_does_not_depend_on_the_scale() -> None:
    torch.testing.assert_close(squared_mmd(7 * ONE, 7 * OTHER), squared_mmd(ONE, OTHER))


def test_mmd_of_examples_that_are_all_alike_is_0_with_a_gradient() -> None:
    one = torch.ones(3, 2, requires_grad=True)
    distance = squared_mmd(one, torch.ones(2, 2))
    distance.backward()
    assert distance.item() == pytest.approx(0.0)
    assert one.grad is not None
    assert bool(torch.isfinite(one.grad).all())


def test_coral_is_moments_by_numpy() -> None:
    means = ONE.numpy().mean(0) - OTHER.numpy().mean(0)
    covariances = np.cov(ONE.numpy().T) - np.cov(OTHER.numpy().T)
    wanted = (means**2).mean() + (covariances**2).mean()
    assert moment_distance(ONE, OTHER).item() == pytest.approx(wanted, rel=1e-5)
    assert moment_distance(ONE[:, :1], OTHER[:, :1]).isfinite()  # one feature has a variance


Y = torch.tensor([0] * 6 + [1] * 5 + [2] * 3)
A = torch.tensor([0, 0, 0, 1, 1, 2, 0, 0, 1, 1, 1, 0, 0, 0])
X = torch.randn(14, 4, generator=RANDOM)
BATCH = Batch(torch.arange(14), X, 0, 0)


@pytest.mark.parametrize("within_class", [True, False])
@pytest.mark.parametrize("kind", [StackedMLP, StackedLinear])
def test_the_loss_compares_attributes_of_two_examples_or_more(
    kind: type[StackedMLP | StackedLinear], within_class: bool
) -> None:
    model = kind(4, 3, [0, 1])
    groups = Groups(A, Y * 3 + A, 3, 9)
    objective = Matching(Y, groups, moment_distance, 2.0, within_class=within_class, method="coral")
    features, logits = model.features_and_logits(X)
    # a linear head learns no features: its logits stand in
    seen = features if kind is StackedMLP else logits
    for member, found in enumerate(objective.loss(model, BATCH)):

        def rows(y: int | None, attribute: int, member: int = member) -> torch.Tensor:
            return seen[member][(attribute == A) & ((y is None) | (y == Y))]

        # attribute 2 has one example, class 2 one attribute
        cells = [0, 1] if within_class else [None]
        distances = [moment_distance(rows(y, 0), rows(y, 1)) for y in cells]
        wanted = F.cross_entropy(logits[member], Y) + 2.0 * torch.stack(distances).mean()
        torch.testing.assert_close(found, wanted)


def test_a_minibatch_with_nothing_to_compare_has_no_penalty() -> None:
    model = StackedMLP(4, 3, [0])
    objective = Matching(Y, Groups(A, Y * 3 + A, 3, 9), squared_mmd, 2.0, within_class=True, method="mmd")
    index = torch.tensor([0, 3, 6, 11, 12])
    found = objective.loss(model, Batch(index, X[index], 0, 0))
    torch.testing.assert_close(found[0], F.cross_entropy(model(X[index])[0], Y[index]))


@pytest.mark.usefixtures("gradients_derived")
@BOTH
def test_strength_0_is_erm(method: str) -> None:
    task, recipe = planted_task(), Recipe("adam", 0.02, batch_size=16, steps=10)
    erm = fit(task, "erm", model="mlp", recipe=recipe)
    found = fit(task, method, model="mlp", recipe=recipe, strength=0.0)
    assert_same_bits(found.stack.state_dict(), erm.stack.state_dict())


@BOTH
def test_attributes_that_do_not_differ_are_refused(method: str) -> None:
    task = Task("one", train=Split(X, Y, torch.zeros(14, dtype=torch.long)))
    with pytest.raises(OptionError, match="at least two"):
        fit(task, method, model="linear")


@BOTH
def test_negative_strength_is_refused(method: str) -> None:
    with pytest.raises(OptionError, match="strength"):
        fit(planted_task(), method, strength=-1.0)


@BOTH
def test_the_worst_group_gains_on_erm(method: str) -> None:
    task, recipe = load_task("digits", seed=0), Recipe("adam", 1e-3, epochs=20)
    erm = evaluate(fit(task, "erm", recipe=recipe), task).worst_group.accuracy
    found = evaluate(fit(task, method, recipe=recipe, strength=10.0), task).worst_group.accuracy
    assert found > erm + 0.05
