"""MAT's shift from XRM's twins, from five folds and from a head in closed form: the table of docs/memorization.md.

    python benchmarks/held_out.py run                  # an hour on a core; stops and goes on where it was
    python benchmarks/held_out.py run --only digits --seeds 0
    python benchmarks/held_out.py write                # docs/memorization.md from the records

A record is one source on one condition at one seed: one JSON line. Nothing is searched; MAT is trained at two
temperatures, because sources differ in how sure their logits are. ERM stands beside them.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from _records import Records

from unrote import Recipe, evaluate, fit, load_task
from unrote.data import Split, Task
from unrote.heldout import HeldOut
from unrote.metrics import group_report

RECORDS = Records("held_out", "memorization.md")

SOURCES = ("erm", "xrm", "kfold", "alo")
TEMPERATURES = (0.1, 1.0)
ROWS = 5000  # to train on, of a table
SIXTY = Recipe("adam", 1e-3, epochs=60, batch_size=128)


@dataclass(frozen=True)
class Condition:
    """One task with the model trained on it; no recipe takes the task's."""

    name: str
    task: str
    model: str
    recipe: Recipe | None = None
    options: dict[str, Any] = field(default_factory=dict)


CONDITIONS = (
    Condition("interpretable, s 0.5, linear", "interpretable", "linear"),
    Condition("digits, linear", "digits", "linear"),
    Condition("digits, MLP", "digits", "mlp"),
    Condition("fashion, linear", "fashion", "linear", SIXTY, {"n_train": 2000}),
    Condition("fashion, MLP", "fashion", "mlp", SIXTY, {"n_train": 2000}),
    Condition("reviews, linear", "reviews", "linear"),
    Condition("reviews, MLP", "reviews", "mlp", SIXTY),
    Condition("adult, MLP", "adult", "mlp"),
    Condition("compas, MLP", "compas", "mlp"),
    Condition("celeba-attributes, MLP", "celeba-attributes", "mlp"),
)


def make(condition: Condition, seed: int) -> Task:
    """The condition's task, with no more than `ROWS` examples to train on."""
    task = load_task(condition.task, seed=seed, **condition.options)
    first = torch.arange(min(len(task.train), ROWS))
    train = task.train
    return Task(
        task.name,
        Split(train.x[first], train.y[first], train.attribute[first]),
        task.validation,
        task.test,
        class_names=task.class_names,
        attribute_names=task.attribute_names,
    )


def execute(condition: Condition, source: str, seed: int) -> dict[str, Any]:
    """Train and score at every temperature; the source's logits are made once."""
    task = make(condition, seed)
    model, recipe = condition.model, condition.recipe
    row: dict[str, Any] = {"condition": condition.name, "source": source, "seed": seed}
    if source == "erm":
        start = time.process_time()
        fitted = fit(task, "erm", model=model, recipe=recipe, seed=seed)
        row["seconds"] = time.process_time() - start
        return {**row, "test": [accuracies(fitted, task)]}
    logits, results = None, []
    for temperature in TEMPERATURES:
        start = time.process_time()  # processor time, which other work on the machine does not stretch
        given = source if logits is None else logits
        fitted = fit(
            task, "mat", held_out=given, temperature=temperature, model=model, recipe=recipe, seed=seed
        )
        row.setdefault("seconds", time.process_time() - start)
        logits = fitted.artefacts["held_out"]
        results.append(accuracies(fitted, task))
    assert isinstance(logits, HeldOut)
    groups = group_report(task.train.y, logits.logits.argmax(1), task.group(task.train), task.group_names)
    return {**row, "held_out_worst": groups.worst_group.accuracy, "test": results}


def accuracies(fitted: Any, task: Task) -> tuple[float, float]:
    """Average and worst group on the test split."""
    report = evaluate(fitted, task)
    worst = report.worst_group.accuracy
    assert worst is not None
    return report.average, worst


def planned(seeds: list[int], pattern: str) -> Iterator[tuple[Condition, str, int]]:
    """What is to be recorded, and is not yet."""
    done = {(row["condition"], row["source"], row["seed"]) for row in RECORDS.read()}
    for seed in seeds:
        for condition in CONDITIONS:
            for source in SOURCES:
                if pattern in condition.name and (condition.name, source, seed) not in done:
                    yield condition, source, seed


def run(seeds: list[int], pattern: str) -> None:
    """Make the records that are missing."""
    for condition, source, seed in planned(seeds, pattern):
        row = execute(condition, source, seed)
        RECORDS.add(row)
        shown = ", ".join(f"{average:.3f} / {worst:.3f}" for average, worst in row["test"])
        print(f"{condition.name} seed {seed} {source}: {shown}, {row['seconds']:.1f} s", flush=True)


def table(records: list[dict[str, Any]]) -> str:
    """A line per condition and temperature: average and worst group by source, and what the source took."""
    sources = SOURCES[1:]
    head = ["task, model", "T", "ERM", *sources, "seconds", "held-out"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for condition in CONDITIONS:
        mine = [row for row in records if row["condition"] == condition.name]
        found = {source: [row for row in mine if row["source"] == source] for source in SOURCES}
        if not all(found.values()):
            continue
        seconds = " / ".join(f"{mean(found[s], 'seconds'):.1f}" for s in sources)
        held_out = " / ".join(f"{100 * mean(found[s], 'held_out_worst'):.0f}" for s in sources)
        erm, *others = ([cell(found[s], place) for place in range(len(found[s][0]["test"]))] for s in SOURCES)
        for place, temperature in enumerate(TEMPERATURES):
            cells = [f"{temperature:g}", erm[0] if place == 0 else "", *(cells[place] for cells in others)]
            name, last = (condition.name, [seconds, held_out]) if place == 0 else ("", ["", ""])
            lines.append(f"| {' | '.join([name, *cells, *last])} |")
    return "\n".join(lines)


def mean(rows: list[dict[str, Any]], name: str) -> float:
    """Of one number over seeds."""
    return statistics.fmean(row[name] for row in rows)


def cell(rows: list[dict[str, Any]], place: int) -> str:
    """Means over seeds in percent, and the range of the worst group."""
    average, worst = ([100 * row["test"][place][kind] for row in rows] for kind in (0, 1))
    return f"{statistics.fmean(average):.0f} / **{statistics.fmean(worst):.0f}** ({min(worst):.0f}-{max(worst):.0f})"


def main() -> None:
    """Run or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["run", "write"], default="run")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", default="", help="conditions whose name has this in it")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "run":
        run(options.seeds, options.only)
    else:
        RECORDS.show(table(RECORDS.read()))


if __name__ == "__main__":
    main()
