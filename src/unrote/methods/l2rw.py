"""L2RW: learning to reweight examples (Ren et al. 2018, arXiv 1803.09050, ICML 2018).

    for each step, with parameters w, a minibatch (x_i, y_i) and a small group-balanced validation minibatch:
        one virtual step on sum_i eps_i CE_i from eps = 0:  w(eps) = w - sum_i eps_i grad CE_i(w)
        weight[i] = max(0, -d validation loss(w(eps)) / d eps_i) = max(0, <grad CE_i(w), grad validation loss(w)>)
        divide the weights by their sum; if all are 0, the step learns nothing
        take a step on sum_i weight[i] CE_i

An example counts as far as learning it would lower the loss of the balanced validation examples, where groups
weigh the same, so that the exceptions to a shortcut count most. The virtual step's rate cancels in the
division.

Needs the groups of the validation examples, which steer every step: score the result on others. Costs about
three steps of ERM a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data import Split
from unrote.data.options import check_count
from unrote.errors import OptionError
from unrote.methods.balance import equal_weights
from unrote.methods.base import Fitted, Method, register
from unrote.methods.search import Choice, hyper
from unrote.methods.session import Session
from unrote.models import Processes, Stack
from unrote.seeding import generator
from unrote.supervision import Supervision, cross_entropy, take_examples
from unrote.training import Batch, Objective, processes_of


@dataclass
class LearnedWeights(Objective):
    """Cross-entropy, weighted by how far each example helps a balanced validation minibatch.

    Args:
        y: (n,) labels.
        validation: examples to do well on.
        chance: (m,) of each of them to be drawn, up to a factor.
        size: of the validation minibatch.
        seed: of its draws.
        importance: (n,) multiplies the learned weights; None leaves them as they are.
    """

    y: Int[Tensor, " n"]
    validation: Split
    chance: Float[Tensor, " m"]
    size: int
    seed: int
    importance: Float[Tensor, " n"] | None = None

    def with_weight(self, weight: Float[Tensor, " n"]) -> "LearnedWeights":
        """The weights multiply the learned ones."""
        return replace(self, importance=weight)

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit the examples or the stack, and parameters in shards.

        Raises:
            OptionError: if parameters are sharded.
        """
        if (processes := processes_of(stack)) is not None and processes.shard:
            raise OptionError(
                "L2RW differentiates the parameters, which are sharded: start the processes without shard=True"
            )
        Supervision(self.y).check(n_examples, stack.n_members, stack.n_classes)
        self.y = self.y.to(stack.device)
        if self.importance is not None:
            self.importance = self.importance.to(stack.device)

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The loss of each member under the weights learned for this minibatch."""
        y = take_examples(self.y, batch.index, False)
        losses = cross_entropy(stack(batch.x, per_member=batch.per_member), y)
        wanted = self._validation_loss(stack, batch.step)
        weight = learned_weights(losses, wanted, list(stack.parameters()), processes_of(stack))
        if self.importance is not None:
            weight = weight * take_examples(self.importance, batch.index, False)
        return (weight * losses).sum(1) / weight.sum(1).clamp_min(torch.finfo(weight.dtype).tiny)

    def _validation_loss(self, stack: Stack, step: int) -> Float[Tensor, ""]:
        """The members' mean losses on a balanced validation minibatch, added up.

        In evaluation mode, so that what batch normalisation keeps stays that of training, and dropout is off.
        """
        drawn = generator(self.seed, "l2rw", step)
        index = torch.multinomial(self.chance, self.size, replacement=True, generator=drawn)
        stack.eval()
        logits = stack(stack.place(self.validation.x[index]))
        stack.train()
        total: Tensor = (
            cross_entropy(logits, self.validation.y[index].to(logits.device).unsqueeze(0)).mean(1).sum()
        )
        return total


def learned_weights(
    losses: Float[Tensor, "S B"],
    validation_loss: Float[Tensor, ""],
    parameters: list[Tensor],
    processes: Processes | None = None,
) -> Float[Tensor, "S B"]:
    """max(0, <gradient of each loss, gradient of the validation loss>); no gradient flows through it.

    The product of all gradients with one vector takes two backward passes: one that is linear in a weight per
    example, and one of its product with the vector with respect to these weights.

    Args:
        losses: of the minibatch's examples.
        validation_loss: of a validation minibatch.
        parameters: of which the losses are functions.
        processes: each of which knows the gradients of its own examples alone.
    """
    trained = [p for p in parameters if p.requires_grad]
    wanted: Sequence[Tensor | None] = [None] * len(trained)
    if validation_loss.requires_grad:  # not so in a process that has none of the examples
        wanted = torch.autograd.grad(validation_loss, trained, allow_unused=True)
    if processes is not None:
        wanted = [torch.zeros_like(p) if v is None else v for p, v in zip(trained, wanted, strict=True)]
        processes.add_up([v for v in wanted if v is not None])
    epsilon = torch.zeros_like(losses).requires_grad_()
    slopes = torch.autograd.grad((epsilon * losses).sum(), trained, create_graph=True, allow_unused=True)
    products = [(s * v).sum() for s, v in zip(slopes, wanted, strict=True) if s is not None and v is not None]
    weights = torch.zeros_like(losses)
    if products:
        weights = torch.autograd.grad(torch.stack(products).sum(), epsilon)[0].detach()
    if processes is not None:
        processes.add_up([weights])
    return weights.clamp_min(0)


@register("l2rw", needs="val", reference="Ren et al. 2018, arXiv 1803.09050")
@dataclass(frozen=True)
class L2RW(Method):
    """Learning to reweight examples.

    Args:
        validation_size: examples in each balanced validation minibatch, drawn with replacement.
    """

    validation_size: int = hyper(256, Choice((64, 256, 1024)))

    def __post_init__(self) -> None:
        check_count("validation_size", self.validation_size, 1)

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        chance = equal_weights(session.validation_groups().index)
        objective = LearnedWeights(session.y, session.validation, chance, self.validation_size, session.seed)
        result = session.train(objective, settings=self.settings())
        return self.fitted(session, result)
