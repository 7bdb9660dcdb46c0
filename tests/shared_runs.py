"""Methods trained by several processes: `python shared_runs.py FOLDER COUNT [shard]`, by models/test_processes.py.

Every process leaves what it has at the end in FOLDER/shared as rank-R.safetensors, a tensor per method and thing;
with "shard" then in FOLDER/sharded too, of parameters in shards. One start for both: it takes longer than they do.
"""

import copy
import dataclasses
import sys
from collections.abc import Callable, Sequence
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
from unrote.heldout import XRMResult, default_twins
from unrote.methods import METHODS, Fitted, Method, Session
from unrote.models import Compute, ModuleStack, Processes, Stack, start_processes
from unrote.supervision import Supervision
from unrote.training import Batch, EarlyStopping, Recipe, Supervised, train

TASK = planted_task(50, seed=1)
# the last of an epoch's minibatches has one example, so that a process has none
RECIPE = Recipe("adam", 0.02, batch_size=7, epochs=4, clip_norm=1.0)
METHOD_NAMES = ("mat", "mat on a trunk", "jtt", "lff", "groupdro", "mixup", "irm", "cnc", "crt")
WHOLE_METHOD_NAMES = ("l2rw", "ldam")  # which use parameters beside the network's own pass


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


def method(name: str) -> Method:
    """A method by its name here; MAT by either source of held-out logits."""
    if name.startswith("mat"):
        return METHODS["mat"](held_out="trunk" if "trunk" in name else "xrm")  # type: ignore[call-arg]
    return METHODS[name]()


def fit(name: str, processes: Processes | None, folder: Path | None) -> Fitted:
    splits = {key: doubled(split) for key, split in TASK.splits.items()}
    task = Task("planted", **splits)  # type: ignore[arg-type]
    session = Session(
        task.for_regime(method(name).needs),
        lambda seeds: ModuleStack(network, 2, seeds, processes=processes),
        RECIPE,
        seed=2,
        checkpoint_folder=folder,
        checkpoint_every=5,
    )
    return method(name).fit(session)


def results(processes: Processes | None, folder: Path | None = None) -> dict[str, Tensor]:
    """Held-out logits, flips, what methods keep per example or group, logits, parameters and metrics."""
    found: dict[str, Tensor] = {}
    whole = processes is None or not processes.shard
    for name in (*METHOD_NAMES, *(WHOLE_METHOD_NAMES if whole else ())):
        # a head on features is trained, and saved, by each process for itself
        fitted = fit(name, processes, None if folder is None or name == "crt" else folder / name)
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
        if "trunk" in fitted.artefacts:
            found[f"{name}/held-out"] = fitted.artefacts["held_out"].logits
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


class Decayed(Supervised):
    """With a penalty on parameters, which every process has whole."""

    through_logits = False

    def loss(self, stack: Stack, batch: Batch) -> Tensor:
        return super().loss(stack, batch) + sum(p.square().sum() for p in stack.parameters())


def refused(processes: Processes) -> None:
    """A gradient that would be counted once for each process is refused before it trains."""
    stack = ModuleStack(network, 2, processes=processes)
    with pytest.raises(OptionError, match="one process"):
        train(stack, torch.ones(2, 8).double(), Decayed(Supervision(torch.tensor([0, 1]))), RECIPE)


class Layers(nn.Module):
    """Blocks that are sharded one by one, and a norm of one kind or another."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.first = norm, nn.Linear(8, 5)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(2))
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.norm(x.view(-1, 2, 4)).flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def layers(norm: Callable[[], nn.Module], processes: Processes | None) -> dict[str, Tensor]:
    """Two members, of which the second trains on five examples alone, each with its best evaluation's parameters."""
    train_split, validation = doubled(TASK.train), doubled(TASK.validation)
    assert train_split is not None
    assert validation is not None
    weight = torch.ones(2, 50)
    weight[1, 5:] = 0

    def build(seeds: Sequence[int]) -> ModuleStack:
        return ModuleStack(lambda: Layers(norm()).double(), 2, seeds, processes=processes)

    def evaluate(stack: Stack) -> dict[str, Tensor]:
        return {"right": (stack.predict(validation.x).argmax(-1) == validation.y).double().mean(1)}

    result = train(
        build((0, 1)),
        train_split.x,
        Supervised(Supervision(train_split.y, weight=weight)),
        Recipe("sgd", 0.3, batch_size=3, epochs=3, weight_decay=0.01, clip_norm=0.5),
        evaluate=evaluate,
        evaluate_every=5,
        early_stopping=EarlyStopping("right"),
    )
    found = dict(result.stack.state_dict())
    chosen = result.stack.select([1, 0])
    found["chosen"], found["head"] = chosen.predict(validation.x), chosen.head(1)[0]
    chosen.set_head(torch.zeros(2, 5), torch.tensor([0.0, 1.0]), 1)
    found["with another head"] = chosen.predict(validation.x)
    found["left alone"] = result.stack.predict(validation.x)
    again = build((3, 4))
    again.load_state_dict(result.stack.snapshot())
    found["again"] = again.predict(validation.x)
    return found


def all_layers(processes: Processes | None) -> dict[str, Tensor]:
    """With layer norm, which sees one example at a time, and with batch norm, which sees those of its process."""
    norms = {
        "layers": lambda: nn.LayerNorm(4),
        "batch norm": lambda: nn.BatchNorm1d(2),
    }
    return {
        f"{name}/{key}": value
        for name, norm in norms.items()
        for key, value in layers(norm, processes).items()
    }


def refused_in_shards(processes: Processes) -> None:
    """What cannot be sharded, or not be had, says so."""
    for name in WHOLE_METHOD_NAMES:
        with pytest.raises(OptionError, match="sharded"):
            fit(name, processes, None)
    for compute in (Compute(part=3), Compute(compile="eager")):
        with pytest.raises(OptionError, match="sharded"):
            ModuleStack(network, 2, compute=compute, processes=processes)
    stack = ModuleStack(lambda: nn.Linear(3, 2, bias=False), 2, processes=processes)
    with pytest.raises(OptionError, match="sharded"):
        stack.live_head()
    with pytest.raises(OptionError, match="cannot be copied"):
        copy.deepcopy(stack)
    with pytest.raises(OptionError, match="without bias"):
        stack.set_head(torch.zeros(2, 3), torch.zeros(2))

    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.scale = nn.Parameter(torch.tensor(1.0))

    with pytest.raises(OptionError, match="Scaled cannot be sharded"):
        ModuleStack(Scaled, 2, processes=processes)


def slices(processes: Processes) -> None:
    """A process keeps a slice of every parameter, of its gradient and of what the optimiser keeps."""
    stack = ModuleStack(lambda: Layers(nn.LayerNorm(4)).double(), 2, processes=processes)
    optimizer = stack.optimizer("adam", [0.1], [0.0], 0.0)
    stack(torch.ones(4, 8).double()).square().sum().backward()
    optimizer.step()
    for p in stack.parameters():
        kept = optimizer.state[p]
        for value in (p, p.grad, kept["exp_avg"], kept["exp_avg_sq"]):
            assert 2 * len(value.to_local()) in (len(p) - 1, len(p), len(p) + 1)


def decided_together(processes: Processes) -> None:
    """Heads that one process finds good and the other bad are compared with networks by both, or they would wait."""
    y = torch.arange(10) % 2

    def twins(right: bool) -> XRMResult:
        logits = 9.0 * nn.functional.one_hot(y if right else 1 - y, 2).unsqueeze(0)
        both = torch.ones(1, 10, dtype=torch.long)
        return XRMResult(logits, both > 0, y.unsqueeze(0), y, both, None, None)

    heads, networks = twins(processes.rank == 0), twins(True)
    assert default_twins(lambda: heads, lambda: networks, processes) is networks


def everything(processes: Processes, folder: Path) -> dict[str, Tensor]:
    """All that is compared, with checkpoints that the first process alone writes."""
    with pytest.MonkeyPatch.context() as patch:
        if processes.rank:

            def save(*rest: Any) -> None:
                raise AssertionError("one process saves")

            patch.setattr(Checkpoints, "save", save)
        found = results(processes, folder / "checkpoints")
    refused(processes)
    decided_together(processes)
    found |= all_layers(processes)
    if processes.shard:
        refused_in_shards(processes)
        slices(processes)
    else:
        found |= norm_and_reading(processes)
    return found


def main(folder: Path, count: int, shard: bool) -> None:
    torch.set_num_threads(1)
    processes = start_processes(count, accelerator="cpu", shard=shard)
    assert (processes.count, processes.shard) == (count, shard)
    for name, each in kinds(processes).items():
        (folder / name).mkdir(exist_ok=True)
        found = everything(each, folder / name)
        save_file(found, folder / name / f"rank-{processes.rank}.safetensors")


def kinds(processes: Processes) -> dict[str, Processes]:
    """Those that have all parameters, and where shards were asked for, those that have slices."""
    whole = {"shared": dataclasses.replace(processes, shard=False)}
    return {**whole, "sharded": processes} if processes.shard else whole


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["shard"])
