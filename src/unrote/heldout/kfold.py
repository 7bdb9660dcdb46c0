"""k-fold cross-fitting: k models, each trained on all folds but one and asked about that one.

    assign each example of each class to one of k folds at random
    train k models; model j's weight is 0 on fold j
    h[i] = logits of the model that left i's fold out

The k models train as one stack.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.checkpoint import Checkpoints
from unrote.errors import DataError
from unrote.heldout.held_out import HeldOut
from unrote.models import StackBuilder
from unrote.seeding import derive_seed, generator
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train


def stratified_folds(y: Int[Tensor, " n"], n_folds: int, seed: int) -> Int[Tensor, " n"]:
    """The fold of each example, (n,): every class spread evenly over the folds, at random."""
    random = generator(seed, "folds")
    fold = torch.empty_like(y)
    for label in y.unique():
        members = (y == label).nonzero().squeeze(1)
        shuffled = members[torch.randperm(len(members), generator=random)]
        start = int(torch.randint(n_folds, (), generator=random))  # small classes do not all fill fold 0
        fold[shuffled] = (torch.arange(len(members)) + start) % n_folds
    return fold


def kfold(
    x: Any,
    y: Int[Tensor, " n"],
    build: StackBuilder,
    recipe: Recipe,
    *,
    n_folds: int = 5,
    seed: int = 0,
    weight: Float[Tensor, " n"] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> HeldOut:
    """Held-out logits by k-fold cross-fitting.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        build: makes the stack of models.
        recipe: how each model is trained.
        n_folds: k, from 2 to n.
        seed: of the folds, the models and the minibatch order.
        weight: (n,) of each example's loss where it is trained on, at least 0; None weighs all the same.
        checkpoints: where to save and resume.
        progress: text of the progress bar; None shows none.

    Raises:
        DataError: if `n_folds` is not between 2 and n.
    """
    if not 2 <= n_folds <= len(y):
        raise DataError(f"n_folds={n_folds} for {len(y)} examples: 2 to {len(y)} folds are wanted")
    fold = stratified_folds(y, n_folds, seed)
    trained_on = fold != torch.arange(n_folds).unsqueeze(1)
    stack = build(_member_seeds(seed, n_folds))
    supervision = Supervision(y, weight=trained_on.float())
    if weight is not None:
        supervision = supervision.weighted(weight).to(stack.device)
    train(
        stack,
        x,
        Supervised(supervision),
        recipe,
        seed=derive_seed(seed, "kfold"),
        checkpoints=checkpoints,
        progress=progress,
    )
    logits = stack.predict(x, where=~trained_on)
    return HeldOut(logits[fold, torch.arange(len(y))], trained_on, fold, source="kfold")


def _member_seeds(seed: int, n_folds: int) -> Sequence[int]:
    return [derive_seed(seed, "fold", fold) for fold in range(n_folds)]
