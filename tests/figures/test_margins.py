import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from sklearn.svm import SVC

from unrote.data import Split
from unrote.errors import DataError
from unrote.figures.margins import Setup, descend, largest_margin, limit, stable_rate, three_numbers
from unrote.models import StackedLinear
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train

SMALL = Setup(n=120, noise_dims=200)


def test_largest_margin_is_that_of_another_solver() -> None:
    z = SMALL.examples(seed=3)
    both = torch.cat([z, -z])  # mirrored, which leaves the other solver's offset at 0
    sign = torch.cat([torch.ones(len(z)), -torch.ones(len(z))])
    machine = SVC(kernel="linear", C=1e9, tol=1e-8).fit(both.numpy(), sign.numpy())
    expected = torch.tensor(machine.coef_[0])
    assert abs(machine.intercept_[0]) < 1e-6
    torch.testing.assert_close(largest_margin(z), expected, rtol=1e-4, atol=1e-5)


def test_largest_margin_of_a_problem_solved_by_hand() -> None:
    # both constraints are tight: u + v = 1 and u - v / 2 = 1
    z = torch.tensor([[1.0, 1.0], [1.0, -0.5]]).double()
    torch.testing.assert_close(largest_margin(z), torch.tensor([1.0, 0.0]).double(), atol=1e-5, rtol=0)


def test_examples_without_a_separator_are_refused() -> None:
    with pytest.raises(DataError, match="no separator"):
        largest_margin(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double())


def test_descent_is_that_of_the_training_loop() -> None:
    z = SMALL.examples(seed=0)
    y = torch.arange(len(z)) % 2
    x = (z * (2.0 * y - 1).unsqueeze(1)).float()
    stack = StackedLinear(x.shape[1], 2, bias=False, init="zeros")
    recipe = Recipe("sgd", 0.05, momentum=0.0, steps=30, batch_size=None)
    weight = train(stack, x, Supervised(Supervision(y)), recipe).stack.snapshot()["weight"][0]
    (found,) = descend(z, 0.05, [30])
    torch.testing.assert_close(found.float(), weight[1] - weight[0], rtol=1e-3, atol=1e-5)


def test_descent_at_the_stable_rate_lowers_the_loss() -> None:
    z = SMALL.examples(seed=0)
    losses = [
        torch.nn.functional.softplus(-(z @ w)).mean() for w in descend(z, stable_rate(z), [1, 2, 5, 20, 80])
    ]
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_accuracy_is_that_of_examples_drawn() -> None:
    setup = Setup(n=20_000, noise_dims=3, sigma=0.5, alignment=0.5)
    z = setup.examples(seed=1)
    weight = torch.tensor([1.0, 0.25, 1.0, -2.0, 0.5]).double()
    correct = (z @ weight > 0).double()
    majority = z[:, 1] > 0
    expected = (float(correct[majority].mean()), float(correct[~majority].mean()))
    assert setup.accuracy(three_numbers(weight)) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize(
    "change", [{}, {"sigma": 0.9}, {"spurious_scale": 1.0}, {"n": 150}, {"noise_dims": 1000}]
)
def test_limit_predicts_the_largest_margin(change: dict[str, float]) -> None:
    setup = replace(Setup(n=300, noise_dims=540), **change)
    predicted = setup.accuracy(limit(setup))[1]
    found = [setup.accuracy(three_numbers(largest_margin(setup.examples(seed))))[1] for seed in range(4)]
    assert predicted == pytest.approx(sum(found) / 4, abs=0.1)


def test_limit_needs_noise() -> None:
    with pytest.raises(DataError, match="without noise"):
        limit(Setup(sigma=0.0))


def test_smaller_leaves_the_limit_as_it_is() -> None:
    assert limit(Setup().smaller(2)) == pytest.approx(limit(Setup()), rel=1e-3)


def test_weight_on_the_spurious_feature_alone_fails_the_minority() -> None:
    majority, minority = Setup().accuracy((0.0, 1.0, 0.0))
    assert majority == pytest.approx(1.0)
    assert minority == pytest.approx(0.0, abs=1e-12)
    assert Setup().accuracy((1.0, 0.0, 0.0))[1] == pytest.approx(1.0)
    assert math.isclose(Setup().accuracy((0.0, 0.0, 0.0))[1], 0.5)


def test_examples_are_the_task_times_its_signs() -> None:
    setup = Setup(n=40, noise_dims=5)
    z = setup.examples(seed=2)
    assert z.shape == (40, 7)
    assert float(z[:, 0].mean()) == pytest.approx(1.0, abs=0.1)  # the core feature is the class's sign
    assert Split(z, torch.zeros(40).long()).x.shape == (7,)
