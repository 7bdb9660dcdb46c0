"""REPAIR's bias against a fitted reader and by hand, and its weights: the attribute says nothing of the class."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from toys import minority_accuracy, planted_task

from unrote.api import fit
from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, Session, SupervisionMethod
from unrote.methods.repair import repair_weights, representation_bias
from unrote.models import StackedLinear
from unrote.training import Recipe

SIZE = torch.tensor([[40, 5], [5, 20], [10, 20]])


def by_a_reader(mass: np.ndarray) -> float:
    """1 - R / H, with R the risk of a logistic regression of the class on indicators of the attribute."""
    y, attribute = (axis.ravel() for axis in np.indices(mass.shape))
    weight = mass.ravel()
    reader = LogisticRegression(C=1e8, max_iter=10_000, tol=1e-10)
    reader.fit(np.eye(mass.shape[1])[attribute], y, sample_weight=weight)
    log_p = reader.predict_log_proba(np.eye(mass.shape[1])[attribute])
    risk = -(weight * log_p[np.arange(len(y)), y]).sum() / weight.sum()
    share = mass.sum(1) / mass.sum()
    return float(1 - risk / -(share * np.log(share)).sum())


def test_bias_is_that_of_the_best_linear_reader() -> None:
    found = float(representation_bias(SIZE.double()))
    assert found == pytest.approx(by_a_reader(SIZE.numpy().astype(float)), abs=1e-5)


@pytest.mark.parametrize(
    ("mass", "wanted"),
    [([[1.0, 1.0], [1.0, 1.0]], 0.0), ([[3.0, 6.0], [1.0, 2.0]], 0.0), ([[2.0, 0.0], [0.0, 5.0]], 1.0)],
    ids=["equal groups", "independent", "one attribute a class"],
)
def test_bias_by_hand(mass: list[list[float]], wanted: float) -> None:
    assert float(representation_bias(torch.tensor(mass))) == pytest.approx(wanted, abs=1e-6)


def test_weights_take_the_bias_away() -> None:
    weight, bias = repair_weights(SIZE, 1000, 0.03)
    assert bias < 1e-4
    assert bias == pytest.approx(by_a_reader((SIZE * weight).numpy()), abs=1e-5)
    assert bool(((weight > 0) & (weight < 1)).all())
    # what there is too much of goes down, what there is too little of goes up
    surplus = SIZE / SIZE.sum() - SIZE.sum(0) * SIZE.sum(1, keepdim=True) / SIZE.sum() ** 2
    assert bool(((weight < 0.5) == (surplus > 0)).all())


def test_no_steps_leave_all_weights_equal() -> None:
    weight, bias = repair_weights(SIZE, 0, 0.03)
    assert weight.unique().tolist() == [0.5]
    assert bias == pytest.approx(float(representation_bias(SIZE.double())))


def test_groups_and_classes_without_examples_are_harmless() -> None:
    weight, bias = repair_weights(torch.tensor([[9, 1], [0, 0], [3, 3], [4, 0]]), 300, 0.03)
    assert bool(torch.isfinite(weight).all())
    assert np.isfinite(bias)


def supervise(task: Task, **settings: object) -> torch.Tensor:
    session = Session(task, lambda seeds: StackedLinear(2, 2, seeds), Recipe(epochs=1))
    method = METHODS["repair"](**settings)
    assert isinstance(method, SupervisionMethod)
    weight = method.supervision(session).weight
    assert weight is not None
    return weight


def test_examples_of_a_group_weigh_the_same() -> None:
    y, attribute = torch.arange(20) % 2, (torch.arange(20) % 5 == 0).long()
    weight = supervise(Task("t", train=Split(torch.zeros(20, 2), y, attribute)))
    for group in range(4):
        assert len(weight[2 * y + attribute == group].unique()) == 1


def test_what_weights_cannot_undo_is_warned_of() -> None:
    y = torch.arange(20) % 2
    with pytest.warns(UserWarning, match="explains 100% of the class"):
        supervise(Task("t", train=Split(torch.zeros(20, 2), y, y)))


@pytest.mark.parametrize("setting", [{"steps": -1}, {"step_size": 0.0}], ids=lambda s: next(iter(s)))
def test_bad_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(setting))):
        fit(planted_task(), "repair", **setting)


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("repair", 0) > minority_accuracy("erm", 0) + 0.2
