"""How well closed-form scores find wrong labels where there is no shortcut: a table of docs/memorization.md.

    python benchmarks/label_noise.py run       # two minutes on a core
    python benchmarks/label_noise.py write     # docs/memorization.md from the records

5% of the training labels are flipped. Beside the scores stands how well the same held-out logits tell the classes
themselves, at the labels before they were flipped: where classes are alike in size and error, a flipped label is told
from a correct one just as well as an example of one class from one of the other.
"""

import argparse
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _records import Records
from sklearn.kernel_approximation import RBFSampler

from unrote import Recipe, Split, Task, fit, load_task
from unrote.memorization import detection_auc, leave_one_out

RECORDS = Records("label_noise", "memorization.md")
RATE = 0.05
COLUMNS = ("self_influence", "held-out p", "leave_one_out", "classes")


@dataclass(frozen=True)
class Condition:
    """A head on features of a task: a name, the task, its recipe, random Fourier features or none."""

    name: str
    task: str
    recipe: Recipe
    fourier: int = 0


CONDITIONS = (
    Condition("digits, pixels", "digits", Recipe("adam", 1e-3, epochs=60, batch_size=128)),
    Condition("digits, 1,000 random Fourier features", "digits", Recipe("adam", 1e-3, epochs=10), 1000),
    Condition("reviews, MiniLM", "reviews", Recipe("adam", 1e-2, epochs=60, batch_size=128)),
    Condition("reviews, 1,000 random Fourier features", "reviews", Recipe("adam", 1e-3, epochs=10), 1000),
)
AUTO = '`damping="auto"`'
WAYS = {"as trained": None, AUTO: "auto"}


def features(condition: Condition, task: Task, seed: int) -> torch.Tensor:
    """Those of the training examples."""
    x = task.train.x[torch.arange(len(task.train))].flatten(1)
    if not condition.fourier:
        return x
    sampler = RBFSampler(gamma="scale", n_components=condition.fourier, random_state=seed)
    return torch.from_numpy(sampler.fit_transform(x.numpy())).float()


def execute(condition: Condition, seed: int) -> dict[str, Any]:
    """Flip labels, train a linear head on them, and look for them."""
    task = load_task(condition.task, seed=seed, alignment=0.5)
    x, truth = features(condition, task, seed), task.train.y
    random = np.random.default_rng(seed)
    wrong = np.zeros(len(x), bool)
    wrong[random.choice(len(x), int(RATE * len(x)), replace=False)] = True
    y = torch.where(torch.from_numpy(wrong), 1 - truth, truth)
    erm = fit(Task("noisy", Split(x, y)), "erm", model="linear", recipe=condition.recipe, seed=seed)
    row: dict[str, Any] = {"condition": condition.name, "seed": seed}
    # nobody would train a head on random features so briefly, but to have it fitted again
    for name in [AUTO] if condition.fourier else WAYS:
        score = leave_one_out(erm, x, y, damping=WAYS[name])
        details, logits = score.details, score.details["held_out_logits"]
        found = [details["self_influence"], -details["p_held_out"], score.values]
        row[name] = [detection_auc(values, wrong) for values in found]
        row[name].append(detection_auc(logits[:, 1] - logits[:, 0], truth == 1))
    return row


def run(seeds: list[int]) -> None:
    """Make the records that are missing."""
    done = {(row["condition"], row["seed"]) for row in RECORDS.read()}
    for seed in seeds:
        for condition in CONDITIONS:
            if (condition.name, seed) in done:
                continue
            row = execute(condition, seed)
            RECORDS.add(row)
            print(row, flush=True)


def table(records: list[dict[str, Any]]) -> str:
    """A line per condition and way of fitting the head; means over seeds."""
    head = ["head on", "penalty", *COLUMNS]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for condition in CONDITIONS:
        rows = [row for row in records if row["condition"] == condition.name]
        for way in WAYS:
            found = [row[way] for row in rows if way in row]
            cells = [
                f"{statistics.fmean(values):.2f}".removeprefix("0") for values in zip(*found, strict=True)
            ]
            if found:
                lines.append(f"| {' | '.join([condition.name, way, *cells])} |")
    return "\n".join(lines)


def main() -> None:
    """Run or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["run", "write"], default="run")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "run":
        run(options.seeds)
    else:
        RECORDS.show(table(RECORDS.read()))


if __name__ == "__main__":
    main()
