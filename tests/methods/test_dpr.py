"""DPR: the chance of disagreement by hand, calibration by a search, and the shortcut overcome."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from toys import planted_task, worst_on_digits

from unrote.api import fit
from unrote.data import Split, Task, load_task
from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.biased import BiasedObjective
from unrote.methods.dpr import DPR
from unrote.models import StackedLinear
from unrote.seeding import derive_seed
from unrote.shift import calibrated_temperature
from unrote.training import Recipe

TASK = planted_task(64)
ONE_FEATURE = torch.zeros(2, 8)
ONE_FEATURE[1, 0] = 1.0


def session(**recipe: int) -> Session:
    return Session(
        TASK, lambda seeds: StackedLinear(8, 2, seeds), Recipe("adam", 0.03, **(recipe or {"epochs": 5}))
    )


def shortcut(scale: float = 1.0) -> StackedLinear:
    """A model whose odds are e to the feature that shows the attribute."""
    stack = StackedLinear(8, 2)
    stack.set_head(scale * ONE_FEATURE, torch.zeros(2))
    return stack


def test_disagreement_by_hand() -> None:
    run = session()
    found = DPR(temperature=2.0).disagreement(run, shortcut())
    margin = TASK.train.x[torch.arange(64)][:, 0].double().numpy() * (2 * TASK.train.y.numpy() - 1)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(margin / 2)), rtol=1e-6)
    assert torch.equal(run.artefacts["disagreement"], found)


@pytest.mark.parametrize("seed", [0, 1])
def test_calibrated_temperature_is_that_of_a_search(seed: int) -> None:
    random = np.random.default_rng(seed)
    y = random.integers(3, size=200)
    logits = 4 * random.normal(size=(200, 3)) + 5 * np.eye(3)[y]

    def loss(log_t: float) -> float:
        z = logits / np.exp(log_t)
        return float(
            np.mean(np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - z[range(200), y])
        )

    wanted = np.exp(minimize_scalar(loss, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}).x)
    assert calibrated_temperature(torch.from_numpy(logits), torch.from_numpy(y)) == pytest.approx(
        wanted, rel=1e-4
    )


def test_temperatures_stay_within_bounds() -> None:
    logits, y = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    assert calibrated_temperature(logits, y) == pytest.approx(1e-3)  # always right: the sharper the better
    assert calibrated_temperature(logits, 1 - y) == pytest.approx(1e3)  # always wrong


def test_the_scale_of_the_biased_model_does_not_matter_when_calibrated() -> None:
    """An overconfident model leads to the same draws, half of them exceptions to the shortcut."""
    exception = TASK.train.attribute != TASK.train.y
    for scale in (1.0, 20.0):
        chance = DPR().disagreement(session(), shortcut(scale))
        assert float(chance[exception].sum() / chance.sum()) == pytest.approx(0.5, abs=0.05)
    uncalibrated = DPR(temperature=1.0).disagreement(session(), shortcut(20.0))
    assert float(uncalibrated[exception].sum() / uncalibrated.sum()) > 0.999


def test_no_disagreement_draws_all_alike_and_says_so() -> None:
    y = torch.arange(6) % 2
    task = Task("easy", train=Split(torch.eye(2, 8)[y], y))
    run = Session(task, lambda seeds: StackedLinear(8, 2, seeds), Recipe(epochs=1))
    right = StackedLinear(8, 2)
    right.set_head(50 * torch.eye(2, 8), torch.zeros(2))
    with pytest.warns(UserWarning, match="lower DPR's share"):
        assert DPR().disagreement(run, right).tolist() == [1.0] * 6


@pytest.mark.parametrize("keep", [True, False])
def test_goes_on_from_the_biased_model_or_afresh(keep: bool) -> None:
    """Of two models that differ by one step of Adam, the classifier is one step from the one it began with."""
    run = session(steps=1)
    began = run.build([derive_seed(0, "model", 0)])
    if keep:
        began = run.train(BiasedObjective(TASK.train.y, 0.7), stage="biased").stack
    moved = (DPR(keep=keep).fit(session(steps=1)).stack.head()[0] - began.head()[0]).abs()
    assert 0.0 < float(moved.max()) < 0.0301  # Adam's first step is at most its learning rate


def test_the_reverse_of_the_shortcut_is_said_to_be_learned() -> None:
    """With the paper's temperature, on a task of two classes with an easy shortcut."""
    with pytest.warns(UserWarning, match="raise DPR's temperature"):
        fit(load_task("digits"), "dpr", temperature=1.0)


@pytest.mark.parametrize(
    "settings", [{"q": 0.0}, {"share": 1.5}, {"temperature": 0.0}, {"temperature": -1.0}]
)
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        DPR(**settings)


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("dpr") > worst_on_digits("erm") + 0.2
