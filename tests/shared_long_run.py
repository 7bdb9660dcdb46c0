"""Two processes, one of which is sent SIGTERM: `torchrun ... shared_long_run.py FOLDER [shard]`.

They train on whole parameters, and with "shard" then on shards of them, each of which is sent its own SIGTERM; what
is left of the runs is in FOLDER/shared and FOLDER/sharded.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from shared_runs import kinds
from torch import Tensor, nn
from toys import clusters

from unrote.checkpoint import Checkpoints
from unrote.models import ModuleStack, Processes, Stack, start_processes
from unrote.supervision import Supervision
from unrote.training import Batch, Recipe, Supervised, train


class Ended(Supervised):
    """The second process is sent SIGTERM at step 13, once."""

    def __init__(self, y: Tensor, rank: int, mark: Path) -> None:
        super().__init__(Supervision(y))
        self.rank, self.mark = rank, mark

    def loss(self, stack: Stack, batch: Batch) -> Tensor:
        if self.rank == 1 and batch.step == 13 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(stack, batch)


def runs(processes: Processes, folder: Path) -> None:
    for name in ("broken", "unbroken"):
        x, y = clusters(40, 2, 4)
        stack = ModuleStack(lambda: nn.Linear(4, 2), 2, processes=processes)
        mark = folder / "sent"
        checkpoints = Checkpoints(folder / name, {"run": 1})
        recipe = Recipe("adam", 0.02, batch_size=7, steps=45)
        train(stack, x, Ended(y, processes.rank, mark), recipe, checkpoints=checkpoints)
        state = stack.state_dict()
        if processes.rank == 0:
            save_file(state, folder / f"{name}.safetensors")


def main(folder: Path, shard: bool) -> None:
    torch.set_num_threads(1)
    ends = []
    for kind, processes in kinds(start_processes(2, accelerator="cpu", shard=shard)).items():
        (folder / kind).mkdir(exist_ok=True)
        try:
            runs(processes, folder / kind)
        except SystemExit as end:
            ends.append(end)  # the process goes on to the other kind, as another would take long to start
    assert {end.code for end in ends} <= {143}
    if ends:
        raise ends[-1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["shard"])
