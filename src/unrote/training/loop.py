"""The one training loop, over a stack of models.

    for each step:
        losses = objective.loss(stack, minibatch)      # one loss per member
        losses.sum().backward();  optimiser.step()     # members share no parameter: each trains on its own loss
        objective.after_step(stack, minibatch)         # for methods whose targets or weights follow the training

The loop knows no method. All randomness is drawn from (seed, purpose, step), so a run resumed from a checkpoint
is bit for bit the run that was never interrupted.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.checkpoint import Checkpoint, Checkpoints
from unrote.data.inputs import Inputs, as_inputs
from unrote.errors import CheckpointError, OptionError
from unrote.models import Optimizer, Processes, Shard, Stack
from unrote.models.sharding import like, whole
from unrote.progress import progress_bar
from unrote.training.best import BestMembers, EarlyStopping
from unrote.training.divergence import Divergence, describe, divergences
from unrote.training.interruption import Termination
from unrote.training.objective import Batch, Objective
from unrote.training.order import Order
from unrote.training.recipe import Recipe
from unrote.training.sharing import check_splits, newest, processes_of, saving
from unrote.training.updates import Updates

Evaluate = Callable[[Stack], Mapping[str, Float[Tensor, " S"]]]
"""Scores every member of a stack; the keys are metric names, the values one score per member."""

_LOOK_EVERY = 10  # steps between looks at the loss: a look waits for the device


@dataclass
class TrainingResult:
    """A trained stack and how it got there.

    Args:
        stack: in evaluation mode, with the best parameters where early stopping chose them.
        history: one record per evaluation: step, epoch, and lists with one value per member: the mean training
            loss since the last record, and every metric.
        best_step: (S,) the step whose parameters each member has.
        diverged_at: (S,) the step at which a member's loss left the finite numbers, -1 if it did not.
        divergences: of those that did: member, step, and the minibatch's indices.
    """

    stack: Stack
    history: list[dict[str, Any]]
    best_step: Int[Tensor, " S"]
    diverged_at: Int[Tensor, " S"]
    divergences: list[Divergence] = field(default_factory=list)


def train(
    stack: Stack,
    x: Any,
    objective: Objective,
    recipe: Recipe,
    *,
    seed: int | Sequence[int] = 0,
    sampling: Float[Tensor, " n"] | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    early_stopping: EarlyStopping | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> TrainingResult:
    """Train every member of a stack.

    Args:
        stack: trained in place, on its own device.
        x: n training examples, whatever holds them (`as_inputs`).
        objective: gives the loss of each member.
        recipe: optimiser, learning rates, batch size and length.
        seed: of the minibatch order; one that all members share, or one per member.
        sampling: (n,) at least 0; draws examples with replacement in proportion to it.
        evaluate: scores every member; called every `evaluate_every` steps and at the end.
        evaluate_every: steps between evaluations; default once an epoch.
        early_stopping: which metric chooses the parameters that are kept.
        checkpoints: where to save and resume; the run goes on from the newest one. With it, a process that is
            sent SIGTERM saves and exits with code 143.
        progress: text of the progress bar; None shows none.

    Raises:
        OptionError: if the options contradict each other.
        DataError: if the objective does not fit the examples or the stack.
        DivergedError: if every member's loss left the finite numbers.
        CheckpointError: if checkpoints cannot be read or written, or belong to another run.

    A member whose loss leaves the finite numbers is reported (`DivergedWarning`), and the others go on.
    """
    if early_stopping is not None and evaluate is None:
        raise OptionError("early_stopping needs evaluate=, a function that scores the stack")
    if evaluate_every is not None and evaluate_every < 1:
        raise OptionError(f"evaluate_every={evaluate_every}: at least 1 step is wanted")
    if not isinstance(seed, int) and len(seed) != stack.n_members:
        raise OptionError(f"{len(seed)} seeds for {stack.n_members} members: give one, or one each")
    inputs, processes, saves = as_inputs(x), processes_of(stack), checkpoints is not None
    objective.prepare(stack, len(inputs))
    check_splits(objective, processes)
    seeds = seed if isinstance(seed, int) else tuple(seed)
    order = Order(len(inputs), recipe.batch_size, seeds, sampling, inputs.blocks)
    every = evaluate_every or order.steps_per_epoch
    best = BestMembers(stack, early_stopping) if early_stopping is not None else None
    run = _Run(stack, objective, recipe, inputs, order, best)
    total = recipe.total_steps(order.steps_per_epoch)
    saved = newest(checkpoints, processes)
    if saved is not None:
        run.load(saved)
    checkpoints = saving(checkpoints, processes)
    if processes is not None and processes.rank:
        progress = None  # the first process speaks for all
    stack.train()
    bar = progress_bar(progress or "", total, show=progress is not None)
    # all processes take note of SIGTERM, though one alone saves
    with bar as advance, Termination(saves, processes) as termination:
        for batch in _batches(run, 0 if run.finished else total):
            run.update(batch)
            last = run.step == total
            look = last or run.step % _LOOK_EVERY == 0
            if look:
                advance(run.step, f"loss {run.look():.3f}")
            if last or run.step % every == 0:
                run.record(batch.epoch, evaluate(stack) if evaluate is not None else {})
                stack.train()  # should the evaluation have left it in its own mode
            ends = termination.agreed(look)
            if checkpoints is not None and (last or ends or run.finished or checkpoints.due(run.step)):
                checkpoints.save(run.step, *run.dump())
            if ends and not last:
                termination.end()
            if run.finished:
                break
    return run.result()


def _batches(run: "_Run", stop: int) -> Iterator[Batch]:
    """The minibatches from the run's step to `stop`, on the stack's device."""
    stack, inputs, order, start = run.stack, run.inputs, run.order, run.step
    if run.updates.reads_rows:
        for step, index in enumerate(order.minibatches(start, stop), start):
            yield Batch(index, partial(inputs.__getitem__, index), step, step // order.steps_per_epoch)
        return
    processes = processes_of(stack)
    splits = processes is not None and not run.objective.reads_examples
    indices, ahead = itertools.tee(order.minibatches(start, stop))
    own = (_own(index, processes) if splits else index for index in ahead)
    pairs = zip(indices, inputs.batches(own), strict=True)
    for step, (index, x) in enumerate(pairs, start):
        placed = stack.place(x)
        shown = Shard(placed, index.shape[-1]) if splits else placed
        yield Batch(index.to(stack.device), shown, step, step // order.steps_per_epoch)


def _own(index: Int[Tensor, "*S B"], processes: Processes | None) -> Int[Tensor, "*S b"]:
    """What one process loads of a minibatch: its rows, or one row where it has none."""
    assert processes is not None
    rows = processes.rows(index.shape[-1])
    return index[..., rows] if rows.stop > rows.start else index[..., :1]


@dataclass
class _Run:
    """Everything that changes while a run goes on, all of which a checkpoint holds."""

    stack: Stack
    objective: Objective
    recipe: Recipe
    inputs: Inputs
    order: Order
    best: BestMembers | None
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        stack = self.stack
        self.updates = Updates(stack, self.objective, self.recipe, self.inputs)
        self._reported: Bool[Tensor, " S"] = torch.zeros(stack.n_members, dtype=torch.bool)
        self.diverged_at = torch.full((stack.n_members,), -1, device=stack.device)
        self._losses: list[Float[Tensor, " S"]] = []  # since they were last looked at
        self.loss_sum = torch.zeros(stack.n_members, device=stack.device)
        self.loss_count = 0

    @property
    def finished(self) -> bool:
        """Whether every member has stopped early."""
        return self.best is not None and self.best.finished

    def update(self, batch: Batch) -> None:
        """One step of every member."""
        self.stack.step = batch.step
        self.updates.start()
        losses = self.updates.take(batch)
        self.objective.after_step(self.stack, batch)
        losses = losses.detach()
        self._losses.append(losses)
        self.loss_sum += losses
        self.loss_count += 1
        self.step = batch.step + 1

    def _settle(self) -> None:
        """Find when members diverged since the last time: their sums have left the finite numbers."""
        if self._losses and not bool(torch.isfinite(self.loss_sum).all()):
            lost = ~torch.isfinite(torch.stack(self._losses))
            first = self.step - len(lost) + lost.long().argmax(0)
            self.diverged_at = torch.where(lost.any(0) & (self.diverged_at < 0), first, self.diverged_at)
        self._losses.clear()

    def look(self) -> float:
        """The mean loss over the members that have not diverged; says which have since the last look.

        Raises:
            DivergedError: if all have.
        """
        self._settle()
        alive = self.diverged_at < 0
        gone = ~alive.cpu()
        if bool((gone & ~self._reported).any()):
            describe(divergences(self.diverged_at, self.order), gone & ~self._reported, self.recipe)
            self._reported = gone
        return float((self.loss_sum[alive] / max(1, self.loss_count)).mean())

    def record(self, epoch: int, metrics: Mapping[str, Tensor]) -> None:
        """Add an evaluation to the history and take note of the best parameters."""
        self._settle()
        values = {"loss": self.loss_sum / max(1, self.loss_count), **metrics}
        columns = {name: value.tolist() for name, value in values.items()}
        self.history.append({"step": self.step, "epoch": epoch, **columns})
        self.loss_sum, self.loss_count = torch.zeros_like(self.loss_sum), 0
        if self.best is not None:
            self.best.update(metrics, self.step)

    def dump(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and record for a checkpoint."""
        self._settle()
        parts = {
            "stack": self.stack.state_dict(),
            **{name: _moments(optimizer) for name, optimizer in self.updates.optimizers.items()},
            "objective": self.objective.state(),
            "best": self.best.state() if self.best is not None else {},
            "scale": self.updates.scale.state() if self.updates.scale is not None else {},
            "run": {
                "diverged_at": self.diverged_at,
                "loss_sum": self.loss_sum,
                "loss_count": torch.tensor(self.loss_count),
            },
        }
        tensors = {
            f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()
        }
        return tensors, {"history": self.history}

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: if its tensors are not those of this stack, optimiser and objective.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        try:
            for key, value in checkpoint.tensors.items():
                part, name = key.split("/", 1)
                parts.setdefault(part, {})[name] = value
            self.stack.load_state_dict(parts["stack"])
            for name, optimizer in self.updates.optimizers.items():
                _load_moments(optimizer, parts.get(name, {}))
            for name, value in self.objective.state().items():
                value.copy_(parts["objective"][name])
            if self.best is not None:
                self.best.load(parts["best"])
            device = self.stack.device
            if self.updates.scale is not None:
                self.updates.scale.load({name: value.to(device) for name, value in parts["scale"].items()})
            run = {name: value.to(device) for name, value in parts["run"].items()}
            self.diverged_at, self.loss_sum = run["diverged_at"], run["loss_sum"]
            self.loss_count = int(run["loss_count"])
            self.step, self.history = checkpoint.step, list(checkpoint.record["history"])
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint at step {checkpoint.step} does not fit this run ({error}): "
                "choose another folder, or delete the checkpoints to start again"
            ) from error

    def result(self) -> TrainingResult:
        """The trained stack, with the best parameters where early stopping chose them."""
        best_step = torch.full((self.stack.n_members,), self.step)
        if self.best is not None:
            self.stack.load_state_dict(self.best.parameters)
            best_step = self.best.step
        diverged_at = self.diverged_at.cpu()
        found = divergences(diverged_at, self.order)
        return TrainingResult(self.stack.eval(), self.history, best_step, diverged_at, found)


def _moments(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimiser keeps between steps, by parameter and name; in one order, as all processes gather shards."""
    return {
        f"{index}.{name}": whole(value)
        for index, state in sorted(optimizer.state_dict()["state"].items())
        for name, value in sorted(state.items())
        if isinstance(value, Tensor)
    }


def _load_moments(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `_moments` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = like(value, trained[int(index)])
    # rates and decays come from the recipe, which the run's identity already pins
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
