"""A run that takes its time: `python long_run.py FOLDER NAME`; with FOLDER/NAME.quick there it does not."""

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from toys import clusters

from unrote.checkpoint import Checkpoints
from unrote.models import ModuleStack, Stack
from unrote.supervision import Supervision
from unrote.training import Batch, Recipe, Supervised, train


class Slow(Supervised):
    """Says that it began, and sleeps at each step."""

    def __init__(self, y: Tensor, started: Path, pause: float) -> None:
        super().__init__(Supervision(y))
        self.started, self.pause = started, pause

    def loss(self, stack: Stack, batch: Batch) -> Tensor:
        self.started.touch()
        time.sleep(self.pause)
        return super().loss(stack, batch)


def main(folder: Path, name: str) -> None:
    torch.set_num_threads(1)
    x, y = clusters(40, 2, 4)
    stack = ModuleStack(lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.2), nn.Linear(5, 2)), 2, (0, 1))
    objective = Slow(y, folder / f"{name}.started", 0.0 if (folder / f"{name}.quick").exists() else 0.02)
    recipe = Recipe("adam", 0.02, batch_size=7, steps=600)
    train(stack, x, objective, recipe, checkpoints=Checkpoints(folder / name, {"run": 1}))
    save_file(stack.state_dict(), folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
