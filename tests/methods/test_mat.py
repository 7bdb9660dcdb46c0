"""MAT against its definition: cross-entropy on shifted logits in training, plain logits in prediction."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import minority_accuracy, planted_task

from unrote.errors import DataError, OptionError
from unrote.heldout import HeldOut, kfold, shorter_for_twins, xrm
from unrote.methods import METHODS, Fitted, Session
from unrote.models import ModuleStack, Stack, StackedLinear, StackedMLP
from unrote.seeding import derive_seed
from unrote.training import Order, Recipe

TASK = planted_task()
N = len(TASK.train)
X, Y = TASK.train.x[torch.arange(N)].double(), TASK.train.y
RECIPE = Recipe("sgd", 0.05, batch_size=10, epochs=3)


def build(seeds: Any) -> Stack:
    return StackedLinear(8, 2, seeds, dtype=torch.float64)


def make_session(**options: Any) -> Session:
    return Session(TASK.for_regime("none"), build, **{"recipe": RECIPE, "seed": 5, **options})


def mat(session: Session | None = None, **settings: Any) -> Fitted:
    return METHODS["mat"](**settings).fit(make_session() if session is None else session)


def shift_by_hand(h: Tensor, temperature: float) -> Tensor:
    q = (h.double() / temperature).softmax(-1)
    joint = torch.stack([torch.stack([q[c == Y, k].sum() for c in range(2)]) for k in range(2)])
    return (q @ (joint / joint.sum(1, keepdim=True)) + 1e-6).log()


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_trains_on_shifted_logits_and_predicts_with_plain_ones(temperature: float) -> None:
    h = torch.randn(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fitted = mat(held_out=h.numpy(), temperature=temperature)
    start = build([derive_seed(5, "model", 0)])
    model = nn.Linear(8, 2, dtype=torch.float64)
    model.weight = nn.Parameter(start.get_parameter("weight")[0])
    model.bias = nn.Parameter(start.get_parameter("bias")[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    shift = shift_by_hand(h.float(), temperature)
    for index in Order(N, 10, derive_seed(5, "order", "train")).minibatches(0, 21):
        optimizer.zero_grad()
        F.cross_entropy(model(X[index]) + shift[index], Y[index]).backward()
        optimizer.step()
    # the shift is kept in single precision
    torch.testing.assert_close(fitted.stack.get_parameter("weight")[0], model.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fitted.logits(X), model(X).detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fitted.artefacts["shift"].double(), shift, rtol=1e-5, atol=1e-5)


def networks(seeds: Any) -> Stack:
    return ModuleStack(lambda: nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2)), 2, seeds)


class TestHeldOutLogits:
    def test_are_xrms_for_heads_by_default(self) -> None:
        validation = TASK.validation
        assert validation is not None
        twins = xrm(X, Y, build, RECIPE, n_classes=2, seeds=[5], validation=(validation.x, validation.y))
        fitted = mat(temperature=0.1)
        torch.testing.assert_close(fitted.artefacts["held_out"].logits, twins.logits[0])
        torch.testing.assert_close(fitted.artefacts["shift"], shift_by_hand(twins.logits[0], 0.1))
        assert torch.equal(fitted.artefacts["xrm"].labels, twins.labels)

    def test_may_be_those_of_kfold(self) -> None:
        found = mat(held_out="kfold").artefacts
        torch.testing.assert_close(found["held_out"].logits, kfold(X, Y, build, RECIPE, seed=5).logits)
        assert "xrm" not in found

    def test_have_a_recipe_of_their_own(self) -> None:
        own = Recipe("sgd", 0.01, batch_size=7, epochs=2)
        fitted = mat(make_session(held_out_recipe=own))
        twins = xrm(X, Y, build, own, n_classes=2, seeds=[5])
        torch.testing.assert_close(fitted.artefacts["held_out"].logits, twins.logits[0])
        assert fitted.training.history[-1]["step"] == 21

    @pytest.mark.parametrize(("epochs", "own"), [(400, 200), (100, 57), (50, 50)])
    def test_train_half_as_long_where_they_learn_features(self, epochs: int, own: int) -> None:
        # of seven minibatches each, and about 400 steps, if the recipe has so many
        full = replace(RECIPE, epochs=epochs)
        assert shorter_for_twins(full, N).epochs == own
        assert Session(TASK, build, full).twin_recipe == full  # linear heads

        def perceptrons(seeds: Any) -> Stack:
            return StackedMLP(8, 2, seeds, hidden=3)

        for learners in (perceptrons, networks):
            assert Session(TASK, learners, full).twin_recipe == replace(full, epochs=own)

    def test_are_those_of_shorter_twins(self) -> None:
        session = Session(TASK, networks, replace(RECIPE, epochs=100), seed=5)
        twins = xrm(TASK.train.x, Y, networks, replace(RECIPE, epochs=57), n_classes=2, seeds=[5])
        torch.testing.assert_close(session.held_out("xrm").logits, twins.logits[0])

    def test_are_made_once_in_a_session(self) -> None:
        stacks: list[int] = []

        def counted(seeds: Any) -> Stack:
            stacks.append(len(seeds))
            return build(seeds)

        session = Session(TASK, counted, RECIPE)
        for temperature in (0.1, 1.0):
            mat(session, temperature=temperature)
        assert stacks.count(2) == 1

    @pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, lambda h: HeldOut(torch.as_tensor(h))])
    def test_may_be_given(self, make: Any) -> None:
        h = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
        fitted = mat(held_out=make(h), temperature=0.5)
        torch.testing.assert_close(fitted.artefacts["shift"].double(), shift_by_hand(torch.as_tensor(h), 0.5))
        assert set(fitted.artefacts) == {"held_out", "shift"}

    def test_may_be_given_as_probabilities(self) -> None:
        p = np.random.default_rng(0).dirichlet([1, 1], size=N)
        shift = mat(held_out=p, temperature=1.0).artefacts["shift"].double()
        torch.testing.assert_close(shift, shift_by_hand(torch.from_numpy(p).log(), 1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("shapes_unchecked")
class TestRefuses:
    @pytest.mark.parametrize("held_out", ["erm", "XRM", ""])
    def test_another_source(self, held_out: str) -> None:
        with pytest.raises(
            OptionError, match=f"held_out='{held_out}': 'auto', 'xrm', 'trunk', 'kfold', 'alo' or"
        ):
            mat(held_out=held_out)

    @pytest.mark.parametrize("shape", [(N - 1, 2), (N, 3), (N,)])
    def test_arrays_of_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match="held-out"):
            mat(held_out=np.zeros(shape))

    def test_held_out_logits_of_another_number_of_examples(self) -> None:
        with pytest.raises(DataError, match="held-out logits of shape"):
            mat(held_out=HeldOut(torch.zeros(N - 1, 2)))

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
    def test_temperatures_that_are_not_positive(self, temperature: float) -> None:
        with pytest.raises(OptionError, match="temperature"):
            mat(held_out=np.zeros((N, 2)), temperature=temperature)


def test_what_holds_in_every_group_is_learned_where_erm_learns_by_heart() -> None:
    for seed in (0, 1):
        assert minority_accuracy("erm", seed) < 0.3
        assert minority_accuracy("mat", seed) > 0.75
