"""XRM: twin networks that predict each other's examples (Pezeshki et al. 2023, arXiv 2309.16748).

    assign each example to twin A or twin B by a fair coin
    repeat:
        the held-out twin predicts the minibatch: class c with probability p (networks: every fourth minibatch)
        each twin takes a step on its own examples, class-balanced, on the current labels
        each example's current label becomes c with probability (p - 1/C) * C/(C-1)
    h[i] = logits of the twin that did not train on i
    inferred group of i = 1 if either twin is wrong about i's true label, else 0

Examples that the shortcut explains keep their labels; the exceptions are flipped to what the shortcut says, so
that the twins learn the shortcut ever more purely. K pairs of twins train as one stack of 2K.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from unrote.checkpoint import Checkpoints
from unrote.data.inputs import Inputs, as_inputs
from unrote.errors import DataError, OptionError
from unrote.heldout.held_out import HeldOut
from unrote.models import Stack, StackBuilder
from unrote.seeding import derive_seed, generator
from unrote.supervision import Supervision, take_examples
from unrote.training import Batch, Evaluate, Recipe, Supervised, train

LOOK = 4
"""Steps from one look at the held-out twins to the next where a look costs a pass through a network."""

NETWORK_SHARE, FEWEST_STEPS = 0.5, 400
"""Share of the final model's training that twins get which learn features, and the steps it is not to fall below."""


def shorter_for_twins(recipe: Recipe, n_examples: int) -> Recipe:
    """How twins that learn features are trained beside a final model: half as long, as a shortcut is learned first.

    Args:
        recipe: of the final model.
        n_examples: n.
    """
    steps = recipe.total_steps(math.ceil(n_examples / (recipe.batch_size or n_examples)))
    return recipe.shortened(min(1.0, max(NETWORK_SHARE, FEWEST_STEPS / steps)))


class TwinObjective(Supervised):
    """Twins 2k and 2k+1 of pair k: each trains on its own examples and flips the labels of the other's.

    Args:
        y: (n,) true labels.
        assigned: (K, n) whether an example is trained on by the pair's first twin.
        n_classes: C.
        seeds: one per pair, of the flips.
        weight: (n,) of each example's loss for the twin that trains on it; None weighs all the same.
        look_every: steps from one look at what the held-out twins say to the next; a label flips at a look with
            the chance that it had of flipping in so many.
    """

    def __init__(
        self,
        y: Int[Tensor, " n"],
        assigned: Bool[Tensor, "K n"],
        n_classes: int,
        seeds: Sequence[int],
        weight: Float[Tensor, " n"] | None = None,
        look_every: int = 1,
    ) -> None:
        trains = torch.stack([assigned, ~assigned], dim=1).flatten(0, 1).float()
        trains = trains if weight is None else trains * weight
        super().__init__(Supervision(y.repeat(len(trains), 1), trains, reduction="class_balanced"))
        self.look_every = look_every
        self.assigned, self.n_classes, self.seeds = assigned, n_classes, seeds
        self._least: tuple[int, Tensor] | None = None

    @property
    def labels(self) -> Int[Tensor, "K n"]:
        """The current labels, which are the targets of both twins of a pair."""
        return self.supervision.target[::2]

    def _of(self, values: Shaped[Tensor, "K n"], batch: Batch) -> Shaped[Tensor, "K B"]:
        """The values of each pair's minibatch, which its twins share."""
        return take_examples(values, batch.index[::2] if batch.per_member else batch.index, member_dim=True)

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit the examples or the stack.

        Raises:
            DataError: if they do not.
        """
        if stack.n_classes != self.n_classes:
            raise DataError(
                f"n_classes={self.n_classes}, the stack has {stack.n_classes}: they must be equal"
            )
        super().prepare(stack, n_examples)

    @torch.no_grad()
    def see(self, stack: Stack, batch: Batch, logits: Float[Tensor, "S B C"]) -> None:
        """Flip labels by what the twin says of an example that does not train on it."""
        if batch.step % self.look_every:
            return
        first = self._of(self.assigned, batch)
        if not stack.computes_all:
            held_out = torch.stack([~first, first], dim=1).flatten(0, 1)
            stack.eval()
            logits = stack.relative_logits(batch.x, held_out, per_member=batch.per_member)
            stack.train()
        least = self._of(self._least_confidence(batch.epoch), batch)
        if self.n_classes == 2:  # a margin is quicker than a softmax
            margins = logits[..., 1] - logits[..., 0]
            margin = torch.where(first, margins[1::2], margins[::2])
            flips, predicted = margin.abs() > least, (margin > 0).long()
        else:
            said = torch.where(first.unsqueeze(-1), logits[1::2], logits[::2])
            p, predicted = said.softmax(-1).max(-1)
            flips = p > least
        # the targets of both twins, whose memory is faster to go through than that of every second row
        target = self.supervision.target
        labels = torch.where(flips, predicted, take_examples(target, batch.index, member_dim=True)[::2])
        labels = labels.repeat_interleave(2, dim=0)
        if batch.per_member:
            target.scatter_(1, batch.index, labels)
        else:
            target.index_copy_(1, batch.index, labels)

    def _least_confidence(self, epoch: int) -> Float[Tensor, "K n"]:
        """How sure a twin must be of an example for its label to flip: max p, or of two classes the margin.

        It follows from one uniform number per pair and example, new each epoch, whatever the order of minibatches.
        """
        if self._least is None or self._least[0] != epoch:
            n, C = self.labels.shape[1], self.n_classes
            drawn = [torch.rand(n, generator=generator(seed, "flip", epoch)) for seed in self.seeds]
            # to flip in so many looks with chance 1 - (1 - q)^looks
            q = 1 - (1 - torch.stack(drawn)) ** (1 / self.look_every)
            # q = (p - 1/C) * C/(C-1), which of two classes is tanh(margin / 2)
            least = 2 * torch.atanh(q) if C == 2 else q * (C - 1) / C + 1 / C
            self._least = epoch, least.to(self.labels.device)
        return self._least[1]

    def state(self) -> dict[str, Tensor]:
        """The current labels."""
        return {"labels": self.supervision.target}


@dataclass(frozen=True)
class XRMResult:
    """K trained pairs of twins.

    Args:
        logits: (K, n, C) held-out logits.
        assigned: (K, n) whether the pair's first twin trained on the example.
        labels: (K, n) labels at the end of training.
        y: (n,) true labels.
        mistakes: (K, n) inferred group: 1 where either twin is wrong about the true label.
        validation_mistakes: (K, m) likewise for the validation examples; None where there are none.
        validation_y: (m,) their true labels.
        trained: the 2K twins, those of a pair side by side; None where only what they said was kept.
        history: of their training, with a number per twin; see `TrainingResult`.
        source: "trunk" if the twins are heads on the features of a network.
    """

    logits: Float[Tensor, "K n C"]
    assigned: Bool[Tensor, "K n"]
    labels: Int[Tensor, "K n"]
    y: Int[Tensor, " n"]
    mistakes: Int[Tensor, "K n"]
    validation_mistakes: Int[Tensor, "K m"] | None
    validation_y: Int[Tensor, " m"] | None
    trained: Stack | None = None
    history: Sequence[Mapping[str, Any]] = ()
    source: Literal["xrm", "trunk"] = "xrm"

    @property
    def stack(self) -> Stack:
        """The 2K twins, those of a pair side by side.

        Raises:
            OptionError: if only what they said was kept.
        """
        if self.trained is None:
            raise OptionError("these twins were read back without their models: train them with `xrm`")
        return self.trained

    @cached_property
    def degenerate(self) -> Bool[Tensor, " K"]:
        """(K,) whether some class is all in one inferred group, of the training or validation examples."""
        result = _one_sided(self.mistakes, self.y)
        if self.validation_mistakes is not None and self.validation_y is not None:
            result = result | _one_sided(self.validation_mistakes, self.validation_y)
        return result

    @cached_property
    def flip_rate(self) -> Float[Tensor, " K"]:
        """(K,) share of training labels that ended up changed; 0 for a degenerate pair."""
        rate = (self.labels != self.y).float().mean(1)
        return torch.where(self.degenerate, 0.0, rate)

    @property
    def best(self) -> int:
        """The pair with the largest flip rate: XRM's own way to choose hyper-parameters."""
        return int(self.flip_rate.argmax())

    def held_out(self, pair: int | None = None) -> HeldOut:
        """Held-out logits of one pair, by default the best."""
        k = self.best if pair is None else pair
        trained_on = torch.stack([self.assigned[k], ~self.assigned[k]])
        return HeldOut(self.logits[k], trained_on, self.assigned[k].long(), self.source)


def twins_among(artefacts: Mapping[str, Any], held_out: HeldOut | None) -> XRMResult | None:
    """The twins among what was made on the way; where there are both kinds, those that made the held-out logits.

    Args:
        artefacts: by name, "xrm" for networks and "trunk" for heads.
        held_out: what was worked with.
    """
    kinds = ("trunk", "xrm") if held_out is not None and held_out.source == "trunk" else ("xrm", "trunk")
    return next((artefacts[kind] for kind in kinds if kind in artefacts), None)


def _one_sided(mistakes: Int[Tensor, "K n"], y: Int[Tensor, " n"]) -> Bool[Tensor, " K"]:
    shares = torch.stack([mistakes[:, y == label].float().mean(1) for label in y.unique()], dim=1)
    return ((shares == 0) | (shares == 1)).any(1)


def xrm(
    x: Any,
    y: Int[Tensor, " n"],
    build: StackBuilder,
    recipe: Recipe,
    *,
    n_classes: int,
    seeds: Sequence[int] = (0,),
    weight: Float[Tensor, " n"] | None = None,
    validation: tuple[Any, Int[Tensor, " m"]] | None = None,
    look_every: int | None = None,
    own_order: bool = False,
    order_seed: int | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> XRMResult:
    """Train K pairs of twins as one stack.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        build: makes the stack of models.
        recipe: how the twins are trained; one learning rate and weight decay, or one per pair.
        n_classes: C.
        seeds: one per pair, of its coin, its models and its flips.
        weight: (n,) of each example's loss for the twin that trains on it, at least 0; None weighs all the same.
        validation: examples and labels whose inferred groups are wanted too.
        look_every: steps from one look at what the held-out twins say of the minibatch to the next; a label flips
            at a look with the chance that it had of flipping in so many. Default 1, or LOOK where a look
            costs a pass through a network.
        own_order: whether each pair has a minibatch order of its own, so that pair k of many equals pair k
            alone; the default shares one order, which is three times as fast on features.
        order_seed: of the shared order, so that it does not depend on which pairs share it; default the first
            pair's seed.
        evaluate: looks at the twins while they train, a number per twin.
        evaluate_every: steps between looks; default once an epoch.
        checkpoints: where to save and resume.
        progress: text of the progress bar; None shows none.

    Raises:
        DataError: if labels do not fit the examples or the classes.
    """
    if validation is not None:
        _check_validation(as_inputs(validation[0]), validation[1], n_classes)
    assigned = torch.stack([torch.rand(len(y), generator=generator(seed, "assign")) < 0.5 for seed in seeds])
    stack = build([derive_seed(seed, "twin", twin) for seed in seeds for twin in range(2)])
    device = stack.device
    weight = None if weight is None else weight.to(device)
    look_every = look_every or (1 if stack.computes_all else LOOK)
    objective = TwinObjective(y.to(device), assigned.to(device), n_classes, seeds, weight, look_every)
    orders = [derive_seed(seed, "xrm") for seed in seeds]
    shared = orders[0] if order_seed is None else derive_seed(order_seed, "xrm")
    trained = train(
        stack,
        x,
        objective,
        recipe.repeated(2),
        seed=[order for order in orders for _ in range(2)] if own_order else shared,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        checkpoints=checkpoints,
        progress=progress,
    )
    logits = stack.predict(x).view(len(seeds), 2, len(y), n_classes)
    # assigned to the first twin means held out from the second
    held_out = torch.where(assigned.unsqueeze(-1), logits[:, 1], logits[:, 0])
    checked = None
    if validation is not None:
        checked = _cross_mistakes(stack.predict(validation[0]), validation[1], len(seeds))
    return XRMResult(
        logits=held_out,
        assigned=assigned,
        labels=objective.labels.cpu().contiguous(),
        y=y,
        mistakes=_cross_mistakes(logits.flatten(0, 1), y, len(seeds)),
        validation_mistakes=checked,
        validation_y=None if validation is None else validation[1],
        trained=stack,
        history=trained.history,
    )


def _check_validation(inputs: Inputs, y: Int[Tensor, " _"], n_classes: int) -> None:
    if len(y) != len(inputs) or not 0 <= int(y.min()) <= int(y.max()) < n_classes:
        raise DataError(
            f"validation: {len(y)} labels from {int(y.min())} to {int(y.max())} for {len(inputs)} examples and "
            f"{n_classes} classes: one label per example, from 0 to {n_classes - 1}, is wanted"
        )


def _cross_mistakes(logits: Float[Tensor, "S n C"], y: Int[Tensor, " n"], n_pairs: int) -> Int[Tensor, "K n"]:
    return (logits.argmax(-1) != y).view(n_pairs, 2, -1).any(1).long()
