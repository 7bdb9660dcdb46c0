"""GroupDRO's weights of groups against the paper's update, and that they follow the worst group."""

import numpy as np
import pytest
import torch
from toys import planted_task

from unrote.api import evaluate, fit
from unrote.data import Task
from unrote.errors import OptionError
from unrote.methods import Groups
from unrote.methods.groupdro import WorstGroup
from unrote.models import StackedLinear
from unrote.training import Batch, Recipe

Y = torch.tensor([0, 0, 0, 1, 1, 1])
A = torch.tensor([0, 0, 1, 1, 1, 1])  # groups 0, 0, 1, 3, 3, 3; none has class 1 with attribute 0
GROUPS = Groups(A, Y * 2 + A, 2, 4)
X = torch.tensor([[1.0], [2.0], [-1.0], [0.5], [-2.0], [3.0]])


def stack(n_members: int = 1) -> StackedLinear:
    return StackedLinear(1, 2, range(n_members))


def batch(index: list[int], step: int = 0) -> Batch:
    rows = torch.tensor(index)
    return Batch(rows, X[rows], step, 0)


def example_losses(model: StackedLinear) -> np.ndarray:
    logits = model(X)[0].detach().numpy().astype(np.float64)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(6), Y.numpy()]


def test_follows_the_papers_update_over_two_steps() -> None:
    model, objective = stack(), WorstGroup(Y, GROUPS, 0.5, 2.0)
    objective.prepare(model, 6)
    each = example_losses(model)
    q = np.array([1, 1, 0, 1]) / 3
    for index in ([0, 1, 2, 4], [0, 5, 3]):  # the second has nobody of group 1
        loss = np.zeros(4)
        raised = np.zeros(4)
        for group, size in ((0, 2), (1, 1), (3, 3)):
            inside = [each[i] for i in index if int(GROUPS.index[i]) == group]
            if inside:
                loss[group] = np.mean(inside)
                raised[group] = loss[group] + 2.0 / np.sqrt(size)
        q = q * np.exp(0.5 * raised)
        q /= q.sum()
        found = objective.loss(model, batch(index))
        # the adjustment moves q but is no part of the loss
        np.testing.assert_allclose(found.item(), (q * loss).sum(), rtol=1e-5)
        np.testing.assert_allclose(objective.log_q[0].exp().numpy(), q, rtol=1e-5)


def test_no_steps_of_q_and_all_groups_present_is_the_mean_over_groups() -> None:
    model, objective = stack(), WorstGroup(Y, GROUPS, 0.0, 0.0)
    objective.prepare(model, 6)
    each = example_losses(model)
    wanted = (each[:2].mean() + each[2] + each[3:].mean()) / 3
    np.testing.assert_allclose(objective.loss(model, batch(list(range(6)))).item(), wanted, rtol=1e-5)


def test_members_keep_weights_of_their_own() -> None:
    model, objective = stack(2), WorstGroup(Y, GROUPS, 0.5, 0.0)
    objective.prepare(model, 6)
    both = objective.loss(model, batch(list(range(6))))
    for member in range(2):
        alone, single = model.select([member]), WorstGroup(Y, GROUPS, 0.5, 0.0)
        single.prepare(alone, 6)
        torch.testing.assert_close(single.loss(alone, batch(list(range(6))))[0], both[member])
        torch.testing.assert_close(single.log_q[0], objective.log_q[member])


def test_state_is_all_of_q() -> None:
    objective = WorstGroup(Y, GROUPS, 0.5, 0.0)
    objective.prepare(stack(), 6)
    objective.loss(stack(), batch([0, 1]))
    assert torch.equal(objective.state()["log_q"], objective.log_q)
    assert objective.log_q[0, 2] == -torch.inf  # a group without examples gets nothing


def test_a_huge_step_size_stays_finite() -> None:
    model, objective = stack(), WorstGroup(Y, GROUPS, 1e6, 0.0)
    objective.prepare(model, 6)
    for _ in range(3):
        assert bool(torch.isfinite(objective.loss(model, batch(list(range(6))))).all())
    assert objective.log_q.exp().sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("setting", ["step_size", "adjustment"])
def test_negative_settings_are_refused(setting: str) -> None:
    with pytest.raises(OptionError, match=setting):
        fit(planted_task(), "groupdro", **{setting: -1.0})


@pytest.mark.parametrize("balanced", [True, False])
def test_the_worst_group_gains_on_erm(balanced: bool) -> None:
    task, recipe = planted_task(128), Recipe("adam", 0.02, batch_size=32, steps=200)

    def worst(method: str, task: Task = task, **settings: object) -> float:
        fitted = fit(task, method, model="linear", recipe=recipe, **settings)
        return evaluate(fitted, task).worst_group.accuracy

    assert worst("groupdro", balanced=balanced, step_size=0.1) > worst("erm") + 0.1


def test_runs_on_inferred_groups() -> None:
    task = planted_task(64, attributes=False)
    fitted = fit(task, "groupdro", groups="xrm", model="linear", recipe=Recipe(steps=20, batch_size=16))
    assert fitted.artefacts["group_weights"].sum().item() == pytest.approx(1.0)
