"""A sweep of `SupervisionMethod` configurations as one stack: each member is what it is alone."""

from dataclasses import replace

import torch
from imbalance import imbalanced_task
from torch import Tensor

from unrote.methods import METHODS, Method, Session, SupervisionMethod
from unrote.models import StackedLinear
from unrote.seeding import derive_seed
from unrote.training import Recipe, Supervised

RECIPE = Recipe("adam", 0.01, 1e-4, batch_size=32, epochs=3)
HELD_OUT = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


def session(seed: int, learning_rate: float = 0.01, weight_decay: float = 1e-4) -> Session:
    recipe = replace(RECIPE, learning_rate=learning_rate, weight_decay=weight_decay)
    return Session(
        imbalanced_task(n=200), lambda s: StackedLinear(4, 2, s, dtype=torch.float64), recipe, seed=seed
    )


def sweep(seeds: list[int]) -> tuple[list[Method], list[Session]]:
    """Weights and shifts of several methods side by side, each with rates of its own."""
    methods: list[Method] = [
        METHODS["erm"](),
        METHODS["mat"](temperature=0.3, held_out=HELD_OUT),  # type: ignore[call-arg]
        METHODS["logit_adjustment"](tau=0.7),  # type: ignore[call-arg]
        METHODS["cb_loss"](volume=30.0),  # type: ignore[call-arg]
        METHODS["suby"](),
        METHODS["threshold_moving"](),
        METHODS["class_scaling"](),
    ]
    return methods, [session(s, 0.005 * (1 + k), 1e-3 * k) for k, s in enumerate(seeds)]


def assert_heads_close(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_with_one_seed_each_member_is_its_own_fit() -> None:
    methods, sessions = sweep([4] * 7)
    for method, alone, found in zip(
        methods, sessions, SupervisionMethod.fit_many(methods, sessions), strict=True
    ):
        assert found.method is method
        assert_heads_close(found.stack.head(), method.fit(alone).stack.head())


def test_with_other_seeds_each_member_is_its_own_fit_but_for_the_shared_order() -> None:
    methods, sessions = sweep([4, 5, 6, 7, 8, 9, 10])
    found = SupervisionMethod.fit_many(methods, sessions)
    for k, (method, own) in enumerate(zip(methods, sessions, strict=True)):
        assert isinstance(method, SupervisionMethod)
        # its own model, weights, shift and rates, in the order of the first
        result = sessions[0].train(
            Supervised(method.supervision(own)),
            members=[derive_seed(own.seed, "model", 0)],
            recipe=own.recipe,
        )
        assert_heads_close(found[k].stack.head(), method.fitted(own, result).stack.head())
    assert_heads_close(found[0].stack.head(), methods[0].fit(sessions[0]).stack.head())


def test_records_are_each_members_own() -> None:
    methods, sessions = sweep([4] * 7)
    for k, fitted in enumerate(SupervisionMethod.fit_many(methods, sessions)):
        alone = methods[k].fit(sessions[k]).training.history
        assert [record["step"] for record in fitted.training.history] == [7, 14, 21]
        losses = [record["loss"] for record in fitted.training.history]
        torch.testing.assert_close(torch.tensor(losses), torch.tensor([record["loss"] for record in alone]))
