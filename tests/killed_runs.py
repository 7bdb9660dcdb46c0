"""Training runs that are killed: `python killed_runs.py SCENARIO FOLDER SEED KILLS` (test_checkpoint.py runs it).

Each run is a forked process. It is killed with SIGKILL at random moments, and inside the writing of a
checkpoint, and started again on the same folder until it ends. Its result, and that of a run never killed, are
left in FOLDER as broken.safetensors and unbroken.safetensors, and the number of kills is printed.
"""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unrote.checkpoint import Checkpoints
from unrote.methods import METHODS, Session
from unrote.models import ModuleStack, StackedLinear
from unrote.supervision import Supervision
from unrote.training import EarlyStopping, Recipe, Supervised, train

N, SIDE, CLASSES = 40, 8, 3

Run = Callable[[Path | None], dict[str, Tensor]]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (N,), generator=generator)
    return torch.randn(N, 1, SIDE, SIDE, generator=generator) + y.view(-1, 1, 1, 1), y


def every_step(folder: Path | None, every: int = 3) -> Checkpoints | None:
    return None if folder is None else Checkpoints(folder, {"run": 1}, every=every)


def erm(folder: Path | None) -> dict[str, Tensor]:
    return method("erm", folder, Recipe("sgd", 0.05, 0.01, batch_size=7, epochs=15))


def xrm_mat(folder: Path | None) -> dict[str, Tensor]:
    """Twins, then the model that their logits shift: two stages, each resumed by itself."""
    return method("mat", folder, Recipe("adam", 0.02, batch_size=7, epochs=8))


def method(name: str, folder: Path | None, recipe: Recipe) -> dict[str, Tensor]:
    from unrote.data import Split, Task

    session = Session(
        task=Task("killed", train=Split(*data())),
        build=lambda seeds: StackedLinear(SIDE * SIDE, CLASSES, seeds),
        recipe=recipe,
        checkpoint_folder=folder,
        checkpoint_every=3,
    )
    fitted = METHODS[name]().fit(session)
    held_out = {"held_out": fitted.artefacts["held_out"].logits} if "held_out" in fitted.artefacts else {}
    return {**fitted.stack.state_dict(), **held_out}


def cnn(folder: Path | None) -> dict[str, Tensor]:
    """Two networks with dropout and batch norm under Adam."""

    def factory() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(64, CLASSES),
        )

    x, y = data()
    stack = ModuleStack(factory, CLASSES, (0, 1))
    recipe = Recipe("adam", 0.02, batch_size=7, epochs=12)
    train(stack, x, Supervised(Supervision(y)), recipe, seed=3, checkpoints=every_step(folder))
    return stack.state_dict()


def early_stopping(folder: Path | None) -> dict[str, Tensor]:
    """Members that stop at different steps, by a score that goes up and down."""
    x, y = data()
    stack = StackedLinear(SIDE * SIDE, CLASSES, (0, 1, 2))

    def score(stack: StackedLinear) -> dict[str, Tensor]:
        return {"score": (stack.weight[:, 0, :8].sum(1) * 1e4).sin().detach()}

    result = train(
        stack,
        x,
        Supervised(Supervision(y)),
        Recipe("sgd", (0.1, 0.05, 0.02), batch_size=7, epochs=15),
        evaluate=score,  # type: ignore[arg-type]
        evaluate_every=2,
        early_stopping=EarlyStopping("score", patience=12),
        checkpoints=every_step(folder),
    )
    history = torch.tensor([record["loss"] for record in result.history])
    return {**stack.state_dict(), "best_step": result.best_step, "history": history}


SCENARIOS: dict[str, Run] = {"erm": erm, "xrm_mat": xrm_mat, "cnn": cnn, "early_stopping": early_stopping}


def start(run: Run, folder: Path | None, result: Path, die_at_rename: int | None = None) -> int:
    """Fork a process that runs; `die_at_rename` kills it just before it renames its k-th file."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        refuse_to_repeat(folder)
        if die_at_rename is not None:
            die_at(die_at_rename)
        save_file({name: value.contiguous() for name, value in run(folder).items()}, result)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def refuse_to_repeat(folder: Path | None) -> None:
    """Make it an error to save a step that was saved before: going on is not starting again."""
    files = [] if folder is None else folder.rglob("step-*.json")
    done = {(path.parent, int(path.stem[5:])) for path in files}
    save = Checkpoints.save

    def checked(self: Checkpoints, step: int, *rest: Any) -> None:
        assert all(step > other for stage, other in done if stage == self.folder), f"step {step} again"
        save(self, step, *rest)

    Checkpoints.save = checked  # type: ignore[method-assign]


def die_at(rename: int) -> None:
    """Kill this process just before it renames its k-th file."""
    renames, original = 0, Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == rename:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, target)

    Path.replace = replace  # type: ignore[assignment, method-assign]


def wait(child: int) -> bool:
    """Whether the process was killed.

    Raises:
        SystemExit: if it failed by itself.
    """
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status:
        raise SystemExit(f"the run failed with status {status}")
    return False


def main(scenario: str, folder: Path, seed: int, wanted: int) -> None:
    """Make both results."""
    torch.set_num_threads(1)
    run, chance = SCENARIOS[scenario], random.Random(seed)
    saved, broken = folder / "checkpoints", folder / "broken.safetensors"
    began = time.monotonic()
    save_file(run(None), folder / "unbroken.safetensors")
    length, kills = time.monotonic() - began, 0
    # at the tensors of the first checkpoint, at its record, and at later ones
    for low, high in ((1, 1), (2, 2), (3, 6), (12, 18), (8, 14)):
        kills += wait(start(run, saved, broken, die_at_rename=chance.randint(low, high)))
    finished = False
    while kills < wanted:
        if finished:  # before it could be killed: once more, from the beginning
            shutil.rmtree(saved)
        child = start(run, saved, broken)
        time.sleep(chance.uniform(0.0, 0.2 * length))
        os.kill(child, signal.SIGKILL)
        finished = not wait(child)
        kills += not finished
    assert finished or not wait(start(run, saved, broken))
    print(kills)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
