"""Every method on every built-in task, with its defaults: the table of docs/methods.md.

    python benchmarks/methods.py run                  # hours on two cores; stops and goes on where it was
    python benchmarks/methods.py run --methods mat erm --tasks digits
    python benchmarks/methods.py write                # docs/methods.md from the records

A record is one run: one JSON line in the file of records. Nothing is searched: each method has its default
hyper-parameters and the task's recipe, so the table says what a method does out of the box.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from _records import Records
from scipy import stats

from unrote import Recipe, evaluate, fit, load_task
from unrote.errors import UnroteError
from unrote.methods import METHODS
from unrote.presets import PAPER_SETTINGS

RECORDS = Records("methods", "methods.md")

REVIEWS = Recipe("adam", 1e-2, epochs=60, batch_size=128)


@dataclass(frozen=True)
class Column:
    """One task with the model trained on it."""

    name: str
    task: str
    model: str
    seeds: int
    recipe: Recipe | None = None


COLUMNS = (
    Column("digits", "digits", "mlp", 10),
    Column("fashion", "fashion", "cnn", 3),
    Column("reviews, linear", "reviews", "linear", 5, REVIEWS),
    Column("reviews, MLP, 10 epochs", "reviews", "mlp", 5, Recipe("adam", 1e-3, epochs=10, batch_size=128)),
    Column("reviews, MLP, 60 epochs", "reviews", "mlp", 5, Recipe("adam", 1e-3, epochs=60, batch_size=128)),
)

# methods that use groups, on groups that nobody annotated
COMBINATIONS = (("rwg", "xrm"), ("subg", "xrm"), ("groupdro", "xrm"), ("dfr", "xrm"), ("groupdro", "eiil"))


@dataclass(frozen=True)
class Run:
    """One cell of the table at one seed."""

    method: str
    groups: str
    column: str
    seed: int


def planned(methods: list[str], columns: list[str]) -> Iterator[Run]:
    """All runs of the table, ERM first, because times are relative to it; cheap columns first."""
    names = METHODS.names()
    pairs = [(name, "true") for name in sorted(names, key=lambda name: name != "erm")]
    pairs += [pair for pair in COMBINATIONS if pair[0] in names]
    for column in COLUMNS:
        for method, groups in pairs:
            if column.name in columns and (not methods or method in methods):
                yield from (Run(method, groups, column.name, seed) for seed in range(column.seeds))


def execute(run: Run) -> dict[str, Any]:
    """Train and score; a failure is a record too."""
    column = next(column for column in COLUMNS if column.name == run.column)
    task = load_task(column.task, seed=run.seed)
    start = time.process_time()  # processor time, which other work on the machine does not stretch
    try:
        fitted = fit(
            task,
            run.method,
            groups=run.groups,
            model=column.model,
            recipe=column.recipe,
            seed=run.seed,
            **PAPER_SETTINGS.get(run.method, {}),
        )
    except UnroteError as error:
        return {**asdict(run), "error": f"{type(error).__name__}: {error}"}
    seconds = time.process_time() - start
    report = evaluate(fitted, task)
    return {
        **asdict(run),
        "average": report.average,
        "worst_group": report.worst_group.accuracy,
        "groups_accuracy": [group.accuracy for group in report.groups],
        "seconds": seconds,
    }


def read_records() -> dict[Run, dict[str, Any]]:
    """The records so far, by run."""
    return {Run(row["method"], row["groups"], row["column"], row["seed"]): row for row in RECORDS.read()}


def run_all(methods: list[str], columns: list[str]) -> None:
    """Make the records that are missing."""
    done = read_records()
    todo = [run for run in planned(methods, columns) if run not in done]
    for number, run in enumerate(todo, 1):
        record = execute(run)
        RECORDS.add(record)
        shown = record.get("error") or f"{record['average']:.3f} / {record['worst_group']:.3f}"
        print(
            f"{number}/{len(todo)} {run.method} ({run.groups}) {run.column} seed {run.seed}: {shown}",
            flush=True,
        )


def cell(rows: list[dict[str, Any]], name: str) -> str:
    """Mean and half-width of its 95% t interval over seeds, in percent."""
    values = [100 * row[name] for row in rows]
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.0f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.0f} ± {half:.0f}"


def table(records: dict[Run, dict[str, Any]]) -> str:
    """The table in Markdown, best mean worst group first within each kind of labels."""
    erm = {(run.column, run.seed): row["seconds"] for run, row in records.items() if run.method == "erm"}
    lines = []
    for method, groups in {(run.method, run.groups): None for run in records}:
        cells, worst, ratios = [], [], []
        for column in COLUMNS:
            chosen = {
                r: row
                for r, row in records.items()
                if (r.method, r.groups, r.column) == (method, groups, column.name)
            }
            rows = [row for row in chosen.values() if "error" not in row]
            if not rows:
                cells.append("failed" if chosen else "")
                continue
            cells.append(f"{cell(rows, 'average')} / **{cell(rows, 'worst_group')}**")
            worst.append(statistics.fmean(row["worst_group"] for row in rows))
            ratios += [
                row["seconds"] / erm[r.column, r.seed] for r, row in chosen.items() if "error" not in row
            ]
        labels = METHODS[method].needs if groups == "true" else "none"
        shown = f"`{method}`" if groups == "true" else f"{groups} + `{method}`"
        cost = f"{statistics.median(ratios):.1f}" if ratios else ""
        key = ({"none": 0, "val": 1, "train": 2}[labels], -statistics.fmean(worst) if worst else 0.0)
        lines.append((key, f"| {shown} | {labels} | {' | '.join(cells)} | {cost} |"))
    head = ["method", "group labels", *(column.name for column in COLUMNS), "CPU time / ERM"]
    return "\n".join(
        [
            f"| {' | '.join(head)} |",
            "|---|---|" + "---|" * (len(COLUMNS) + 1),
            *(line for _, line in sorted(lines)),
        ]
    )


def main() -> None:
    """Run or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["run", "write"], default="run")
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--tasks", nargs="*", default=[column.name for column in COLUMNS])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "run":
        run_all(options.methods, options.tasks)
    else:
        RECORDS.show(table(read_records()))


if __name__ == "__main__":
    main()
