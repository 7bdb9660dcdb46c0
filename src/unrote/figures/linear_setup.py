"""What the figures on the paper's linear setup share: a head without bias, trained by its recipe."""

from typing import Any

from unrote.data import Regime, Task
from unrote.methods import Session
from unrote.models import StackedLinear
from unrote.presets import PRESETS


def linear_session(task: Task, seed: int, regime: Regime = "none", **options: Any) -> Session:
    """What a method is given to train on a task of the setup.

    Args:
        task: examples (n, d) of two classes.
        seed: of the model and the training.
        regime: where group labels may be used.
        **options: of the session; `recipe` is the setup's own unless given.
    """
    features = task.train.x.shape[0]
    return Session(
        task=task.for_regime(regime),
        build=lambda seeds: StackedLinear(features, task.n_classes, seeds, bias=False),
        seed=seed,
        **{"recipe": PRESETS["interpretable"].recipe, **options},
    )
