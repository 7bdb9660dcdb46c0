"""From the members' losses to new parameters: the gradient, over processes, clipped, and in half precision scaled."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrote.data.inputs import Inputs
from unrote.models import LinearStep, ModuleStack, Stack, stacked_optimizer
from unrote.models.sharding import own as own_slice
from unrote.training.objective import Batch, Objective, Supervised
from unrote.training.recipe import Recipe

_GROW_AFTER = 2000  # updates without overflow, as torch.amp.GradScaler has it


class LossScale:
    """The factor of each member's loss in fp16, whose small gradients would otherwise be 0.

    A member whose gradient overflows leaves out that update and halves its factor; the others go on.

    Args:
        n_members: S.
        device: of the stack.
    """

    def __init__(self, n_members: int, device: torch.device) -> None:
        self.factor: Float[Tensor, " S"] = torch.full((n_members,), 2.0**16, device=device)
        self.good: Float[Tensor, " S"] = torch.zeros(n_members, device=device)

    def update(self, finite: Bool[Tensor, " S"]) -> None:
        """Follow an update in which some members' gradients were finite."""
        self.good = torch.where(finite, self.good + 1, 0.0)
        grown = self.good >= _GROW_AFTER
        self.good = torch.where(grown, 0.0, self.good)
        factor = torch.where(grown, 2 * self.factor, self.factor)
        self.factor = torch.where(finite, factor, factor / 2).clamp_min(1.0)

    def state(self) -> dict[str, Tensor]:
        """Everything, by name, for a checkpoint."""
        return {"factor": self.factor, "good": self.good}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self.factor, self.good = state["factor"], state["good"]


class Updates:
    """The optimisers of a run, and all that happens between a loss and their step.

    Args:
        stack: trained.
        objective: its own parameters are trained along.
        recipe: optimiser, rates, and the norm that gradients are clipped to.
        inputs: the training examples.
    """

    def __init__(self, stack: Stack, objective: Objective, recipe: Recipe, inputs: Inputs) -> None:
        self.stack, self.objective, self.clip_norm = stack, objective, recipe.clip_norm
        rates = recipe.per_member("learning_rate", stack.n_members)
        decays = recipe.per_member("weight_decay", stack.n_members)
        self.optimizers = {"optimizer": stack.optimizer(recipe.optimizer, rates, decays, recipe.momentum)}
        self.own = objective.parameters()
        if self.own:
            self.optimizers["objective optimizer"] = stacked_optimizer(
                self.own, recipe.optimizer, rates, decays, recipe.momentum
            )
        self._trained = [*stack.parameters(), *self.own]
        self._in_closed_form: Supervised | None = None
        self._compiled: LinearStep | None = None
        if (
            stack.closed_form
            and isinstance(objective, Supervised)
            and type(objective).loss is Supervised.loss
        ):
            self._in_closed_form = objective
            if self.clip_norm is None and not self.own:
                size = min(recipe.batch_size or len(inputs), len(inputs))
                self._compiled = LinearStep.of(stack, self.optimizers["optimizer"], inputs, size)
        half = isinstance(stack, ModuleStack) and stack.compute.precision == "fp16"
        self.scale = LossScale(stack.n_members, stack.device) if half else None

    @property
    def reads_rows(self) -> bool:
        """Whether examples are read where they lie, so that minibatches need not be brought together."""
        return self._compiled is not None and self._compiled.examples is not None

    def start(self) -> None:
        """Forget the gradients of the step before."""
        self.stack.recycle_gradients()
        for p in self._trained:
            p.grad = None

    def take(self, batch: Batch) -> Float[Tensor, " S"]:
        """Take a step on the sum of the members' losses, which share no parameter; gives the losses."""
        plain = self._in_closed_form
        if plain is not None:
            if self._compiled is not None and self._compiled.accepts(plain.supervision):
                x = None if self.reads_rows else batch.x
                losses, logits = self._compiled.take(x, batch.index, plain.supervision)
                plain.see(self.stack, batch, logits)
                return losses
            losses = self._write_gradients(plain, batch)
        else:
            losses = self.objective.loss(self.stack, batch)
            if not self._derive_gradients(losses):
                return losses
        if self.clip_norm is not None:
            norms = gradient_norms(self.stack, self.own)
            # a norm that is not finite is left for the run to notice
            multiply_gradients(self.stack, self.own, (self.clip_norm / (norms + 1e-6)).clamp_max(1.0))
        for optimizer in self.optimizers.values():
            optimizer.step()
        return losses

    @torch.no_grad()
    def _write_gradients(self, objective: Supervised, batch: Batch) -> Float[Tensor, " S"]:
        rows = objective.supervision.batch(batch.index)
        losses, logits = self.stack.write_gradients(batch.x, rows, per_member=batch.per_member)
        objective.see(self.stack, batch, logits)
        return losses

    def _derive_gradients(self, losses: Float[Tensor, " S"]) -> bool:
        """Whether there are any: not if no member has a weighted example in the minibatch."""
        has_gradient = losses.requires_grad
        if has_gradient:
            (losses if self.scale is None else losses * self.scale.factor).sum().backward()
        if isinstance(self.stack, ModuleStack) and self.stack.processes is not None:
            self.stack.share_gradients()
            has_gradient = True  # perhaps on another process
        if has_gradient and self.scale is not None:
            self._unscale(self.scale)
        return has_gradient

    def _unscale(self, scale: LossScale) -> None:
        multiply_gradients(self.stack, self.own, 1 / scale.factor)
        finite = gradient_norms(self.stack, self.own).isfinite()
        scale.update(finite)
        assert isinstance(self.stack, ModuleStack)
        for member, module in enumerate(self.stack.members):
            if not bool(finite[member]):
                for p in module.parameters():
                    p.grad = None  # so that the optimiser passes it over


def gradient_norms(stack: Stack, own: Sequence[Tensor]) -> Float[Tensor, " S"]:
    """Euclidean norm of each member's gradient, its part of an objective's own parameters included."""
    squares = torch.zeros(stack.n_members, device=stack.device)
    for member, gradients in enumerate(_by_member(stack)):
        for gradient in gradients:
            squares[member] += gradient.float().square().sum()
    if isinstance(stack, ModuleStack) and stack.processes is not None and stack.sharded:
        stack.processes.add_up([squares])  # each process has a slice of every gradient
    for p in _leading(stack, own):
        if p.grad is not None:
            squares += p.grad.flatten(1).float().square().sum(1)
    return squares.sqrt()


def multiply_gradients(stack: Stack, own: Sequence[Tensor], factor: Float[Tensor, " S"]) -> None:
    """Multiply each member's gradient by a factor, in place."""
    for p in _leading(stack, own):
        if p.grad is not None:
            p.grad.mul_(factor.to(p.grad.dtype).view(-1, *[1] * (p.ndim - 1)))
    for member, gradients in enumerate(_by_member(stack)):
        for gradient in gradients:
            gradient.mul_(factor[member].to(gradient.dtype))


def _leading(stack: Stack, own: Sequence[Tensor]) -> Iterator[Tensor]:
    """Parameters whose first dimension is the members."""
    if not isinstance(stack, ModuleStack):
        yield from stack.parameters()
    yield from own


def _by_member(stack: Stack) -> Iterator[Sequence[Tensor]]:
    """Gradients of each member of a stack of modules; of sharded ones this process's slices."""
    if isinstance(stack, ModuleStack):
        for module in stack.members:
            gradients = (p.grad for p in module.parameters() if p.grad is not None)
            yield [own_slice(g) for g in gradients] if stack.sharded else list(gradients)
