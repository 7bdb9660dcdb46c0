"""CCDB: weights under which classes have the moments of all, against closed forms, and the shortcut overcome."""

import numpy as np
import pytest
import torch
from toys import planted_task, worst_on_digits

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.ccdb import CCDB, matching_weight, spread
from unrote.models import StackedLinear
from unrote.training import Recipe


def moments(z: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = np.average(z, axis=0, weights=weight)
    return mean, np.sqrt(np.average((z - mean) ** 2, axis=0, weights=weight))


def test_spread_is_that_of_numpy() -> None:
    random = np.random.default_rng(0)
    z, p = random.normal(size=(9, 3)), random.dirichlet(np.ones(9))
    for found, wanted in zip(spread(torch.from_numpy(z), torch.from_numpy(p)), moments(z, p), strict=True):
        np.testing.assert_allclose(found, wanted)


def test_two_values_are_balanced_as_by_counts() -> None:
    """z says -1 or 1: the moments agree only where each class has both as often as all examples do."""
    y = torch.tensor([0] * 10 + [1] * 10)
    z = torch.tensor([[-1.0]] * 9 + [[1.0]] + [[-1.0]] * 2 + [[1.0]] * 8)
    weight = matching_weight(z, y, steps=1000)
    said = {-1.0: 11 / 20, 1.0: 9 / 20}
    sizes = {(0, -1.0): 9, (0, 1.0): 1, (1, -1.0): 2, (1, 1.0): 8}
    wanted = [
        10 * said[float(value)] / sizes[int(label), float(value)] for value, label in zip(z, y, strict=True)
    ]
    np.testing.assert_allclose(weight, wanted, rtol=1e-3)


@pytest.mark.parametrize("counted", [False, True])
def test_classes_get_the_moments_of_all_and_the_same_total(counted: bool) -> None:
    random = np.random.default_rng(1)
    y = np.repeat([0, 1, 2], [120, 90, 70])
    z = random.normal(size=(280, 2)) + np.array([[0.4, 0.0], [-0.4, 0.3], [0.0, -0.4]])[y]
    count = random.integers(0, 3, size=280) if counted else np.ones(280)
    found = matching_weight(
        torch.from_numpy(z),
        torch.from_numpy(y),
        steps=600,
        count=torch.from_numpy(count).float() if counted else None,
    )
    weight = found.double().numpy() * count
    overall = moments(z, count)
    for label in range(3):
        rows = y == label
        assert weight[rows].sum() == pytest.approx(weight.sum() / 3, rel=1e-5)
        for own, wanted in zip(moments(z[rows], weight[rows]), overall, strict=True):
            np.testing.assert_allclose(own, wanted, atol=0.02)


def test_no_steps_balance_classes_alone() -> None:
    y = torch.tensor([0, 0, 0, 1])
    assert matching_weight(torch.randn(4, 2), y, steps=0).tolist() == pytest.approx([2 / 3] * 3 + [2.0])


def test_equal_examples_and_a_class_with_one_give_finite_weights() -> None:
    y = torch.tensor([0, 0, 0, 1])
    found = matching_weight(torch.ones(4, 2), y, steps=20)
    assert found.tolist() == pytest.approx([2 / 3] * 3 + [2.0])
    assert bool(torch.isfinite(matching_weight(torch.randn(4, 2), y, steps=20)).all())


def test_exceptions_count_more() -> None:
    task = planted_task(64)
    session = Session(
        task, lambda seeds: StackedLinear(8, 2, seeds), Recipe("adam", 0.03, batch_size=16, epochs=20)
    )
    weight = CCDB().supervision(session).weight
    assert weight is not None
    exception = task.train.attribute != task.train.y
    assert float(weight[exception].mean()) > 3 * float(weight[~exception].mean())


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("settings", [{"share": 1.5}, {"space": "pixels"}, {"steps": -1}])
def test_refuses_settings_out_of_range(settings: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        CCDB(**settings)  # type: ignore[arg-type]


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("ccdb") > worst_on_digits("erm") + 0.2


def test_so_it_does_in_the_space_of_the_last_features() -> None:
    assert worst_on_digits("ccdb", space="features", steps=100) > worst_on_digits("erm") + 0.2
