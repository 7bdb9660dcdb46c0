"""SELF: disagreement by numpy, the set by hand, the head refitted on it, and the shortcut overcome."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import minority_accuracy, planted_task

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.self import SELF, disagreement, largest_of_each_class
from unrote.models import StackedMLP
from unrote.training import Recipe

TASK = planted_task(rare=3)


def session(learning_rate: float = 0.05) -> Session:
    recipe = Recipe("adam", learning_rate, batch_size=16, epochs=10)
    return Session(TASK.for_regime("none"), lambda s: StackedMLP(8, 3, s, hidden=6), recipe, seed=1)


def test_disagreement_is_the_divergence_of_the_final_from_the_early_prediction() -> None:
    random = torch.Generator().manual_seed(0)
    early, final = torch.randn(6, 3, generator=random), torch.randn(6, 3, generator=random)
    p, q = (np.exp(v.double().numpy()) for v in (early, final))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    np.testing.assert_allclose(disagreement(early, final).numpy(), (p * np.log(p / q)).sum(1), rtol=1e-6)


def test_disagreement_stays_finite_where_a_probability_is_zero() -> None:
    sure = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    found = disagreement(sure, sure.flip(1))
    assert found.tolist() == [1000.0, 1000.0]
    assert disagreement(sure, sure).tolist() == [0.0, 0.0]


def test_the_set_has_the_largest_scores_of_each_class() -> None:
    score = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.2, 0.3])
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    assert largest_of_each_class(score, y, 4).tolist() == [1, 3, 5, 4]
    assert largest_of_each_class(score, y, 7).tolist() == [1, 3, 2, 5, 4]  # all of a class that has fewer
    assert largest_of_each_class(score, y, 2).tolist() == [1, 5]
    assert largest_of_each_class(torch.zeros(6), y, 2).tolist() == [0, 4]  # of equals the first


def test_the_head_is_refitted_on_the_set_alone() -> None:
    run = session()
    fitted = SELF(set_size=12, early=0.2, penalty=0.05).fit(run)
    early, final = run.artefacts["erm-0.2"].stack, run.erm().stack
    x = run.validation.x
    score = disagreement(early.predict(x)[0], final.predict(x)[0])
    chosen = largest_of_each_class(score, run.validation.y, 12)
    assert torch.equal(fitted.artefacts["self_chosen"], chosen)
    features, y = final.predict_features(x)[0][chosen].double(), run.validation.y[chosen]
    assert torch.bincount(y).tolist() == [4, 4, 3]
    head, bias = (v.double().requires_grad_() for v in fitted.stack.head())
    start = final.head()
    each = F.cross_entropy(features @ head.T + bias, y, reduction="none")
    loss = torch.stack([each[y == c].mean() for c in range(3)]).mean()
    (loss + 0.05 * ((head - start[0]).square().sum() + (bias - start[1]).square().sum())).backward()
    assert head.grad is not None
    assert float(head.grad.abs().max()) < 1e-4


def test_models_that_agree_everywhere_are_said_to() -> None:
    with pytest.warns(UserWarning, match="agrees with the final one everywhere.*lower early="):
        SELF().fit(session(learning_rate=0.0))


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    "settings", [{"set_size": 1}, {"early": 0.0}, {"early": 1.0}, {"penalty": -1.0}, {"share": 0.0}]
)
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        SELF(**settings)  # type: ignore[arg-type]


def test_what_holds_in_every_group_is_learned_where_erm_learns_by_heart() -> None:
    for seed in (0, 1):
        assert minority_accuracy("self", seed) > minority_accuracy("erm", seed) + 0.5
