"""Methods trained by several processes: `python shared_runs.py FOLDER COUNT` (models/test_processes.py runs it).

Every process leaves what it has at the end in FOLDER as rank-R.safetensors, a tensor per method and thing.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from toys import planted_task

from unrote.api import evaluate
from unrote.checkpoint import Checkpoints
from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, Fitted, Session
from unrote.models import Compute, ModuleStack, Processes, start_processes
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train

TASK = planted_task(50, seed=1)
# the last of an epoch's minibatches has one example, so that a process has none
RECIPE = Recipe("adam", 0.02, batch_size=7, epochs=4, clip_norm=1.0)
METHOD_NAMES = ("mat", "jtt", "lff", "groupdro", "mixup", "irm", "cnc")


class Loaded(Dataset[Any]):
    """Examples that take note of which of them were read."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.read = x, torch.zeros(len(x), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        self.read[i] += 1
        return self.x[i]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def doubled(split: Split | None) -> Split | None:
    return split and Split(split.x[torch.arange(len(split))].double(), split.y, split.attribute)


def fit(name: str, processes: Processes | None, folder: Path | None) -> Fitted:
    splits = {key: doubled(split) for key, split in TASK.splits.items()}
    task = Task("planted", **splits)  # type: ignore[arg-type]
    session = Session(
        task.for_regime(METHODS[name].needs),
        lambda seeds: ModuleStack(network, 2, seeds, processes=processes),
        RECIPE,
        seed=2,
        checkpoint_folder=folder,
        checkpoint_every=5,
    )
    return METHODS[name]().fit(session)


def results(processes: Processes | None, folder: Path | None = None) -> dict[str, Tensor]:
    """Held-out logits, flips, what methods keep per example or group, logits, parameters and metrics."""
    found: dict[str, Tensor] = {}
    for name in METHOD_NAMES:
        fitted = fit(name, processes, None if folder is None else folder / name)
        test = TASK.splits["test"]
        found[f"{name}/logits"] = fitted.logits(test.x[torch.arange(len(test))].double())
        for key, value in fitted.stack.state_dict().items():
            found[f"{name}/{key}"] = value
        report = evaluate(fitted, Task("planted", **{k: doubled(s) for k, s in TASK.splits.items()}))  # type: ignore[arg-type]
        assert report.worst_group.accuracy is not None
        found[f"{name}/worst group"] = torch.tensor(report.worst_group.accuracy)
        found[f"{name}/losses"] = torch.tensor([r["loss"] for r in fitted.training.history])
        for key in ("mistakes", "difficulty", "group_weights", "shift"):
            if isinstance(value := fitted.artefacts.get(key), Tensor):
                found[f"{name}/{key}"] = value
        if "xrm" in fitted.artefacts:
            twins = fitted.artefacts["xrm"]
            found |= {
                "xrm/held-out": twins.logits,
                "xrm/labels": twins.labels,
                "xrm/mistakes": twins.mistakes,
            }
    return {name: value.contiguous() for name, value in found.items()}


def norm_and_reading(processes: Processes | None) -> dict[str, Tensor]:
    """A network with batch norm and dropout, on examples that are counted as they are read."""

    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))

    train_split = TASK.train
    x = Loaded(train_split.x[torch.arange(50)])
    x.read.zero_()
    stack = ModuleStack(factory, 2, (0,), compute=Compute(part=3), processes=processes)
    recipe = Recipe("sgd", 0.05, batch_size=10, epochs=2)
    train(stack, x, Supervised(Supervision(train_split.y)), recipe)
    return {**{f"norm/{k}": v for k, v in stack.state_dict().items()}, "norm/read": x.read}


def refused(processes: Processes) -> None:
    """What reads parameters is refused before it trains."""
    for name in ("l2rw", "ldam"):
        with pytest.raises(OptionError, match="one process"):
            fit(name, processes, None)


def main(folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    processes = start_processes(count, accelerator="cpu")
    assert processes.count == count
    saved = Checkpoints.save
    if processes.rank:

        def save(*rest: Any) -> None:
            raise AssertionError("one process saves")

        Checkpoints.save = save  # type: ignore[method-assign]
    found = results(processes, folder / "checkpoints")
    Checkpoints.save = saved  # type: ignore[method-assign]
    refused(processes)
    save_file({**found, **norm_and_reading(processes)}, folder / f"rank-{processes.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
