"""Do pairs of XRM's twins agree who the exceptions are? A rule that is easy is learned alike from any half.

Each pair trains on halves of its own, of at most 3,000 examples; agreement is Cohen's kappa within classes, and the
share of examples on which two pairs differ. The boundary of a problem that is merely hard is drawn anew by each pair.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.checkpoint import Checkpoints
from unrote.data.inputs import as_inputs
from unrote.errors import OptionError
from unrote.heldout import XRMResult, xrm
from unrote.heldout.kfold import stratified_folds
from unrote.models import StackBuilder
from unrote.seeding import derive_seed
from unrote.training import Recipe

AGREEMENT, DISAGREEMENT = 0.85, 0.02
"""Pairs of twins have found an easy rule if their kappa is at least the first, and the share of examples on which two
pairs differ at most the second; see docs/automatic.md for the error rates."""

PAIRS, ROWS = 3, 3000
"""How many pairs of twins are compared, and on how many examples: twins agree more the more they see, whatever
they learn, so that a threshold needs a fixed size."""

_FEWEST_STEPS = 500


@dataclass(frozen=True)
class Agreement:
    """How far pairs of twins agree who the exceptions are.

    Args:
        kappa: Cohen's, within classes: 1 where they are the same, 0 as by chance.
        differ: share of the examples that are an exception to one pair and none to another.
    """

    kappa: float
    differ: float

    @property
    def easy_rule(self) -> bool:
        """Whether it is enough to say that all have learned the same rule."""
        return self.kappa >= AGREEMENT and self.differ <= DISAGREEMENT


def agreement(mistakes: Bool[Tensor, "K n"], y: Int[Tensor, " n"]) -> Agreement:
    """How far K pairs of twins agree which examples are exceptions.

    Chance is counted in each class on its own, so that twins which always say the same class agree no more than
    by chance. Means over all pairs of pairs.

    Args:
        mistakes: whether a pair's held-out prediction is wrong.
        y: (n,) labels.

    Raises:
        OptionError: if there is only one pair.
    """
    if len(mistakes) < 2:
        raise OptionError("agreement of one pair of twins: at least two pairs are wanted")
    found = [_of_two(mistakes[i], mistakes[j], y) for i, j in combinations(range(len(mistakes)), 2)]
    observed, expected = (float(np.mean(values)) for values in zip(*found, strict=True))
    kappa = 0.0 if 1 - expected < 1e-9 else (observed - expected) / (1 - expected)
    return Agreement(kappa, 1 - observed)


def _of_two(
    first: Bool[Tensor, " n"], second: Bool[Tensor, " n"], y: Int[Tensor, " n"]
) -> tuple[float, float]:
    """The share of examples on which two pairs agree, and the share on which they would by chance."""
    by_chance = 0.0
    for label in y.unique():
        rows = y == label
        p, q = float(first[rows].double().mean()), float(second[rows].double().mean())
        by_chance += float(rows.double().mean()) * (p * q + (1 - p) * (1 - q))
    return float((first == second).double().mean()), by_chance


def closest(mistakes: Bool[Tensor, "K n"], y: Int[Tensor, " n"]) -> tuple[Agreement, int]:
    """Agreement of the two pairs of twins that agree best, and the first of them; see `agreement`."""
    found = {(i, j): agreement(mistakes[[i, j]], y) for i, j in combinations(range(len(mistakes)), 2)}
    best = min(found, key=lambda pair: found[pair].differ)
    return found[best], best[0]


def measure_agreement(
    x: Any,
    y: Int[Tensor, " n"],
    build: StackBuilder,
    recipe: Recipe,
    n_classes: int,
    *,
    rule: Float[Tensor, "n C"] | None = None,
    **options: Any,
) -> tuple[Agreement, float]:
    """Agreement of `PAIRS` pairs of twins on at most `ROWS` examples, and the share of exceptions.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        build: makes the stack of twins.
        recipe: how twins are trained.
        n_classes: C.
        rule: held-out logits of models of another kind, which are to agree with the pairs as these do with each
            other: an easy rule is learned alike by both, a boundary drawn by each in its way. None asks no more.
        **options: see `twin_pairs`.
    """
    twins, rows = twin_pairs(x, y, build, recipe, n_classes, **options)
    wrong = twins.logits.argmax(-1) != twins.y
    found = agreement(wrong, twins.y)
    if rule is not None:
        own = rule[rows].argmax(-1) != twins.y
        others = [agreement(torch.stack([own, one]), twins.y) for one in wrong]
        kappa, differ = (float(np.mean([getattr(one, k) for one in others])) for k in ("kappa", "differ"))
        found = Agreement(min(found.kappa, kappa), max(found.differ, differ))
    return found, float(wrong.double().mean())


def twin_pairs(
    x: Any,
    y: Int[Tensor, " n"],
    build: StackBuilder,
    recipe: Recipe,
    n_classes: int,
    *,
    pairs: int = PAIRS,
    seed: int = 0,
    weight: Float[Tensor, " n"] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> tuple[XRMResult, Int[Tensor, " m"]]:
    """Pairs of twins on at most `ROWS` examples, and which examples these are.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        build: makes the stack of twins.
        recipe: how twins are trained; on a part of the examples for at least 500 steps.
        n_classes: C.
        pairs: how many.
        seed: of everything random.
        weight: (n,) of each example's loss for the twin that trains on it; None weighs all the same.
        checkpoints: where to save and resume.
        progress: text of the progress bar; None shows none.
    """
    inputs, rows = as_inputs(x), torch.arange(len(y))
    if len(y) > ROWS:
        # the same share of each class
        keep = stratified_folds(y, -(-len(y) // ROWS), derive_seed(seed, "agreement")) == 0
        rows = keep.nonzero().squeeze(1)
        inputs, y = as_inputs(inputs[rows]), y[rows]
        weight = None if weight is None else weight[rows]
        steps = recipe.total_steps(-(-len(y) // (recipe.batch_size or len(y))))
        recipe = replace(recipe, epochs=None, steps=max(steps, _FEWEST_STEPS))
    twins = xrm(
        inputs,
        y,
        build,
        recipe,
        n_classes=n_classes,
        seeds=[derive_seed(seed, "agreement", pair) for pair in range(pairs)],
        weight=weight,
        checkpoints=checkpoints,
        progress=progress,
    )
    return twins, rows
