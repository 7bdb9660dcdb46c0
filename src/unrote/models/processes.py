"""Several processes that train one stack: each computes its slice of every minibatch, and all know all logits.

    rows of the minibatch that are mine   ->  my logits, with their gradient
    gather                                ->  all logits, on every process; the others' without gradient
    loss of the whole minibatch           ->  the same number on every process
    backward                              ->  my rows' share of the gradient
    sum over processes                    ->  the gradient

So a loss is normalised over the whole minibatch whatever it is (weighted, class-balanced, of the worst group), and
whatever a method keeps per example (flipped labels, moving averages, group weights) is computed from the same logits
on every process and stays the same there. Methods need not know of it.
"""

import atexit
import gc
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from unrote.data.inputs import Example, batch_length, map_tensors
from unrote.errors import MissingPackageError, OptionError

_BUCKET = 1 << 24  # numbers that are summed over processes at a time, of many small tensors
_UNREACHED = (
    " (where machines do not reach each other, name the network interface between them in GLOO_SOCKET_IFNAME, or in "
    "NCCL_SOCKET_IFNAME for GPUs)"
)


@dataclass(frozen=True)
class Shard:
    """One process's rows of a minibatch, where the others' were not loaded.

    Args:
        x: the rows; one row, not to be used, where the process has none.
        size: rows of the whole minibatch.
    """

    x: Example
    size: int


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them; `start_processes` makes it.

    Args:
        rank: of this process, from 0.
        count: of processes.
        device: of this process.
        shard: whether each keeps a slice of the parameters alone, rather than all of them.
    """

    rank: int
    count: int
    device: torch.device
    shard: bool = False

    def rows(self, size: int) -> slice:
        """This process's rows of `size`; some process may have none."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def take(self, x: "Example | Shard", dim: int) -> tuple[Example, int]:
        """This process's rows of a minibatch, and the size of the whole.

        Args:
            x: the whole minibatch, or the rows as they were loaded.
            dim: of the rows.
        """
        if isinstance(x, Shard):
            return x.x, x.size
        size = _length(x, dim)
        rows = self.rows(size)
        start, length = (rows.start, rows.stop - rows.start) if rows.stop > rows.start else (0, 1)
        return map_tensors(x, lambda t: t.narrow(dim, start, length)), size

    def gather(self, own: Float[Tensor, "S b F"], size: int) -> Float[Tensor, "S B F"]:
        """All rows; a gradient flows to this process's own alone."""
        lengths = [(rank + 1) * size // self.count - rank * size // self.count for rank in range(self.count)]
        padded = own.new_zeros(own.shape[0], max(lengths), own.shape[2])
        padded[:, : own.shape[1]] = own.detach()
        found = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(found, padded)
        parts = [part[:, :length] for part, length in zip(found, lengths, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts, dim=1)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up each parameter's gradient; one that no process has stays away."""
        trained = [p for p in parameters if p.requires_grad]
        there = torch.tensor([float(p.grad is not None) for p in trained], device=self.device)
        dist.all_reduce(there)
        wanted = [p for p, n in zip(trained, there.tolist(), strict=True) if n]
        for p in wanted:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.add_up([p.grad for p in wanted if p.grad is not None])

    def average(self, values: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        self.add_up(values)
        for value in values:
            value.div_(self.count)

    def add_up(self, values: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        bucket: list[Tensor] = []
        for k, value in enumerate(values):
            bucket.append(value)
            last = k + 1 == len(values) or values[k + 1].dtype != value.dtype
            if last or sum(v.numel() for v in bucket) >= _BUCKET:
                flat = torch.cat([v.reshape(-1) for v in bucket])
                dist.all_reduce(flat)
                for v, part in zip(bucket, flat.split([v.numel() for v in bucket]), strict=True):
                    v.copy_(part.view_as(v))
                bucket = []

    def any(self, here: bool) -> bool:
        """Whether it is so on some process."""
        flag = torch.tensor(float(here), device=self.device)
        dist.all_reduce(flag)
        return bool(flag)

    def share(self, record: Any, content: bytes) -> tuple[Any, bytes]:
        """A JSON-ready record and bytes of process 0, on every process; nothing is pickled."""
        return json.loads(self._share(json.dumps(record).encode())), self._share(content)

    def _share(self, content: bytes) -> bytes:
        length = torch.tensor(len(content), device=self.device)
        dist.broadcast(length, 0)
        values = torch.zeros(max(int(length), 1), dtype=torch.uint8, device=self.device)
        if self.rank == 0 and content:
            values.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(values, 0)
        return values.cpu().numpy().tobytes()[: int(length)]


def _length(x: Example, dim: int) -> int:
    return batch_length(map_tensors(x, lambda t: t.movedim(dim, 0)))


def start_processes(
    devices: int | Literal["auto"] = "auto",
    *,
    nodes: int | Literal["auto"] = "auto",
    accelerator: str = "auto",
    shard: bool = False,
) -> Processes:
    """Start the processes of a run, or join those that torchrun or SLURM's srun started.

    Without a launcher the script is started once more for each further process, with the same arguments: call this
    before anything that should happen once. It wants lightning, the extra of that name.

    Args:
        devices: processes on each machine, each with a device of its own; "auto" takes as many as were started,
            without a launcher one per GPU.
        nodes: machines; "auto" takes those on which processes were started.
        accelerator: "cuda", "cpu" or "auto".
        shard: whether each process keeps a slice of the parameters, of their gradients and of the optimiser's state,
            rather than all of them (`models.sharding`). It takes more messages, and less memory.

    Raises:
        MissingPackageError: if lightning is not installed.
        OptionError: if other numbers of processes were started, the processes do not reach each other, or lightning
            finds no such devices.
    """
    try:
        from lightning.fabric import Fabric
        from lightning.fabric.utilities.exceptions import MisconfigurationException
    except ImportError as error:
        raise MissingPackageError(
            "several processes need lightning: install it with `pip install 'unrote[lightning]'`"
        ) from error
    devices, nodes, launcher = as_launched(devices, nodes)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp",
            plugins=_environment(launcher, devices),
        )
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise OptionError(
            f"cannot start processes with devices={devices}, nodes={nodes}, accelerator={accelerator!r}: {error}"
            f"{'' if nodes == 1 else _UNREACHED}"
        ) from error
    # at the end of the interpreter, gloo's threads would abort a process that leaves with a code of its own
    atexit.register(_leave)
    return Processes(fabric.global_rank, fabric.world_size, fabric.device, shard)


def as_launched(
    devices: int | Literal["auto"], nodes: int | Literal["auto"]
) -> tuple[int | Literal["auto"], int, str | None]:
    """Processes on each machine, machines, and who started them.

    Raises:
        OptionError: if others were started.
    """
    launched = _launched()
    if launched is None:
        if nodes not in ("auto", 1) and "NODE_RANK" not in os.environ:
            raise OptionError(
                f"nodes={nodes}, but this script was started by itself on one machine: start it on all of them, with "
                "torchrun or SLURM's srun"
            )
        return devices, 1 if nodes == "auto" else nodes, None
    launcher, each, machines = launched
    for name, wanted, found in (("devices", devices, each), ("nodes", nodes, machines)):
        if wanted not in ("auto", found):
            raise OptionError(
                f"{name}={wanted}, but {launcher} started {each} on each of {machines} machines: start as many, or "
                f"leave out {name}"
            )
    return each, machines, launcher


def _launched() -> tuple[str, int, int] | None:
    """Who started this process among others, how many on each machine and on how many; None if it is by itself.

    Raises:
        OptionError: if machines have different numbers, or SLURM's tasks were not started.
    """
    given = os.environ
    if "TORCHELASTIC_RUN_ID" in given:
        each = int(given["LOCAL_WORLD_SIZE"])
        return "torchrun", each, int(given["WORLD_SIZE"]) // each
    if int(given.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        tasks, machines = given["SLURM_STEP_TASKS_PER_NODE"], int(given["SLURM_STEP_NUM_NODES"])
        even = re.fullmatch(r"(\d+)(\(x\d+\))?", tasks)  # as "2(x3)" for 2 on each of 3
        if even is None:
            raise OptionError(
                f"srun started {tasks} tasks on {machines} machines: ask for as many on each, with --ntasks-per-node"
            )
        return "srun", int(even[1]), machines
    meant = int(given.get("SLURM_NTASKS", given.get("SLURM_NNODES", 1)))
    if meant > 1 and "SLURM_STEP_ID" not in given:
        raise OptionError(
            f"this SLURM job has {meant} tasks, but the script was started once: put srun before its command, or ask "
            "for one task"
        )
    return None


def _environment(launcher: str | None, devices: int | str) -> Any:
    """How lightning learns of the other processes, where it would not see by itself."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    if launcher == "srun":
        # lightning wants to be told, and srun tells it only where it was asked with --ntasks-per-node; named here,
        # a job that is called "bash" or "interactive" is joined too, whose tasks would else be runs of their own
        os.environ["SLURM_NTASKS_PER_NODE"] = str(devices)
        return SLURMEnvironment()
    # one task, which starts further processes by itself
    return LightningEnvironment() if launcher is None and "SLURM_NTASKS" in os.environ else None


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()  # sharded modules hold on to the group in cycles
