"""EVaLS: extremes by hand, the head by scikit-learn, the choice recomputed, and the shortcut overcome."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sparse_logistic import l1_logistic
from toys import minority_accuracy, planted_task

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.evals import STRENGTHS, EVaLS, extremes, sizes_up_to
from unrote.methods.heads import halves
from unrote.models import StackedMLP
from unrote.training import Recipe

TASK = planted_task(96)


def session() -> Session:
    recipe = Recipe("adam", 0.02, batch_size=16, epochs=3)
    return Session(TASK.for_regime("none"), lambda s: StackedMLP(8, 2, s, hidden=6), recipe, seed=1)


def test_extremes_by_hand() -> None:
    loss = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8])
    y = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    assert sorted(extremes(loss, y, 1).tolist()) == [1, 2, 5, 6]
    assert sorted(extremes(loss, y, 2).tolist()) == [1, 2, 3, 4, 5, 6]
    assert sorted(extremes(loss, y, 50).tolist()) == list(
        range(7)
    )  # each once, though k is more than there are


def test_a_class_with_one_example_and_equal_losses_are_harmless() -> None:
    assert extremes(torch.zeros(4), torch.tensor([0, 0, 0, 1]), 1).tolist() == [0, 2, 3]


def test_sizes_are_powers_of_two_up_to_half_of_the_largest_class() -> None:
    assert sizes_up_to(torch.tensor([0] * 37 + [1] * 5)) == [2, 4, 8, 16]
    assert sizes_up_to(torch.tensor([0, 0, 1])) == [2]


def heads_by_sklearn(run: Session, k: int, C: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decision values on all validation examples of the head from each half, and the half it is checked on."""
    erm, (x, y) = run.erm().stack, (run.validation.x, run.validation.y)
    scaler = StandardScaler().fit(erm.predict_features(TASK.train.x)[0].double().numpy())
    features = scaler.transform(erm.predict_features(x)[0].double().numpy())
    loss = -erm.predict(x)[0].log_softmax(1)[torch.arange(len(y)), y].numpy()
    found = []
    one, other = (rows.numpy() for rows in halves(y, run.seed))
    for fitted_on, checked_on in ((one, other), (other, one)):
        rows = []
        for label in (0, 1):
            of_class = fitted_on[y[fitted_on].numpy() == label]
            ranked = of_class[np.argsort(loss[of_class], kind="stable")]
            rows += [*ranked[:k], *ranked[-k:]]
        solver = l1_logistic(features[rows], y[rows].numpy(), C)
        found.append((solver.decision_function(features), checked_on))
    return found


def test_the_head_is_the_mean_of_those_from_both_halves() -> None:
    run = session()
    fitted = EVaLS(per_class=4, C=1.0).fit(run)
    wanted = np.mean([scores for scores, _ in heads_by_sklearn(run, 4, 1.0)], axis=0)
    logits = fitted.logits(run.validation.x).double().numpy()
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], wanted, rtol=1e-3, atol=1e-3)


def test_k_and_strength_have_the_best_worst_environment() -> None:
    run = session()
    fitted = EVaLS().fit(run)
    y = run.validation.y.numpy()
    mistake = (run.erm().stack.predict(run.validation.x)[0].argmax(1).numpy() != y).astype(int)
    assert fitted.artefacts["environments"].tolist() == mistake.tolist()

    def score(k: int, C: float) -> float:
        right = np.zeros(len(y))
        for scores, checked_on in heads_by_sklearn(run, k, C):
            right[checked_on] = (scores[checked_on] > 0) == y[checked_on]
        cells = [(y == c) & (mistake == m) for c in (0, 1) for m in (0, 1)]
        return min(right[cell].mean() for cell in cells if cell.any())

    k, C = fitted.artefacts["evals_per_class"], fitted.artefacts["evals_C"]
    best = max(score(k, C) for k in (2, 4, 8) for C in STRENGTHS)
    assert score(k, C) == best


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("settings", [{"per_class": 0}, {"C": 0.0}, {"share": 1.0}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        EVaLS(**settings)  # type: ignore[arg-type]


def test_what_holds_in_every_group_is_learned_where_erm_learns_by_heart() -> None:
    for seed in (0, 1):
        assert minority_accuracy("evals", seed) > minority_accuracy("erm", seed) + 0.5
