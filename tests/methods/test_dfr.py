"""DFR: its head against scikit-learn's, balanced subsets, the choice of C, missing groups, the shortcut overcome."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sparse_logistic import l1_logistic
from torch import Tensor
from toys import assert_same_bits, minority_accuracy, planted_task

from unrote.api import fit
from unrote.data import Task
from unrote.errors import DataError, OptionError
from unrote.methods import Session, dfr
from unrote.methods.dfr import CANDIDATES, DFR
from unrote.models import StackedMLP
from unrote.training import Recipe

RECIPE = Recipe("adam", 0.02, batch_size=16, epochs=3)


def balanced(task: Task) -> Task:
    """The task with as many validation examples of every group."""
    assert task.validation is not None
    group = task.group(task.validation)
    smallest = int(torch.bincount(group).min())
    rows = torch.cat([(group == g).nonzero().squeeze(1)[:smallest] for g in group.unique()])
    return replace(task, validation=task.validation.subset(rows))


def session(task: Task, **options: Any) -> Session:
    n_classes = task.n_classes
    return Session(
        task.for_regime("val"),
        lambda s: StackedMLP(8, n_classes, s, hidden=6),
        RECIPE,
        **{"seed": 1, **options},
    )


def test_is_scikit_learns_head_where_the_groups_are_balanced() -> None:
    run = session(balanced(planted_task(96)))
    fitted = DFR(C=0.7, n_subsets=1).fit(run)
    erm, x = run.erm().stack, run.validation.x
    scaler = StandardScaler().fit(erm.predict_features(run.task.train.x)[0].double().numpy())
    features = scaler.transform(erm.predict_features(x)[0].double().numpy())
    solver = l1_logistic(features, run.validation.y.numpy(), 0.7)
    logits = fitted.logits(x).double().numpy()
    np.testing.assert_allclose(
        logits[:, 1] - logits[:, 0], solver.decision_function(features), rtol=1e-3, atol=1e-3
    )


@pytest.fixture
def subsets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, float]]:
    """Labels and C of every head that is fitted."""
    found: list[tuple[Tensor, float]] = []
    real = dfr.fit_sparse_head

    def recorded(x: Tensor, y: Tensor, n_classes: int, *, C: float, **rest: Any) -> Any:
        found.append((y, C))
        return real(x, y, n_classes, C=C, **rest)

    monkeypatch.setattr(dfr, "fit_sparse_head", recorded)
    return found


def test_heads_are_fitted_on_as_many_examples_of_every_group(subsets: list[tuple[Tensor, float]]) -> None:
    run = session(planted_task(96))
    smallest = int(run.validation_groups().size.min())
    assert smallest == 6  # of 96: an eighth of each class is the exception
    DFR(C=0.3, n_subsets=4).fit(run)
    assert [(torch.bincount(y).tolist(), C) for y, C in subsets] == [([12, 12], 0.3)] * 4


def test_c_is_chosen_on_half_and_used_on_all(subsets: list[tuple[Tensor, float]]) -> None:
    run = session(planted_task(96))
    fitted = DFR(n_subsets=2).fit(run)
    chosen = fitted.artefacts["dfr_C"]
    assert [C for _, C in subsets] == [C for C in (*CANDIDATES, chosen) for _ in range(2)]
    assert [len(y) for y, _ in subsets] == [12] * 14 + [24] * 2
    alone = DFR(C=chosen, n_subsets=2).fit(session(planted_task(96)))
    assert_same_bits(alone.stack.state_dict(), fitted.stack.state_dict())


def test_a_group_with_one_example_can_be_learned_from() -> None:
    fitted = DFR().fit(session(planted_task(64, rare=3)))  # one of the rare class has attribute 1
    assert bool(torch.isfinite(fitted.logits(planted_task(64, rare=3).train.x)).all())


def without(task: Task, keep: Tensor) -> Task:
    assert task.validation is not None
    return replace(task, validation=task.validation.subset(keep.nonzero().squeeze(1)))


def test_a_missing_group_is_said_to_be() -> None:
    task = planted_task(64)
    assert task.validation is not None
    with pytest.warns(UserWarning, match=r"validation groups \[1\] have no examples"):
        DFR(C=1.0).fit(session(without(task, task.group(task.validation) != 1)))


def test_a_missing_class_is_refused() -> None:
    task = planted_task(64)
    assert task.validation is not None
    with pytest.raises(DataError, match="no validation example of class '1'"):
        DFR().fit(session(without(task, task.validation.y == 0)))


def test_nothing_to_choose_c_on_is_refused() -> None:
    task = planted_task(64)
    assert task.validation is not None
    group = task.group(task.validation)
    first = torch.stack([(group == g).nonzero()[0, 0] for g in range(4)])
    with pytest.raises(DataError, match="set C="):
        DFR().fit(session(replace(task, validation=task.validation.subset(first))))


@pytest.mark.parametrize("settings", [{"C": 0.0}, {"n_subsets": 0}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        DFR(**settings)  # type: ignore[arg-type]


def test_takes_inferred_groups() -> None:
    task = planted_task(256, attributes=False)
    fitted = fit(task, "dfr", groups="xrm", model="linear", recipe=RECIPE, seed=1)
    assert "xrm" in fitted.artefacts


def test_what_holds_in_every_group_is_learned_where_erm_learns_by_heart() -> None:
    for seed in (0, 1):
        assert minority_accuracy("dfr", seed) > minority_accuracy("erm", seed) + 0.5
