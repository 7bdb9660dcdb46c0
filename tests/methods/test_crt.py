"""cRT against a plain loop of torch on ERM's features, and its effect on classes of different size."""

import pytest
import torch
from imbalance import assert_balances_classes, imbalanced_task, session_of
from torch import nn
from torch.nn import functional as F

from unrote.errors import OptionError
from unrote.methods import METHODS, Session
from unrote.methods.crt import CRT
from unrote.models import Stack, StackedLinear, stack_builder
from unrote.seeding import derive_seed
from unrote.training import EarlyStopping, Order, Recipe

RECIPE = Recipe("sgd", 0.1, 0.01, momentum=0.9, batch_size=50, epochs=2)


def session(model: str, **options: object) -> Session:
    task = imbalanced_task(n=200)
    return Session(task, stack_builder(model, task.train.x.shape, 2), RECIPE, seed=5, **options)  # type: ignore[arg-type]


def test_is_a_new_head_trained_on_balanced_draws_of_erms_features() -> None:
    run = session("mlp")
    y = run.y
    fitted, erm = CRT().fit(run), run.erm().stack
    features = erm.predict_features(run.task.train.x)[0]
    torch.testing.assert_close(fitted.stack.predict_features(run.task.train.x)[0], features)

    start = StackedLinear(256, 2, [derive_seed(5, "head")])
    head = nn.Linear(256, 2)
    weight, bias = start.head()
    head.load_state_dict({"weight": weight, "bias": bias})
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    sampling = 200 / (2 * torch.bincount(y)[y])  # scaled, as draws turn on the last digit of their chances
    counts = torch.zeros(2)
    for index in Order(200, 50, derive_seed(5, "order", "head"), sampling).minibatches(0, 8):
        counts += torch.bincount(y[index], minlength=2)
        optimizer.zero_grad()
        F.cross_entropy(head(features[index]), y[index]).backward()
        optimizer.step()
    assert 0.4 < float(counts[0] / counts.sum()) < 0.6  # of training, a tenth is the second class
    torch.testing.assert_close(fitted.stack.head()[0], head.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fitted.stack.head()[1], head.bias.detach(), rtol=1e-4, atol=1e-5)


def test_the_sessions_erm_stays_as_it_is() -> None:
    run = session("linear")
    before = run.erm().stack.snapshot()
    CRT().fit(run)
    assert all(torch.equal(value, before[name]) for name, value in run.erm().stack.state_dict().items())


def test_evaluation_and_early_stopping_see_the_whole_model() -> None:
    seen: list[torch.Tensor] = []
    task = imbalanced_task(n=200)
    assert task.test is not None
    x = task.test.x

    def evaluate(stack: Stack) -> dict[str, torch.Tensor]:
        seen.append(stack.predict(x)[0])
        return {"falls": torch.tensor([-float(len(seen))])}

    fitted = CRT().fit(session("mlp", evaluate=evaluate, early_stopping=EarlyStopping("falls")))
    assert len(seen) == 2  # once an epoch, in the last stage alone
    assert fitted.training.best_step.tolist() == [4]
    torch.testing.assert_close(fitted.logits(x), seen[0])
    assert [record["falls"] for record in fitted.training.history] == [[-1.0], [-2.0]]


def test_sample_weights_reach_both_trainings() -> None:
    weight = torch.rand(200, generator=torch.Generator().manual_seed(0))
    plain, weighted, scaled = (
        CRT().fit(session("mlp", sample_weight=w)).stack for w in (None, weight, 4 * weight)
    )
    x = torch.eye(4)
    for one, other in ((plain, weighted), (weighted, scaled)):
        close = other is scaled
        assert torch.allclose(one.predict_features(x), other.predict_features(x), atol=1e-5) == close
        assert torch.allclose(one.head()[0], other.head()[0], atol=1e-5) == close


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_head_is_trained_for_a_share_of_the_recipe(share: float) -> None:
    history = CRT(share).fit(session("linear")).training.history
    assert history[-1]["step"] == 8 * share


def test_any_module_has_its_last_layer_replaced() -> None:
    task = imbalanced_task(n=200)
    build = stack_builder(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), (4,), 2)
    run = Session(task, build, RECIPE)
    fitted = CRT().fit(run)
    ours, erm = fitted.stack.state_dict(), run.erm().stack.state_dict()
    changed = {name for name in ours if not torch.equal(ours[name], erm[name])}
    assert changed == {"members.0.2.weight", "members.0.2.bias"}


def test_a_class_of_one_example_is_drawn_as_often_as_the_others() -> None:
    task = imbalanced_task(n=40, one_in=40)
    fitted = METHODS["crt"]().fit(session_of(task))
    assert fitted.training.diverged_at.tolist() == [-1]
    only = task.train.x[torch.tensor([0])]
    assert fitted.predict(only).tolist() == [1]


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_refuses_a_share_out_of_range(share: float) -> None:
    with pytest.raises(OptionError, match=r"share=.* above 0 and at most 1"):
        CRT(share)


def test_balances_classes() -> None:
    assert_balances_classes("crt")
