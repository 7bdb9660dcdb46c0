"""What several_machines.py starts on each machine: twins and MAT for a small network.

    python _several_machines_job.py FOLDER [--alone]

Checkpoints go to FOLDER/checkpoints, what each process has at its end (held-out logits, flipped labels, parameters,
losses, test logits, accuracy of the worst group) to FOLDER/rank-R.safetensors.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from unrote import Recipe, Split, Task, evaluate, load_task
from unrote.methods import Session
from unrote.methods.mat import MAT
from unrote.models import ModuleStack, start_processes


def network() -> nn.Module:
    """In double precision, so that sums in another order stay within float rounding at the end too."""
    layers = (nn.Flatten(), nn.Linear(128, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 2))
    return nn.Sequential(*layers).double()


def examples() -> Task:
    """Handwritten digits with a planted background, an eighth of them in training."""
    task = load_task("digits")

    def some(split: Split, step: int) -> Split:
        index = torch.arange(0, len(split), step)
        attribute = split.attribute[index] if split.has_attribute else None
        return Split(split.x[index].double(), split.y[index], attribute)

    return Task("digits", train=some(task.train, 8), test=some(task.splits["test"], 2))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--alone", action="store_true", help="one process, without the others' machinery")
    given = parser.parse_args()
    torch.set_num_threads(1)
    processes = None if given.alone else start_processes(accelerator="cpu")
    task = examples()
    session = Session(
        task.for_regime("none"),
        lambda seeds: ModuleStack(network, 2, seeds, processes=processes),
        # no multiple of the number of processes: their shares differ
        Recipe("adam", 5e-3, batch_size=15, steps=600, clip_norm=5.0),
        checkpoint_folder=given.folder / "checkpoints",
        checkpoint_every=20,
    )
    fitted = MAT(temperature=0.1, held_out="xrm").fit(session)
    twins = fitted.artefacts["xrm"]
    accuracy = evaluate(fitted, task).worst_group.accuracy
    found = {
        "held-out logits": twins.logits,
        "flipped labels": twins.labels,
        "test logits": fitted.logits(task.splits["test"].x),
        "losses": torch.tensor([row["loss"] for row in fitted.training.history]),
        "worst group": torch.tensor(accuracy),
        **{f"parameter {name}": value for name, value in fitted.stack.state_dict().items()},
    }
    rank = 0 if processes is None else processes.rank
    save_file(
        {name: value.contiguous() for name, value in found.items()}, given.folder / f"rank-{rank}.safetensors"
    )


if __name__ == "__main__":
    main()
