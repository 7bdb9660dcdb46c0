"""DPE: distances, loss and ensemble by numpy, diversity, and groups found where validation has them balanced."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import assert_same_bits, planted_task

from unrote.api import evaluate, fit
from unrote.data import load_task
from unrote.errors import OptionError
from unrote.methods import Fitted, Session
from unrote.methods.dpe import DPE, PrototypeEnsemble, distances, member_loss
from unrote.models import StackedMLP
from unrote.training import Recipe

TASK = planted_task(64, rare=3)
RANDOM = torch.Generator().manual_seed(0)
Z = F.normalize(torch.randn(9, 4, generator=RANDOM, dtype=torch.float64), dim=1)
P = F.normalize(torch.randn(5, 3, 4, generator=RANDOM, dtype=torch.float64), dim=2)
Y = torch.arange(9) % 3


def session() -> Session:
    recipe = Recipe("adam", 0.05, batch_size=16, epochs=4)
    return Session(TASK.for_regime("none"), lambda s: StackedMLP(8, 3, s, hidden=6), recipe, seed=1)


def ensemble(fitted: Fitted) -> PrototypeEnsemble:
    assert isinstance(fitted, PrototypeEnsemble)
    return fitted


def test_distances_are_euclidean() -> None:
    wanted = np.linalg.norm(Z.numpy()[None, :, None] - P.numpy()[:, None], axis=-1)
    np.testing.assert_allclose(distances(Z, P).numpy(), wanted, rtol=1e-6)


def test_a_prototype_on_an_example_has_a_finite_slope() -> None:
    prototypes = Z[:3].clone().requires_grad_()
    distances(Z, prototypes).sum().backward()
    assert prototypes.grad is not None
    assert bool(torch.isfinite(prototypes.grad).all())


def test_the_loss_of_a_member_by_hand() -> None:
    d, t, diversity = -3.0, 0.5, 0.7
    logits = -abs(d) * np.linalg.norm(Z.numpy()[:, None] - P[4].numpy()[None], axis=-1) / t
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    alike = sum(abs(float(P[4, c] @ P[m, c])) for c in range(3) for m in range(4)) * 2 / 5
    wanted = -log_p[np.arange(9), Y.numpy()].mean() + diversity * alike
    found = member_loss(P[4], torch.tensor(d, dtype=torch.float64), Z, Y, P[:4], diversity, t)
    assert float(found) == pytest.approx(wanted)


def test_predicts_the_mean_probability_of_the_members() -> None:
    fitted = ensemble(DPE(members=4, steps=20).fit(session()))
    assert fitted.prototypes.shape == (4, 3, 6)
    np.testing.assert_allclose(fitted.prototypes.norm(dim=2).numpy(), 1)
    x = TASK.train.x
    z = fitted.stack.predict_features(x)[0].double().numpy()
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    shares = []
    for prototypes, scale in zip(fitted.prototypes.numpy(), fitted.scale.numpy(), strict=True):
        e = np.exp(-abs(scale) * np.linalg.norm(z[:, None] - prototypes[None], axis=-1))
        shares.append(e / e.sum(1, keepdims=True))
    np.testing.assert_allclose(fitted.logits(x).exp().numpy(), np.mean(shares, axis=0), rtol=1e-4)
    assert torch.equal(fitted.predict(x), fitted.logits(x).argmax(1))
    assert not fitted.stack_alone


def test_the_stack_is_erm() -> None:
    run = session()
    fitted = DPE(members=1, steps=2).fit(run)
    assert_same_bits(fitted.stack.state_dict(), run.erm().stack.state_dict())


def test_diversity_keeps_members_apart() -> None:
    def likeness(diversity: float) -> float:
        p = ensemble(DPE(members=4, diversity=diversity).fit(session())).prototypes
        cosine = torch.einsum("mcf,ncf->mnc", p, p).abs()
        return float(cosine[~torch.eye(4, dtype=torch.bool)].mean())

    assert likeness(5.0) < 0.5 * likeness(0.0)


def test_members_before_stay_as_they_are() -> None:
    fewer, more = (ensemble(DPE(members=n, steps=10).fit(session())).prototypes for n in (2, 3))
    assert torch.equal(more[:2], fewer)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    "settings", [{"members": 0}, {"steps": 0}, {"diversity": -1.0}, {"temperature": 0.0}, {"share": 1.0}]
)
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        DPE(**settings)  # type: ignore[arg-type]


def test_a_validation_split_with_balanced_groups_teaches_what_holds_in_all() -> None:
    """As that of Waterbirds; nobody says which example is of which group."""
    task = load_task("digits", seed=0)
    task = replace(task, validation=load_task("digits", seed=0, alignment=0.5).validation)
    worst = {
        name: evaluate(fit(task, name, regime="none", seed=0), task).worst_group.accuracy
        for name in ("erm", "dpe")
    }
    assert worst["erm"] is not None
    assert worst["dpe"] is not None
    assert worst["dpe"] > worst["erm"] + 0.3
