"""Recorded runs for the tests of records and pages: small tasks whose examples can be looked at."""

from pathlib import Path

import torch
from torch import Tensor

from unrote.data import Split, Task
from unrote.data.embeddings import TextInputs
from unrote.record import Trained, record_run, train_methods
from unrote.training import Recipe

SCRIPT = '<script>window.hacked=1</script><img src=x onerror="window.hacked=2">'
"""What a sentence from a stranger may hold."""

GROUPS = ("film", f"product {SCRIPT}")
RECIPE = Recipe("adam", 3e-2, batch_size=32, epochs=30)
"""Quick enough to learn the shortcut before twins have flipped many labels."""

WORDS = ("late", "early", "broken", "fine", "slow", "quick", "box", "parcel", "paid", "open")


def sentences(n: int, seed: int) -> list[str]:
    """Sentences that differ; the fourth is a script, the fifth one unbroken word longer than a telephone is wide."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(WORDS), (n, 6), generator=random).tolist()
    made = [" ".join(WORDS[word] for word in words) + f" {k}" for k, words in enumerate(drawn)]
    made[3], made[4] = f"{SCRIPT} {made[3]}", "x" * 300
    return made


def shortcut(n: int, seed: int, n_features: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """x (n, d), y and an attribute that agrees with it 9 times in 10 and shows in a larger feature."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    attribute = torch.where(torch.arange(n) % 20 < 18, y, 1 - y)
    x = 0.5 * torch.randn(
        n, n_features, generator=random
    )  # larger, and untrained twins would be sure of themselves
    x[:, 0] += 1.5 * (2.0 * attribute - 1.0)
    x[:, 1] += y - 0.5
    return x, y, attribute


def text_task(n: int = 200, *, attributes: bool = True) -> Task:
    """Sentences with a shortcut."""

    def split(size: int, seed: int) -> Split:
        x, y, attribute = shortcut(size, seed)
        return Split(TextInputs(x, sentences(size, seed)), y, attribute if attributes else None)

    return Task(
        "sentences",
        split(n, 0),
        None,
        split(120, 1),
        class_names=("negative", f"positive {SCRIPT}"),
        attribute_names=GROUPS if attributes else (),
        shortcut=f"where a sentence is from {SCRIPT}" if attributes else "",
    )


def picture_task(n: int = 120) -> Task:
    """Pictures (3, 12, 20) whose first channel is the shortcut."""

    def split(size: int, seed: int) -> Split:
        x, y, attribute = shortcut(size, seed, 3 * 12 * 20)
        x = x.view(size, 3, 12, 20).sigmoid()
        x[:, 0] = attribute.view(-1, 1, 1).float() * 0.8
        return Split(x, y, attribute)

    return Task("pictures", split(n, 0), split(40, 2), split(60, 1))


def record(
    folder: Path, task: Task, methods: tuple[str, ...] = ("erm", "mat"), epochs: int = 30
) -> dict[str, Trained]:
    """Train and record methods on a task; gives what was trained."""
    trained = train_methods(task, methods, model="linear", recipe=RECIPE, epochs=epochs)
    record_run(task, trained, folder)
    return trained
