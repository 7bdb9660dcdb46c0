"""What the loop must know of several processes: which objectives they can share, and one checkpoint for all."""

from collections.abc import Mapping
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from unrote.checkpoint import Checkpoint, Checkpoints
from unrote.errors import OptionError
from unrote.models import ModuleStack, Processes, Stack
from unrote.training.objective import Objective

_ASK_EVERY = 10  # steps between questions whether to save, each of which waits for all


def processes_of(stack: Stack) -> Processes | None:
    """The processes that share a stack's work; heads on features are computed whole by each."""
    return stack.processes if isinstance(stack, ModuleStack) else None


def check_splits(objective: Objective, processes: Processes | None) -> None:
    """Refuse an objective that processes cannot share.

    Raises:
        OptionError: if parameters enter its loss other than through logits and features.
    """
    if processes is not None and processes.count > 1 and not objective.through_logits:
        raise OptionError(
            f"{type(objective).__name__} uses the parameters themselves, which {processes.count} processes cannot "
            "share: train it with one process"
        )


class SharedCheckpoints(Checkpoints):
    """Checkpoints of sharded parameters: the first process writes them, and all bring their slices together.

    Args:
        checkpoints: what they are like.
        processes: that train.
    """

    def __init__(self, checkpoints: Checkpoints, processes: Processes) -> None:
        super().__init__(checkpoints.folder, checkpoints.identity, checkpoints.every, checkpoints.keep)
        self.processes = processes

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be written, which by the clock the first process decides for all."""
        if self.every is not None:
            return super().due(step)
        return step % _ASK_EVERY == 0 and self.processes.any(self.processes.rank == 0 and super().due(step))

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Write a checkpoint if this is the first process."""
        if self.processes.rank == 0:
            super().save(step, tensors, record)


def saving(checkpoints: Checkpoints | None, processes: Processes | None) -> Checkpoints | None:
    """What a process saves with; None where another does so for it."""
    if checkpoints is None or processes is None:
        return checkpoints
    if processes.shard:
        return SharedCheckpoints(checkpoints, processes)
    return None if processes.rank else checkpoints


def newest(checkpoints: Checkpoints | None, processes: Processes | None) -> Checkpoint | None:
    """The checkpoint to go on from: the first process's, which the others are sent."""
    if checkpoints is None:
        return None
    if processes is None:
        return checkpoints.latest()
    found = checkpoints.latest() if processes.rank == 0 else None
    head = None if found is None else {"step": found.step, "record": found.record}
    head, content = processes.share(head, b"" if found is None else dump_tensors(found.tensors))
    return None if head is None else Checkpoint(head["step"], load_tensors(content), head["record"])
