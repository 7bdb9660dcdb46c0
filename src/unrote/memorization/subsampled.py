"""Memorization by training on random subsets (Feldman and Zhang 2020, arXiv 2008.03703, section 3).

    train M models, each on a random share of the examples
    memorization of i = mean outcome on i of the models trained on it - mean of those that were not
    influence of i on test example j = the same difference of the outcomes on j

The outcome is p(y) or whether the prediction is right. All M models train as one stack whose weights are 0 or 1, so
that 2,000 linear heads are one program. What is estimated is memorization in training sets of the share's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrote.checkpoint import Checkpoints
from unrote.data.inputs import as_inputs
from unrote.errors import OptionError
from unrote.memorization.fresh import fresh
from unrote.memorization.reading import labels
from unrote.memorization.score import Clock, Cost, Score
from unrote.seeding import derive_seed, generator
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train

Outcome = Literal["probability", "correct"]


@dataclass(frozen=True)
class Means:
    """Sums over models from which means of both kinds of models, and their errors, are read."""

    inside: Float[np.ndarray, " n"]
    outside: Float[np.ndarray, " n"]
    errors: Float[np.ndarray, " n"]


def subsampled(
    model: Any,
    X: Any,
    y: Any,
    *,
    n_models: int = 2000,
    share: float = 0.7,
    outcome: Outcome = "probability",
    recipe: Recipe | None = None,
    X_test: Any = None,
    y_test: Any = None,
    masks: Bool[np.ndarray, "M n"] | None = None,
    at_once: int = 2000,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> Score:
    """Memorization of every example, (n,) in [-1, 1], with standard errors.

    `details` has "masks" (M, n) which model trained on what, "outcomes" (M, n) what each said, "inside" and
    "outside" (n,) the two means; with test examples also "test_outcomes" (M, m), from which `influence` is read.

    Args:
        model: "linear" or "mlp", a function that makes a module, or a model to train afresh.
        X: n examples.
        y: (n,) labels.
        n_models: M.
        share: of the examples that each trains on, between 0 and 1.
        outcome: "probability", p(y), which has the smaller errors; or "correct", as in the paper.
        recipe: how each model is trained; default 20 epochs of Adam.
        X_test: m test examples, to read their influences off.
        y_test: (m,) their labels.
        masks: (M, n) subsets of one's own, in place of random ones.
        at_once: models that train as one stack.
        seed: of subsets, models and the minibatch order.
        checkpoints: where to save and resume, if all models train at once.
        progress: text of the progress bar; None shows none.

    Raises:
        OptionError: if an option is out of range, or some example is in all subsets or in none.
    """
    clock = Clock()
    build, n_classes = fresh(model, X, y)
    target = labels(y, len(as_inputs(X)), n_classes)
    if outcome not in ("probability", "correct"):
        raise OptionError(f"outcome={outcome!r}: 'probability' or 'correct' is wanted")
    if masks is None:
        masks = random_subsets(len(target), n_models, share, seed)
    _check(masks, len(target))
    recipe = recipe or Recipe("adam", 1e-2, epochs=20, batch_size=128)
    outcomes, tested = [], []
    for start in range(0, len(masks), at_once):
        part = torch.from_numpy(masks[start : start + at_once])
        stack = build([derive_seed(seed, "subset model", start + k) for k in range(len(part))])
        train(
            stack,
            X,
            Supervised(Supervision(torch.from_numpy(target), weight=part.float())),
            recipe,
            seed=derive_seed(seed, "subsets", start),
            checkpoints=checkpoints if len(masks) <= at_once else None,
            progress=progress,
        )
        outcomes.append(_outcome(stack.predict(X), target, outcome))
        if X_test is not None:
            given = labels(y_test, len(as_inputs(X_test)), n_classes)
            tested.append(_outcome(stack.predict(X_test), given, outcome))
    found = np.concatenate(outcomes)
    means = difference(masks, found)
    details = {"masks": masks, "outcomes": found, "inside": means.inside, "outside": means.outside}
    if tested:
        details["test_outcomes"] = np.concatenate(tested)
    passes = len(masks) * (3.0 * float(masks.mean()) * (recipe.epochs or 0) + 1)
    cost = Cost(clock.seconds, passes=passes, models=len(masks))
    return Score("subsampled", means.inside - means.outside, cost, errors=means.errors, details=details)


def random_subsets(n: int, n_models: int, share: float, seed: int) -> Bool[np.ndarray, "M n"]:
    """Which of n examples each model trains on: round(share * n) of them, at random.

    Raises:
        OptionError: if the share leaves none, or none out.
    """
    size = round(share * n)
    if not 0 < size < n:
        raise OptionError(
            f"share={share!r} of {n} examples: between 0 and 1, and neither none nor all, is wanted"
        )
    if n_models < 2:
        raise OptionError(f"n_models={n_models}: at least 2 are wanted")
    order = torch.rand(n_models, n, generator=generator(seed, "subsets")).argsort(1)
    masks = torch.zeros(n_models, n, dtype=torch.bool).scatter_(1, order[:, :size], True)
    result: np.ndarray = masks.numpy()
    return result


def _check(masks: np.ndarray, n: int) -> None:
    if masks.shape[1:] != (n,):
        raise OptionError(f"masks of shape {masks.shape} for {n} examples: (models, {n}) is wanted")
    count = masks.sum(0)
    short = (count < 2) | (len(masks) - count < 2)
    if short.any():
        raise OptionError(
            f"{int(short.sum())} examples are in, or out of, fewer than 2 of {len(masks)} subsets, first "
            f"{int(short.argmax())}: train more models, or choose a share nearer to 0.5"
        )


def _outcome(logits: Float[Tensor, "S n C"], y: np.ndarray, kind: Outcome) -> Float[np.ndarray, "S n"]:
    target = torch.from_numpy(y)
    if kind == "correct":
        right: np.ndarray = (logits.argmax(-1) == target).float().numpy()
        return right
    index = target.view(1, -1, 1).expand(len(logits), -1, 1)
    p: np.ndarray = logits.softmax(-1).gather(2, index).squeeze(2).numpy()
    return p


def difference(masks: Bool[np.ndarray, "M n"], outcomes: Float[np.ndarray, "M n"]) -> Means:
    """Mean outcome of models that trained on each example and of others, and the error of the difference.

    Both variances are estimated from the models.

    Args:
        masks: which model trained on which example.
        outcomes: of each model on each example.
    """
    inside = masks.astype(np.float64)
    parts = []
    for weight in (inside, 1 - inside):
        count = weight.sum(0)
        mean = (weight * outcomes).sum(0) / count
        spread = (weight * (outcomes - mean) ** 2).sum(0) / (count - 1)
        parts.append((mean, spread / count))
    (mean_in, error_in), (mean_out, error_out) = parts
    return Means(mean_in, mean_out, np.sqrt(error_in + error_out))


def influence(score: Score, rows: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Influence of each training example on test examples, (n, m), and its standard errors.

    Args:
        score: of `subsampled` with test examples; without, the influence on training examples.
        rows: test examples that are wanted; default all.
    """
    masks = np.asarray(score.details["masks"], np.float64)
    outcomes = score.details.get("test_outcomes", score.details["outcomes"]).astype(np.float64)
    outcomes = outcomes if rows is None else outcomes[:, list(rows)]
    squares, found, variance = outcomes**2, 0.0, 0.0
    for weight, sign in ((masks, 1), (1 - masks, -1)):
        count = weight.sum(0)[:, None]
        mean = weight.T @ outcomes / count
        spread = (weight.T @ squares / count - mean**2).clip(0) * count / (count - 1)
        found, variance = found + sign * mean, variance + spread / count
    return np.asarray(found), np.sqrt(variance)
