"""Is there a shortcut, and how strongly to train against it, without group labels: the evidence of docs/automatic.md.

    python benchmarks/automatic.py run --seeds 1 2       # some 10 seconds a condition; goes on where it was
    python benchmarks/automatic.py write                 # docs/automatic.md from the records

A record is one condition at one seed, one JSON line. Conditions are small (1,500 photographs of 14 by 14 pixels, a
hidden layer of 64), so that all settings train as one stack: what `temperature="auto"` measures and chooses, and what
every setting reaches on the test set, so that an oracle and a validation set with group labels can choose too.
The thresholds were set on seeds 0 and 1; the page shows other seeds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unrote import Recipe, load_task
from unrote.automatic import ERM, LEVEL, choose, cross_fit, measure_agreement, settings, weigh
from unrote.data import Split, Task
from unrote.heldout import xrm
from unrote.metrics import group_report
from unrote.models import Stack, StackedLinear, StackedMLP
from unrote.seeding import derive_seed, generator
from unrote.shift import logit_shift
from unrote.supervision import Supervision
from unrote.training import Supervised, train

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "results" / "automatic.jsonl"
PAGE = ROOT / "docs" / "automatic.md"

TRIED = settings()
GRID = [*TRIED, (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]
"""What the oracle chooses from; the first ones are what `temperature="auto"` does."""

GARMENTS = {2: "pullover,coat", 3: "pullover,coat,shirt", 4: "t-shirt,pullover,coat,shirt"}
RECIPES = {
    "interpretable": Recipe("sgd", 1e-2, momentum=0.0, epochs=1000, batch_size=None),
    "reviews": Recipe("adam", 1e-2, epochs=60, batch_size=128),
    "fashion": Recipe("adam", 1e-3, epochs=40, batch_size=128),
}
DEFAULT = Recipe("adam", 1e-3, epochs=60, batch_size=128)
ROWS = 2500  # of a table


@dataclass(frozen=True)
class Condition:
    """A task, what is planted in it, and whether that is a shortcut which does harm (None: nobody knows)."""

    name: str
    task: str
    options: dict[str, Any]
    shortcut: bool | None
    noise: float = 0.0
    fresh: bool = False


def conditions() -> Iterator[Condition]:
    """All of them, those without a shortcut and with one in turns."""
    for s in (0.0, 0.25, 0.5, 1.0):
        yield Condition(f"interpretable, s {s:g}", "interpretable", {"sigma": s}, s > 0)
    yield Condition(
        "interpretable, s 0.5, 50%", "interpretable", {"sigma": 0.5, "alignment": 0.5}, shortcut=False
    )
    for negative, positive in (("film", "product"), ("tweets", "film"), ("editorial", "product")):
        domains = {"negative_domain": negative, "positive_domain": positive}
        for share in (0.5, 0.8, 0.95):
            options = {**domains, "alignment": share}
            yield Condition(f"reviews, {negative}/{positive} {share:.0%}", "reviews", options, share > 0.5)
    for share in (0.5, 0.8, 0.95):
        yield Condition(f"digits {share:.0%}", "digits", {"alignment": share}, share > 0.5)
    for n in GARMENTS:
        for share in (1 / n, 0.7, 0.8, 0.9, 0.95, 0.99):
            options = {"classes": GARMENTS[n], "alignment": share}
            yield Condition(f"fashion, {n} classes {share:.0%}", "fashion", options, share > 1 / n)
    yield from _noisy()
    for table in ("adult", "compas"):
        yield Condition(table, table, {}, None)
    yield from _fresh()


def _noisy() -> Iterator[Condition]:
    two, four = GARMENTS[2], GARMENTS[4]
    for rate in (0.05, 0.1, 0.2):
        options = {"classes": two, "alignment": 0.5}
        yield Condition(f"fashion, 2 classes 50%, noise {rate:.0%}", "fashion", options, False, rate)
    options = {"classes": four, "alignment": 0.25}
    yield Condition("fashion, 4 classes 25%, noise 10%", "fashion", options, False, 0.1)
    for rate in (0.1, 0.2):
        yield Condition(f"digits 50%, noise {rate:.0%}", "digits", {"alignment": 0.5}, False, rate)
        yield Condition(f"reviews 50%, noise {rate:.0%}", "reviews", {"alignment": 0.5}, False, rate)


def _fresh() -> Iterator[Condition]:
    """Conditions that played little part in setting thresholds: only some of them were seen, once."""
    easy = "sandal,sneaker"
    for share in (0.5, 0.9):
        planted = share > 0.5
        options = {"classes": GARMENTS[2], "alignment": share, "plant": "patch"}
        yield Condition(f"fashion, patch {share:.0%}", "fashion", options, planted, fresh=True)
        options = {"classes": easy, "alignment": share}
        yield Condition(f"fashion, {easy} {share:.0%}", "fashion", options, planted, fresh=True)
        options = {"negative_domain": "tweets", "positive_domain": "product", "alignment": share}
        yield Condition(f"reviews, tweets/product {share:.0%}", "reviews", options, planted, fresh=True)
    yield Condition(
        f"fashion, {easy} 50%, noise 15%",
        "fashion",
        {"classes": easy, "alignment": 0.5},
        shortcut=False,
        noise=0.15,
        fresh=True,
    )
    yield Condition("digits 90%", "digits", {"alignment": 0.9}, shortcut=True, fresh=True)
    yield Condition(
        "digits 90%, noise 10%", "digits", {"alignment": 0.9}, shortcut=True, noise=0.1, fresh=True
    )
    yield Condition("digits 50%, noise 5%", "digits", {"alignment": 0.5}, False, 0.05, fresh=True)


def make(condition: Condition, seed: int) -> Task:
    """The condition's task, small enough for seconds."""
    extra = {"n_train": 1500, "n_validation": 500} if condition.task == "fashion" else {}
    task = load_task(condition.task, seed=seed, **condition.options, **extra)

    def small(split: Split | None, name: str) -> Split:
        assert split is not None
        rows = torch.arange(min(len(split), ROWS) if condition.task in ("adult", "compas") else len(split))
        x, y = split.x[rows], split.y[rows]
        if condition.task == "fashion":
            x = F.avg_pool2d(x, 2).flatten(1).contiguous()
        if condition.noise and name != "test":
            random = generator(seed, "noise", name)
            wrong = torch.rand(len(y), generator=random) < condition.noise
            other = (y + torch.randint(1, task.n_classes, (len(y),), generator=random)) % task.n_classes
            y = torch.where(wrong, other, y)
        return Split(x, y, split.attribute[rows])

    parts = {
        name: small(split, name)
        for name, split in (("train", task.train), ("validation", task.validation), ("test", task.test))
    }
    return Task(condition.task, **parts, class_names=task.class_names, attribute_names=task.attribute_names)


def builder(condition: Condition, task: Task) -> Callable[[Any], Stack]:
    """Linear heads for vectors of features, else a perceptron."""
    d, n_classes = int(np.prod(task.train.x.shape)), task.n_classes
    if condition.task in ("interpretable", "reviews"):
        return lambda seeds: StackedLinear(d, n_classes, seeds)
    return lambda seeds: StackedMLP(d, n_classes, seeds, hidden=64)


def execute(condition: Condition, seed: int) -> dict[str, Any]:
    """Measure, choose, and score every setting."""
    start = time.process_time()
    task = make(condition, seed)
    build, recipe = builder(condition, task), RECIPES.get(condition.task, DEFAULT)
    x, y = task.train.x, task.train.y
    agreed, _ = measure_agreement(x, y, build, recipe, task.n_classes, seed=seed)
    twins = xrm(x, y, build, recipe, n_classes=task.n_classes, seeds=[seed])
    held_out = twins.logits[0]
    cross_fitted = cross_fit(x, y, build, recipe, held_out, TRIED, seed=seed)
    evidence = weigh(held_out, cross_fitted, y, agreed, TRIED)
    chosen = choose(held_out, cross_fitted, y, evidence, TRIED)
    shift = torch.stack([strength * logit_shift(held_out, y, t) for t, strength in GRID])
    stack = build([derive_seed(seed, "model", 0)] * len(GRID))
    train(stack, x, Supervised(Supervision(y, shift=shift)), recipe, seed=derive_seed(seed, "order"))
    assert task.validation is not None
    assert task.test is not None
    return {
        "condition": condition.name,
        "seed": seed,
        "shortcut": condition.shortcut,
        "fresh": condition.fresh,
        "evidence": evidence.to_dict(),
        "chosen": GRID.index((chosen.temperature, chosen.strength)),
        "grid": GRID,
        "cross_fitted": np.nan_to_num(chosen.accuracy, nan=-1).round(4).tolist(),
        "validation": [group_accuracy(task, task.validation, z)[1] for z in stack.predict(task.validation.x)],
        "test": [group_accuracy(task, task.test, z) for z in stack.predict(task.test.x)],
        "seconds": round(time.process_time() - start, 1),
    }


def group_accuracy(task: Task, split: Split, logits: Tensor) -> tuple[float, float, list[float]]:
    """Average, worst group, and every group that has examples."""
    report = group_report(split.y, logits.argmax(-1), task.group(split), task.group_names)
    accuracies = [one.accuracy for one in report.groups if one.n and one.accuracy is not None]
    return report.average, min(accuracies), accuracies


def read_records() -> list[dict[str, Any]]:
    """The records so far."""
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def run(seeds: list[int], pattern: str) -> None:
    """Make the records that are missing."""
    RECORDS.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["condition"], row["seed"]) for row in read_records()}
    for seed in seeds:
        for condition in conditions():
            if (condition.name, seed) in done or pattern not in condition.name:
                continue
            row = execute(condition, seed)
            with RECORDS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            agreed, worst = row["evidence"]["agreement"], [one[1] for one in row["test"]]
            print(
                f"{condition.name:40s} seed {seed}: kappa {agreed['kappa']:.2f} differ {agreed['differ']:.3f} "
                f"p {row['evidence']['p_value']:.3f} chosen {GRID[row['chosen']]} "
                f"worst {worst[row['chosen']]:.2f}, ERM {worst[0]:.2f}, best {max(worst):.2f}",
                flush=True,
            )


def policies(row: dict[str, Any]) -> dict[str, int]:
    """Which setting each way of choosing takes."""
    grid = [tuple(one) for one in row["grid"]]
    worst = [one[1] for one in row["test"]]
    return {
        "ERM": grid.index(ERM),
        "T 0.1": grid.index((0.1, 1.0)),
        "T 2": grid.index((2.0, 1.0)),
        "auto": row["chosen"],
        "validation groups": int(np.argmax(row["validation"])),
        "oracle": int(np.argmax(worst)),
    }


def table(records: list[dict[str, Any]]) -> str:
    """A line per condition: what was found, and average and worst group by way of choosing."""
    names = list(policies(records[0]))
    lines = [
        f"| condition | pairs differ on | p | called a shortcut | {' | '.join(names)} |",
        "|---|---|---|---|" + "---|" * len(names),
    ]
    order = {condition.name: place for place, condition in enumerate(conditions())}
    for shortcut in (False, True, None):
        kind = {False: "none that does harm", True: "planted", None: "unknown"}[shortcut]
        lines.append(f"| **shortcut: {kind}** |" + " |" * (3 + len(names)))
        chosen = [row for row in records if row["shortcut"] is shortcut]
        for name in sorted({row["condition"] for row in chosen}, key=lambda name: order[name]):
            rows = [row for row in chosen if row["condition"] == name]
            cells = [
                f"{100 * _mean(r['test'][policies(r)[p]][0] for r in rows):.0f} / "
                f"**{100 * _mean(r['test'][policies(r)[p]][1] for r in rows):.0f}**"
                for p in names
            ]
            found = [row["evidence"] for row in rows]
            said = f"{sum(one['shortcut'] for one in found)} of {len(rows)}"
            agreed, p = (
                _mean(one["agreement"]["differ"] for one in found),
                max(one["p_value"] for one in found),
            )
            mark = " (fresh)" if rows[0]["fresh"] else ""
            lines.append(f"| {name}{mark} | {agreed:.1%} | {p:.2g} | {said} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def summary(records: list[dict[str, Any]]) -> str:
    """The aims, and what was reached."""
    from sklearn.metrics import roc_auc_score

    known = [row for row in records if row["shortcut"] is not None]
    lines = []
    for title, rows in (
        ("all", known),
        ("fresh conditions only", [row for row in known if row["fresh"]]),
    ):
        absent = [row for row in rows if not row["shortcut"]]
        present = [row for row in rows if row["shortcut"]]
        # those that cannot be learned below all that can, and each by how far pairs differ
        score = [
            -row["evidence"]["agreement"]["differ"] - (row["evidence"]["p_value"] >= LEVEL) for row in rows
        ]
        area = roc_auc_score([row["shortcut"] for row in rows], score)
        alarms, found = (sum(r["evidence"]["shortcut"] for r in part) for part in (absent, present))
        lines += [
            f'Over {len(rows)} runs ({title}): area under the curve for "shortcut present" **{area:.3f}** '
            f"(aim 0.95); false alarms **{alarms} of {len(absent)}** (aim 5%); shortcuts found {found} of "
            f"{len(present)}.",
            "",
            "| way of choosing | no shortcut: average less ERM's | likewise, worst run | largest fall of a group "
            "| shortcut: worst group | less the oracle's |",
            "|---|---|---|---|---|---|",
        ]
        for name in policies(rows[0]):
            cost, fall, worst, gap = [], [], [], []
            for row in absent:
                mine, erm = row["test"][policies(row)[name]], row["test"][0]
                cost.append(mine[0] - erm[0])
                fall.append(min(a - b for a, b in zip(mine[2], erm[2], strict=True)))
            for row in present:
                ways = policies(row)
                worst.append(row["test"][ways[name]][1])
                gap.append(worst[-1] - row["test"][ways["oracle"]][1])
            lines.append(
                f"| {name} | {100 * _mean(cost):+.1f} | {100 * min(cost):+.1f} | {100 * min(fall):+.1f} "
                f"| {100 * _mean(worst):.1f} | {100 * _mean(gap):+.1f} |"
            )
        lines.append("")
    return "\n".join(lines)


def write() -> None:
    """Put summary and table into the page, between their markers."""
    records = [row for row in read_records() if row["seed"] > 1]
    page = PAGE.read_text()
    for name, text in (("summary", summary(records)), ("table", table(records))):
        begin, end = f"<!-- {name}: benchmarks/automatic.py write -->", f"<!-- end of {name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    PAGE.write_text(page)


def main() -> None:
    """Run or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "write"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[2, 3])
    parser.add_argument("--only", default="", help="conditions whose name has this in it")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "run":
        run(options.seeds, options.only)
    else:
        write()


if __name__ == "__main__":
    main()
