"""The loss that makes a model biased against its formula and gradient, and what tells that a model is not."""

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from toys import planted_task

from unrote.data import Split, Task
from unrote.errors import DataError
from unrote.methods import METHODS, Session
from unrote.methods.biased import (
    BiasedObjective,
    generalised_cross_entropy,
    mistakes,
    warn_if_reversed,
    weighted_mean,
)
from unrote.models import StackedLinear
from unrote.training import Batch, Recipe

RANDOM = torch.Generator().manual_seed(0)
LOGITS, Y = 2 * torch.randn(2, 5, 3, generator=RANDOM, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])


@pytest.mark.parametrize("q", [0.05, 0.7, 1.0])
def test_generalised_cross_entropy_is_its_formula(q: float) -> None:
    z = LOGITS.numpy()
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    wanted = (1 - p[:, np.arange(5), Y.numpy()] ** q) / q
    np.testing.assert_allclose(generalised_cross_entropy(LOGITS, Y, q), wanted, rtol=1e-10)


def test_its_gradient_is_that_of_cross_entropy_times_p_to_the_q() -> None:
    q, logits = 0.7, LOGITS[0].clone().requires_grad_()
    (found,) = torch.autograd.grad(generalised_cross_entropy(logits, Y, q).sum(), logits)
    p = LOGITS[0].softmax(1)
    of_cross_entropy = p - torch.nn.functional.one_hot(Y, 3)
    torch.testing.assert_close(found, p.gather(1, Y.unsqueeze(1)) ** q * of_cross_entropy)


def test_its_limit_for_small_q_is_cross_entropy() -> None:
    wanted = torch.nn.functional.cross_entropy(LOGITS[0], Y, reduction="none")
    torch.testing.assert_close(generalised_cross_entropy(LOGITS[0], Y, 1e-9), wanted)


def test_sure_predictions_keep_their_digits() -> None:
    logits = torch.tensor([[30.0, -30.0]])  # p is 1 - 9e-27
    loss = generalised_cross_entropy(logits.double(), torch.tensor([0]), 0.5)
    assert float(loss) == pytest.approx(np.exp(-60.0), rel=1e-9)
    assert bool(torch.isfinite(generalised_cross_entropy(1e4 * logits, torch.tensor([1]), 0.5)).all())


def test_weighted_mean() -> None:
    losses = torch.tensor([[1.0, 3.0], [2.0, 8.0]])
    assert weighted_mean(losses, None).tolist() == [2.0, 5.0]
    assert weighted_mean(losses, torch.tensor([3.0, 1.0])).tolist() == [1.5, 3.5]
    assert weighted_mean(losses, torch.zeros(2)).tolist() == [0.0, 0.0]


def test_objective_is_the_mean_and_takes_sample_weights() -> None:
    stack, x = StackedLinear(4, 3, (0, 1)), torch.randn(5, 4, generator=RANDOM)
    index = torch.tensor([3, 0, 4])
    objective = BiasedObjective(Y, 0.7)
    objective.prepare(stack, 5)
    losses = generalised_cross_entropy(stack(x[index]), Y[index], 0.7)
    torch.testing.assert_close(objective.loss(stack, Batch(index, x[index], 0, 0)), losses.mean(1))
    weight = torch.tensor([2.0, 1.0, 1.0, 0.0, 1.0])
    assert objective.with_weight(weight) is objective
    objective.prepare(stack, 5)
    wanted = (2 * losses[:, 1] + losses[:, 2]) / 3
    torch.testing.assert_close(objective.loss(stack, Batch(index, x[index], 0, 0)), wanted)


def test_objective_refuses_labels_for_other_examples() -> None:
    with pytest.raises(DataError, match="5 labels for 6 examples"):
        BiasedObjective(Y, 0.7).prepare(StackedLinear(4, 3), 6)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["jtt", "lff", "lc", "ula", "ccdb", "fg_ccdb", "dpr", "bam", "umix"])
def test_sample_weights(name: str) -> None:
    """Equal ones make no difference; others do, in every method whose first model is biased."""
    task, recipe = planted_task(64), Recipe("adam", 0.02, batch_size=16, epochs=6)

    def fitted(weight: torch.Tensor | None) -> torch.Tensor:
        def build(seeds: Sequence[int]) -> StackedLinear:
            return StackedLinear(8, 2, seeds, dtype=torch.float64)

        session = Session(task.for_regime("none"), build, recipe, sample_weight=weight)
        return METHODS[name]().fit(session).stack.head()[0]

    plain, equal, other = fitted(None), fitted(torch.ones(64)), fitted(torch.linspace(0.0, 3.0, 64))
    torch.testing.assert_close(equal, plain, rtol=1e-4, atol=1e-5)
    assert bool(torch.isfinite(other).all())
    assert not torch.allclose(other, plain, rtol=1e-2)


class TestWarnings:
    """A linear model that says the sign of the feature which shows the attribute, or its opposite."""

    task = planted_task(64)

    def session(self) -> Session:
        return Session(self.task, lambda seeds: StackedLinear(8, 2, seeds), Recipe(epochs=1))

    def model(self, sign: float) -> StackedLinear:
        stack = StackedLinear(8, 2)
        stack.set_head(torch.tensor([[-sign], [sign]]) * torch.eye(1, 8), torch.zeros(2))
        return stack

    def test_mistakes_are_the_exceptions_to_the_shortcut(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wrong = mistakes(self.session(), self.model(1.0), "nothing")
        assert torch.equal(wrong, self.task.train.attribute != self.task.train.y)

    def test_no_mistake_warns_with_advice(self) -> None:
        y = torch.arange(6) % 2
        task = Task("easy", train=Split(torch.eye(2, 8)[y], y))
        session = Session(task, lambda seeds: StackedLinear(8, 2, seeds), Recipe(epochs=1))
        right = StackedLinear(8, 2)
        right.set_head(torch.eye(2, 8), torch.zeros(2))
        with pytest.warns(UserWarning, match="right about all 6 training examples.*: do this"):
            assert not mistakes(session, right, "do this").any()

    def test_the_reverse_of_the_shortcut_warns(self) -> None:
        with pytest.warns(
            UserWarning, match="right about 12% of the training .* reverse of the shortcut.*that"
        ):
            warn_if_reversed(self.session(), self.model(-1.0), "that")

    def test_the_shortcut_does_not(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_if_reversed(self.session(), self.model(1.0), "that")
