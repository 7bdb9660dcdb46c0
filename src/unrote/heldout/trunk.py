"""XRM's twins as linear heads on what a network computes that has only begun to learn.

    network:  trained on all examples for about one pass                                 (`begun`)
    features = what its last layer is given
    h = held-out logits of XRM's twins, linear heads on the standardised features

A network learns its shortcut first, and what it has seen once it does not know by heart: after a pass the features
show the shortcut, and hardly a single label. Twins that learn features of their own each see half of the examples,
often, and learn more of them by heart; they cost several times as much.
"""

import math
from dataclasses import replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from unrote.checkpoint import Checkpoints
from unrote.heldout.xrm import XRMResult, xrm
from unrote.models import Stack, StackBuilder, StackedLinear
from unrote.seeding import derive_seed
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train

_BATCH, _EPOCHS, _FEWEST_STEPS = 128, 15, 700

FIRST_STEPS, MOST_PASSES, MOST_SHARE = 50, 4, 0.25
"""Few examples are seen oftener than once, until a network has taken so many steps, but not more often than this; and
it never begins for more than this share of what it is trained for in the end."""


def first_steps(recipe: Recipe, n_examples: int) -> Recipe:
    """How a network begins to learn, before its features are taken.

    Args:
        recipe: of the final model.
        n_examples: n.
    """
    one_pass = math.ceil(n_examples / (recipe.batch_size or _BATCH))
    whole = recipe.total_steps(math.ceil(n_examples / (recipe.batch_size or n_examples)))
    steps = min(max(one_pass, FIRST_STEPS), MOST_PASSES * one_pass, int(MOST_SHARE * whole))
    return replace(recipe, epochs=None, steps=max(1, steps))


def trunk_recipe(n_examples: int) -> Recipe:
    """Adam with rate 0.001 in minibatches of 128, for 15 epochs and at least 700 steps."""
    steps = max(_FEWEST_STEPS, _EPOCHS * -(-n_examples // _BATCH))
    return Recipe("adam", 1e-3, batch_size=_BATCH, steps=steps)


def stands_on_trunk(model: Stack) -> bool:
    """Whether a model has features to be looked at: not one whose examples are features, nor one without a head."""
    return model.has_head and not model.takes_features


def begun(
    x: Any,
    y: Int[Tensor, " n"],
    build: StackBuilder,
    recipe: Recipe,
    *,
    seed: int = 0,
    weight: Float[Tensor, " n"] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> Stack:
    """A network that has begun to learn; where no features are learned, as it starts.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        build: makes the network.
        recipe: of the final model; see `first_steps`.
        seed: of the network's start, where it is random, and of the minibatch order.
        weight: (n,) of each example's loss; None weighs all the same.
        checkpoints: where to save and resume.
        progress: text of the progress bar; None shows none.
    """
    network = build([derive_seed(seed, "trunk")])
    if network.learns_features:
        train(
            network,
            x,
            Supervised(Supervision(y, weight=weight)),
            first_steps(recipe, len(y)),
            seed=derive_seed(seed, "trunk", "order"),
            checkpoints=checkpoints,
            progress=progress,
        )
    return network


def trunk(
    x: Any,
    y: Int[Tensor, " n"],
    network: Stack,
    *,
    n_classes: int,
    seed: int = 0,
    recipe: Recipe | None = None,
    weight: Float[Tensor, " n"] | None = None,
    validation: tuple[Any, Int[Tensor, " m"]] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> XRMResult:
    """A pair of linear twins on the features of a network, which all fit in memory.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        network: one model that has `begun` to learn, or is as it starts.
        n_classes: C.
        seed: of the twins.
        recipe: how the heads are trained; default `trunk_recipe`. A network's own would hardly move them.
        weight: (n,) of each example's loss for the twin that trains on it; None weighs all the same.
        validation: examples and labels whose inferred groups are wanted too.
        checkpoints: where to save and resume.
        progress: text of the progress bar; None shows none.
    """
    raw = network.predict_features(x)[0].float()
    mean, spread = raw.mean(0), raw.std(0, correction=0).clamp_min(1e-6)

    def standard(features: Float[Tensor, "m F"]) -> Float[Tensor, "m F"]:
        return (features - mean) / spread

    def heads(seeds: Any) -> Stack:
        # from zero, so that no label is flipped by what a head says before it has learned anything
        return StackedLinear(raw.shape[1], n_classes, seeds, init="zeros").to(network.device)

    checked = None
    if validation is not None:
        checked = standard(network.predict_features(validation[0])[0].float()), validation[1]
    twins = xrm(
        standard(raw),
        y,
        heads,
        recipe or trunk_recipe(len(y)),
        n_classes=n_classes,
        seeds=[seed],
        weight=weight,
        validation=checked,
        checkpoints=checkpoints,
        progress=progress,
    )
    return replace(twins, trained=None)  # the heads alone are no models of the examples
