"""XRM's twins as linear heads on what the network computes before it is trained.

    features = what the last layer is given, for the network as it starts (pretrained, or drawn at random)
    h = held-out logits of XRM's twins, linear heads on the standardised features

The network costs one pass without gradient, and the heads next to nothing. No label has entered the features, so
that what is held out stays held out. A shortcut that is easy for a network to learn is mostly there before it learns;
one that is not (its features at random, and deep) needs twins that learn features: `xrm`.
"""

from dataclasses import replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from unrote.checkpoint import Checkpoints
from unrote.heldout.xrm import XRMResult, xrm
from unrote.models import Stack, StackBuilder, StackedLinear
from unrote.seeding import derive_seed
from unrote.training import Recipe

_BATCH, _EPOCHS, _FEWEST_STEPS = 128, 15, 700


def trunk_recipe(n_examples: int) -> Recipe:
    """Adam with rate 0.001 in minibatches of 128, for 15 epochs and at least 700 steps."""
    steps = max(_FEWEST_STEPS, _EPOCHS * -(-n_examples // _BATCH))
    return Recipe("adam", 1e-3, batch_size=_BATCH, steps=steps)


def trunk(
    x: Any,
    y: Int[Tensor, " n"],
    build: StackBuilder,
    *,
    n_classes: int,
    seed: int = 0,
    recipe: Recipe | None = None,
    weight: Float[Tensor, " n"] | None = None,
    validation: tuple[Any, Int[Tensor, " m"]] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> XRMResult:
    """A pair of linear twins on the features of a network as it starts, which all fit in memory.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        build: makes the network; of linear heads the features are the examples.
        n_classes: C.
        seed: of the network's start, where it is random, and of the twins.
        recipe: how the heads are trained; default `trunk_recipe`. One that fine-tunes a network would hardly move
            them.
        weight: (n,) of each example's loss for the twin that trains on it; None weighs all the same.
        validation: examples and labels whose inferred groups are wanted too.
        checkpoints: where to save and resume.
        progress: text of the progress bar; None shows none.
    """
    network = build([derive_seed(seed, "trunk")])
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
