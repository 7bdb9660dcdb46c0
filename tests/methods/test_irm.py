"""IRM's penalty against automatic differentiation of a scale, and its environments against counts."""

import pytest
import torch
from torch.nn import functional as F
from toys import minority_accuracy, planted_task

from unrote.api import fit
from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import Groups
from unrote.methods.irm import InvariantRisk, rank_within, scale_slope, speaks_for_class
from unrote.models import StackedLinear
from unrote.training import Batch, Recipe

Y = torch.tensor([0, 1, 0, 1, 1, 0, 1, 2])
ENVIRONMENT = torch.tensor([0, 0, 1, 0, 1, 0, 1, 0])
GROUPS = Groups(ENVIRONMENT, Y * 2 + ENVIRONMENT, 2, 6)
X = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))


def objective(penalty: float, anneal: float = 0) -> InvariantRisk:
    return InvariantRisk(Y, GROUPS, ENVIRONMENT, penalty, anneal)


def batch(index: list[int], step: int = 0) -> Batch:
    rows = torch.tensor(index)
    return Batch(rows, X[rows], step, 0)


def by_autograd(model: StackedLinear, index: list[int], penalty: float) -> torch.Tensor:
    """Written after the paper's appendix D: a scale of 1, differentiated, on each half of each environment."""
    risks, penalties = [], []
    for environment in range(2):
        rows = [i for i in index if int(ENVIRONMENT[i]) == environment]
        if not rows:
            continue
        risks.append(F.cross_entropy(model(X[rows])[0], Y[rows]))
        if len(rows) < 2:
            continue
        slopes = []
        for half in (rows[0::2], rows[1::2]):
            scale = torch.tensor(1.0, requires_grad=True)
            risk = F.cross_entropy(model(X[half])[0] * scale, Y[half])
            slopes.append(torch.autograd.grad(risk, scale, create_graph=True)[0])
        penalties.append(slopes[0] * slopes[1])
    total = torch.stack(risks).mean()
    if penalties:
        total = total + penalty * torch.stack(penalties).mean()
    return total / max(penalty, 1.0)


@pytest.mark.parametrize("penalty", [0.3, 7.0])
@pytest.mark.parametrize(
    "index",
    [list(range(8)), [0, 1, 3, 2], [0, 3, 5], [2]],
    ids=["both environments", "one example of the other", "one environment", "one example"],
)
def test_is_the_papers_loss(index: list[int], penalty: float) -> None:
    model = StackedLinear(3, 3, [0])
    found = objective(penalty).loss(model, batch(index))[0]
    wanted = by_autograd(model, index, penalty)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(loss, model.weight, retain_graph=True)[0] for loss in (found, wanted)]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_penalty_waits_for_its_step() -> None:
    model = StackedLinear(3, 3, [0])
    early, late = (objective(50.0, 10).loss(model, batch(list(range(8)), step)) for step in (9, 10))
    torch.testing.assert_close(early[0], by_autograd(model, list(range(8)), 1.0))
    torch.testing.assert_close(late[0], by_autograd(model, list(range(8)), 50.0))


def test_scale_slope_is_a_derivative() -> None:
    logits, h = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0)).double(), 1e-6
    y = torch.tensor([[0, 1, 2, 0, 1]])
    either = [F.cross_entropy((1 + s * h) * logits[0], y[0], reduction="none") for s in (1, -1)]
    torch.testing.assert_close(
        scale_slope(logits, y)[0], (either[0] - either[1]) / (2 * h), atol=1e-6, rtol=1e-6
    )


def test_rank_within() -> None:
    assert rank_within(torch.tensor([[1, 0, 1, 1, 0]]), 2).tolist() == [[0, 0, 1, 2, 1]]


def test_agreement_is_counted_over_the_training_set() -> None:
    # class 0 stands with attribute 0 more often than elsewhere, class 1 with attribute 1
    y, attribute = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    found = speaks_for_class(y, Groups(attribute, 2 * y + attribute, 2, 4))
    assert found.tolist() == [1, 1, 1, 0, 0, 1, 1, 1]


def test_a_shortcut_pays_no_penalty_where_the_attribute_is_the_environment() -> None:
    """Why the attribute is no environment: the class frequencies that it goes with are calibrated within each."""
    y, attribute = torch.tensor([0] * 9 + [1] + [0] + [1] * 9), torch.tensor([0] * 10 + [1] * 10)
    odds = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()[attribute].unsqueeze(0)
    slope = scale_slope(odds, y.unsqueeze(0))[0]
    for environment in range(2):
        assert slope[attribute == environment].mean().item() == pytest.approx(0.0, abs=1e-6)
    agreement = speaks_for_class(y, Groups(attribute, 2 * y + attribute, 2, 4))
    assert slope[agreement == 0].mean().item() > 1.0


def test_one_environment_is_warned_of() -> None:
    y = torch.arange(16) % 2
    task = Task("one", train=Split(torch.randn(16, 2), y, torch.zeros(16, dtype=torch.long)))
    with pytest.warns(UserWarning, match="one environment"):
        fitted = fit(task, "irm", model="linear", recipe=Recipe(steps=3, batch_size=8))
    assert bool(torch.isfinite(fitted.logits(task.train.x)).all())


@pytest.mark.usefixtures("shapes_unchecked")  # which would refuse the name first
@pytest.mark.parametrize(
    "setting", [{"penalty": -1.0}, {"anneal": -1}, {"environments": "place"}], ids=lambda s: next(iter(s))
)
def test_bad_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(setting))):
        fit(planted_task(), "irm", **setting)


def test_the_minority_is_not_given_up() -> None:
    assert minority_accuracy("irm", 0) > minority_accuracy("erm", 0) + 0.2
