"""What a model says of its training examples as it learns them: p(y) and right or wrong, epoch by epoch.

`forgetting`, `data_map`, `el2n` and `second_split_forgetting` all read this record.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from unrote.data.inputs import as_inputs
from unrote.memorization.fresh import fresh, probabilities
from unrote.memorization.reading import labels, own
from unrote.models import Stack
from unrote.seeding import derive_seed
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train

WATCHED = Recipe("sgd", 0.1, momentum=0.9, epochs=20, batch_size=128)
"""How models are trained to be watched, unless told otherwise."""


@dataclass(frozen=True)
class Dynamics:
    """One training run, watched after every epoch.

    Args:
        p: (E, n) probability of each example's label.
        correct: (E, n) whether the prediction is right.
        error: (E, n) norm of p - onehot(y).
        y: (n,) labels.
        seconds: of training and watching.
        stack: as it ended.
    """

    p: Float[np.ndarray, "E n"]
    correct: Bool[np.ndarray, "E n"]
    error: Float[np.ndarray, "E n"]
    y: Int[np.ndarray, " n"]
    seconds: float
    stack: Stack

    @property
    def passes(self) -> float:
        """Passes over the examples: training 3 and watching 1 per epoch."""
        return 4.0 * len(self.p)


def record_dynamics(
    model: Any,
    X: Any,
    y: Any,
    *,
    recipe: Recipe | None = None,
    weight: Float[np.ndarray, " n"] | None = None,
    seed: int = 0,
    start: Stack | None = None,
    progress: str | None = None,
) -> Dynamics:
    """Train a model afresh and note after every epoch what it says of each example.

    Args:
        model: "linear" or "mlp", a function that makes a module, or a model to train afresh.
        X: n examples.
        y: (n,) labels.
        recipe: how it is trained; default 20 epochs of SGD at 0.1 with momentum.
        weight: (n,) what each example counts in training; watched are all.
        seed: of the model and the minibatch order.
        start: a stack to go on from, in place of a fresh one; it is trained in place.
        progress: text of the progress bar; None shows none.
    """
    from unrote.memorization.score import Clock

    clock = Clock()
    build, n_classes = fresh(model, X, y)
    target = labels(y, len(as_inputs(X)), n_classes)
    stack = start if start is not None else build([derive_seed(seed, "watched")])
    seen: list[np.ndarray] = []

    def watch(trained: Stack) -> dict[str, torch.Tensor]:
        seen.append(probabilities(trained, X)[0].numpy())
        return {}

    shares = None if weight is None else torch.from_numpy(np.asarray(weight, np.float32))
    objective = Supervised(Supervision(torch.from_numpy(target), weight=shares))
    train(
        stack,
        X,
        objective,
        recipe or WATCHED,
        seed=derive_seed(seed, "watched"),
        evaluate=watch,
        progress=progress,
    )
    truth = np.eye(n_classes)[target]
    return Dynamics(
        p=np.stack([own(p, target) for p in seen]),
        correct=np.stack([p.argmax(1) == target for p in seen]),
        error=np.stack([np.linalg.norm(p - truth, axis=1) for p in seen]),
        y=target,
        seconds=clock.seconds,
        stack=stack,
    )


def as_dynamics(model: Any, X: Any, y: Any, recipe: Recipe | None, seed: int) -> Dynamics:
    """The record itself where that is given, else that of a model trained for it."""
    return model if isinstance(model, Dynamics) else record_dynamics(model, X, y, recipe=recipe, seed=seed)
