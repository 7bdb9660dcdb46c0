"""LDAM's loss against its definition in numpy, its schedule, and its effect on classes of different size."""

import numpy as np
import pytest
import torch
from imbalance import assert_balances_classes, imbalanced_task, session_of
from torch import nn
from torch.nn import functional as F

from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.ldam import LDAM, MarginObjective
from unrote.models import Stack, StackedMLP, stack_builder
from unrote.training import Batch, Recipe

Y = [0] * 16 + [1] * 4 + [2]
RECIPE = Recipe("adam", 0.01, batch_size=16, epochs=2)


def task_of(y: list[int]) -> Task:
    return Task("t", train=Split(torch.randn(len(y), 5, generator=torch.Generator().manual_seed(0)), y))


def by_hand(stack: Stack, task: Task, weights: np.ndarray, max_margin: float, scale: float) -> np.ndarray:
    """The weighted mean of the loss over all training examples, for each member."""
    x, y, size = task.train.x[torch.arange(len(task.train))], task.train.y.numpy(), np.bincount(task.train.y)
    found = []
    for member in range(stack.n_members):
        z = stack.features_and_logits(x)[0][member].detach().numpy().astype(float)
        w = stack.head(member)[0].numpy().astype(float)
        cosine = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ (
            w / np.linalg.norm(w, axis=1, keepdims=True)
        ).T
        margin = size**-0.25 / (size**-0.25).max() * max_margin
        lowered = cosine - margin[y][:, None] * np.eye(len(size))[y]
        entropy = np.log(np.exp(scale * lowered).sum(1)) - scale * lowered[np.arange(len(y)), y]
        found.append((weights * entropy).sum() / weights.sum())
    return np.array(found)


@pytest.mark.parametrize(("step", "weighted"), [(0, False), (7, False), (8, True), (9, True)])
def test_is_the_cross_entropy_of_cosines_with_margins_weighted_at_the_end(step: int, weighted: bool) -> None:
    task, stack, method = task_of(Y), StackedMLP(5, 3, (0, 1), hidden=6), LDAM(0.4, 10.0, volume=50.0)
    objective = MarginObjective(method.supervision(session_of(task)), 10.0, reweight_from=8)
    objective.prepare(stack, len(Y))
    size, beta = np.array([16, 4, 1]), 1 - 1 / 50
    weights = (1 - beta) / (1 - beta**size) if weighted else np.ones(3)
    batch = Batch(torch.arange(len(Y)), task.train.x[torch.arange(len(Y))], step, 0)
    wanted = by_hand(stack, task, weights[task.train.y], 0.4, 10.0)
    np.testing.assert_allclose(objective.loss(stack, batch).detach(), wanted, rtol=1e-5)
    sample_weight = torch.rand(len(Y), generator=torch.Generator().manual_seed(1))
    wanted = by_hand(stack, task, weights[task.train.y] * sample_weight.numpy(), 0.4, 10.0)
    found = objective.with_weight(sample_weight).loss(stack, batch).detach()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize(("defer", "wanted"), [(0.8, 16), (0.0, 0), (1.0, 20), (0.51, 11)])
def test_weights_apply_after_a_share_of_the_steps(
    monkeypatch: pytest.MonkeyPatch, defer: float, wanted: int
) -> None:
    made: list[MarginObjective] = []
    start = MarginObjective.__init__
    monkeypatch.setattr(MarginObjective, "__init__", lambda self, *a: (made.append(self), start(self, *a))[1])
    task = imbalanced_task(n=100)
    LDAM(defer=defer).fit(session_of(task, recipe=Recipe(batch_size=20, epochs=4)))
    assert made[0].reweight_from == wanted


@pytest.mark.parametrize("model", ["linear", "mlp", "module"])
def test_the_models_plain_logits_rank_the_classes_as_the_cosines_do(model: str) -> None:
    task = imbalanced_task(n=100)

    def module() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))

    build = stack_builder(module if model == "module" else model, (4,), 2)
    fitted = LDAM().fit(Session(task, build, RECIPE))
    weight, bias = fitted.stack.head()
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(2))
    assert bias.tolist() == [0.0, 0.0]
    features = fitted.stack.predict_features(task.train.x)[0]
    torch.testing.assert_close(fitted.logits(task.train.x), features @ weight.mT)
    cosine = F.normalize(features, dim=1) @ weight.mT
    assert torch.equal(fitted.predict(task.train.x), cosine.argmax(1))


def test_a_head_without_bias_has_none_afterwards() -> None:
    build = stack_builder(lambda: nn.Linear(4, 2, bias=False), (4,), 2)
    fitted = LDAM().fit(Session(imbalanced_task(n=100), build, RECIPE))
    assert [name for name, _ in fitted.stack.named_parameters()] == ["members.0.weight"]


def test_margins_of_equal_classes_are_equal_and_an_absent_class_has_none() -> None:
    names = ("a", "b", "c")
    task = Task("t", train=Split(torch.zeros(4, 2), [0, 1, 1, 0]), class_names=names)
    supervision = LDAM(0.3, 10.0).supervision(session_of(task))
    torch.testing.assert_close(supervision.shift, -3.0 * F.one_hot(task.train.y, 3).float())
    torch.testing.assert_close(supervision.weight, supervision.weight[:1].expand(4))  # type: ignore[index]


def test_features_that_are_all_zero_are_harmless() -> None:
    task = Task("t", train=Split(torch.zeros(8, 2), [0, 1] * 4))
    fitted = LDAM().fit(session_of(task))
    assert bool(fitted.logits(task.train.x).isfinite().all())


@pytest.mark.parametrize(
    ("setting", "value"), [("max_margin", 0.0), ("scale", -1.0), ("defer", 1.5), ("volume", 0.0)]
)
def test_refuses_settings_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{setting}="):
        LDAM(**{setting: value})


def test_balances_classes() -> None:
    assert_balances_classes("ldam")
