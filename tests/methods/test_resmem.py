"""ResMem: the neighbours' residuals by brute force, training labels known by heart, and the limits of k."""

from typing import Any

import numpy as np
import pytest
import torch
from toys import assert_same_bits, planted_task

from unrote.errors import OptionError
from unrote.methods import Fitted, Session
from unrote.methods.resmem import Remembering, ResMem
from unrote.models import Stack, StackedLinear, StackedMLP
from unrote.training import Recipe

TASK = planted_task(64, rare=3)
RECIPE = Recipe("adam", 0.02, batch_size=16, epochs=3)


def session(hidden: bool = True) -> Session:
    def build(seeds: Any) -> Stack:
        return StackedMLP(8, 3, seeds, hidden=6) if hidden else StackedLinear(8, 3, seeds)

    return Session(TASK.for_regime("none"), build, RECIPE, seed=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def by_hand(fitted: Fitted, k: int, sigma: float, temperature: float) -> np.ndarray:
    assert TASK.test is not None
    stack, y = fitted.stack, TASK.train.y.numpy()
    features = [stack.predict_features(s.x)[0].double().numpy() for s in (TASK.train, TASK.test)]
    p = [softmax(stack.predict(s.x)[0].double().numpy() / temperature) for s in (TASK.train, TASK.test)]
    residual = np.eye(3)[y] - p[0]
    wanted = p[1].copy()
    for i, x in enumerate(features[1]):
        d = np.linalg.norm(features[0] - x, axis=1)
        nearest = np.argsort(d, kind="stable")[:k]
        weight = np.exp(-d[nearest] / sigma)
        wanted[i] += weight @ residual[nearest] / weight.sum()
    return wanted


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_adds_the_mean_residual_of_the_nearest_by_hand(hidden: bool, k: int) -> None:
    assert TASK.test is not None
    fitted = ResMem(neighbours=k, sigma=0.9, temperature=1.4).fit(session(hidden))
    wanted = by_hand(fitted, min(k, 64), 0.9, 1.4)
    np.testing.assert_allclose(wanted.sum(1), 1, rtol=1e-6)
    logits = fitted.logits(TASK.test.x)
    np.testing.assert_allclose(logits.exp().numpy(), np.maximum(wanted, 1e-6), rtol=1e-4, atol=1e-6)
    assert fitted.predict(TASK.test.x).tolist() == wanted.argmax(1).tolist()


def test_one_neighbour_knows_the_training_labels_by_heart() -> None:
    run = session(hidden=False)
    fitted = ResMem(neighbours=1).fit(run)
    assert not torch.equal(fitted.stack.predict(TASK.train.x)[0].argmax(1), run.y)
    assert torch.equal(fitted.predict(TASK.train.x), run.y)
    assert isinstance(fitted, Remembering)
    assert not fitted.stack_alone


def test_the_stack_is_the_base_model_of_the_share() -> None:
    run = session()
    fitted = ResMem(share=0.34).fit(run)
    assert_same_bits(fitted.stack.state_dict(), run.erm(0.34).stack.state_dict())


def test_equal_examples_are_told_apart_by_nothing() -> None:
    fitted = ResMem(neighbours=4).fit(session())
    assert isinstance(fitted, Remembering)
    fitted.memory = torch.zeros_like(fitted.memory)
    x = torch.zeros(3, 8)
    assert bool(torch.isfinite(fitted.logits(x)).all())
    assert torch.equal(fitted.logits(x)[0], fitted.logits(x)[2])


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("settings", [{"neighbours": 0}, {"sigma": 0.0}, {"temperature": -1.0}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        ResMem(**settings)  # type: ignore[arg-type]


def test_exceptions_that_the_base_model_misses_are_looked_up() -> None:
    """The linear base model goes by the shortcut; an exception's nearest examples are exceptions."""
    task = planted_task(512)
    assert task.test is not None
    minority = task.test.attribute != task.test.y
    run = Session(task.for_regime("none"), lambda s: StackedLinear(8, 2, s), RECIPE, seed=1)
    accuracy = {}
    for neighbours in (5, 400):
        right = ResMem(neighbours=neighbours).fit(run).predict(task.test.x) == task.test.y
        accuracy[neighbours] = float(right[minority].double().mean())
    assert accuracy[5] > accuracy[400] + 0.05
