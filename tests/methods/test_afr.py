"""AFR against its formula: weights by numpy, the head where the slope of the weighted loss is zero."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import minority_accuracy, planted_task

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.afr import AFR, afr_weights
from unrote.methods.heads import stratified_share
from unrote.models import StackedMLP
from unrote.training import Recipe

TASK = planted_task(rare=3)
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [1.0, 3.0]])
LABELS = torch.tensor([0, 0, 1, 0])


def session() -> Session:
    recipe = Recipe("adam", 0.05, batch_size=16, epochs=4)
    return Session(TASK.for_regime("none"), lambda s: StackedMLP(8, 3, s, hidden=6), recipe, seed=1)


@pytest.mark.parametrize("gamma", [0.0, 4.0])
def test_weights_by_hand(gamma: float) -> None:
    e = np.exp(2.0)
    p = np.array([e / (1 + e), 1 / (1 + e), 0.5, 1 / (1 + e)])
    wanted = np.exp(-gamma * p) / np.array([3, 3, 1, 3])
    np.testing.assert_allclose(afr_weights(LOGITS, LABELS, gamma).numpy(), wanted / wanted.sum())


def test_gamma_zero_balances_the_classes() -> None:
    weight = afr_weights(LOGITS, LABELS, 0.0)
    assert weight[LABELS == 0].sum().item() == pytest.approx(0.5)
    assert weight[LABELS == 1].sum().item() == pytest.approx(0.5)


@pytest.mark.parametrize("value", [0.0, 1000.0])
def test_equal_or_extreme_predictions_give_finite_weights(value: float) -> None:
    weight = afr_weights(torch.tensor([[value, 0.0]] * 3), torch.tensor([0, 1, 1]), 20.0)
    assert bool(torch.isfinite(weight).all())
    assert weight.sum().item() == pytest.approx(1)


def test_the_head_minimises_the_weighted_loss_on_the_share_that_erm_never_saw() -> None:
    run = session()
    fitted = AFR(gamma=3.0, penalty=0.1, share=0.25).fit(run)
    erm = run.artefacts["erm-1-without-0.25"].stack
    rows = stratified_share(run.y, 0.25, seed=1)
    x, y = erm.predict_features(TASK.train.x)[0][rows].double(), run.y[rows]
    p = erm.predict(TASK.train.x)[0][rows].double().softmax(1)[torch.arange(len(rows)), y]
    weight = (-3.0 * p).exp() / torch.bincount(y)[y]
    head, bias = (v.double().requires_grad_() for v in fitted.stack.head())
    start = erm.head()
    loss = (weight / weight.sum() * F.cross_entropy(x @ head.T + bias, y, reduction="none")).sum()
    (loss + 0.1 * ((head - start[0]).square().sum() + (bias - start[1]).square().sum())).backward()
    assert head.grad is not None
    assert float(head.grad.abs().max()) < 1e-4
    assert float((head.detach() - start[0]).abs().max()) > 1e-3


def test_a_large_penalty_is_erm() -> None:
    run = session()
    fitted = AFR(penalty=1e7).fit(run)
    erm = run.artefacts["erm-1-without-0.2"].stack
    torch.testing.assert_close(fitted.logits(TASK.train.x), erm.predict(TASK.train.x)[0], rtol=0, atol=1e-4)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    "settings", [{"gamma": -1.0}, {"penalty": 0.0}, {"share": 1.0}, {"hold_out": "test"}]
)
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        AFR(**settings)  # type: ignore[arg-type]


def test_what_holds_in_every_group_is_learned_where_erm_learns_by_heart() -> None:
    for seed in (0, 1):
        assert minority_accuracy("afr", seed) > minority_accuracy("erm", seed) + 0.2
