"""What the loop must know of several processes: which objectives they can share, and one checkpoint for all."""

from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors

from unrote.checkpoint import Checkpoint, Checkpoints
from unrote.errors import OptionError
from unrote.models import ModuleStack, Processes, Stack
from unrote.training.objective import Objective


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
