"""XRM's twins as linear heads on what a network computes that has only begun to learn.

    features = what the last layer of the network is given as it starts (pretrained, or drawn at random)
    labels   = those that linear twins on the standardised features end with, flipped to what is easy
    network: trained on these for a pass or a few                                         (`begun`)
    h        = held-out logits of linear twins on its features now, by the true labels    (`trunk`)

What an untrained network shows of a faint shortcut is enough to flip labels towards it; trained on those for a
little, the network shows it well, but hardly what holds, or single labels. Twins that learn features of their own
each see half of the examples, often, and learn more of them by heart; they cost several times as much. Only where the
heads know little, as of word vectors that begin at random, may these know more       (`default_twins`).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.checkpoint import Checkpoints
from unrote.heldout.xrm import XRMResult, xrm
from unrote.models import Processes, Stack, StackBuilder, StackedLinear
from unrote.seeding import derive_seed
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train
from unrote.training.sharing import processes_of

_BATCH, _EPOCHS, _FEWEST_STEPS = 128, 15, 700

FIRST_STEPS, MOST_PASSES, MOST_SHARE = 100, 8, 0.25
"""A network begins with one pass. Few examples are seen oftener, until it has taken so many steps, but not more often
than this; and never for more than this share of what it is trained for in the end."""


ENOUGH, CLEARLY = 0.6, 0.1
"""How far, from guessing (0) to always (1), heads have to be right about labels that they have not seen for networks
not to be asked: as far as a shortcut is that gives away four of five labels, of two classes. And how much more
networks have to know to be taken: what is hard they learn a little of as well. Of sentences whose words begin at
random heads know 0.1 to 0.6, networks 0.4 to 0.7. See docs/scaling.md."""


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
    if processes_of(network) is not None:
        checkpoints = None  # each process trains the heads for itself: they would write to one folder
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
    return replace(twins, trained=None, source="trunk")  # the heads alone are no models of the examples


def begun(
    x: Any,
    y: Int[Tensor, " n"],
    build: StackBuilder,
    recipe: Recipe,
    *,
    n_classes: int,
    seed: int = 0,
    weight: Float[Tensor, " n"] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> Stack:
    """A network that has begun to learn its shortcut; where no features are learned, as it starts.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        build: makes the network.
        recipe: of the final model; see `first_steps`.
        n_classes: C.
        seed: of the network's start, where it is random, and of the minibatch order.
        weight: (n,) of each example's loss; None weighs all the same.
        checkpoints: where to save and resume.
        progress: text of the progress bar; None shows none.
    """
    network = build([derive_seed(seed, "trunk")])
    if network.learns_features:
        flipped = trunk(
            x, y, network, n_classes=n_classes, seed=seed, weight=weight, progress=progress
        ).labels[0]
        train(
            network,
            x,
            Supervised(Supervision(flipped, weight=weight)),
            first_steps(recipe, len(y)),
            seed=derive_seed(seed, "trunk", "order"),
            checkpoints=checkpoints,
            progress=progress,
        )
    return network


def share_known(logits: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> float:
    """How far, from guessing (0) to always (1), logits are right about labels: balanced accuracy less chance.

    Args:
        logits: (n, C).
        y: (n,) labels.
    """
    right, chance = (logits.argmax(1) == y).double(), 1 / logits.shape[1]
    mean = float(torch.stack([right[y == label].mean() for label in y.unique()]).mean())
    return (mean - chance) / (1 - chance)


def default_twins(
    heads: Callable[[], XRMResult] | None,
    networks: Callable[[], XRMResult],
    processes: Processes | None = None,
) -> XRMResult:
    """The twins whose held-out logits are taken where nobody says which.

    Heads, if they know ENOUGH of the labels; else networks, if these know CLEARLY more. Twins make what is easiest to
    learn ever purer, so that those who are right far more often see it better.

    Args:
        heads: trains heads on a network that has begun to learn; None where there are no such (`stands_on_trunk`).
        networks: trains models of the final model's kind; called only where they may be needed.
        processes: that train together, and take the same.
    """
    if heads is None:
        return networks()
    found = heads()
    known = _known(found, processes)
    if known >= ENOUGH:
        return found
    others = networks()
    return others if _known(others, processes) > known + CLEARLY else found


def _known(twins: XRMResult, processes: Processes | None) -> float:
    share = share_known(twins.logits[twins.best], twins.y)
    if processes is None:
        return share
    # kernels that add in no fixed order can leave each process with heads of its own
    mean = torch.tensor(share, device=processes.device)
    processes.average([mean])
    return float(mean)
