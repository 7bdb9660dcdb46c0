"""Is there a shortcut, and how strongly to train against it, without group labels: the evidence of docs/automatic.md.

    python benchmarks/automatic.py run --seeds 10 11     # half a minute a condition; goes on where it was
    python benchmarks/automatic.py write                 # docs/automatic.md from the records

A record is one condition at one seed, one JSON line. Conditions are small (photographs of 14 by 14 pixels, a
hidden layer of 64), so that all settings train as one stack: what `temperature="auto"` measures and chooses, and what
every setting reaches on the test set, so that an oracle and a validation set with group labels can choose too.
Seeds 0 to 9 were looked at while thresholds were set; the page shows others, and says what was changed after them.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from _records import Records
from torch import Tensor
from torch.nn import functional as F

from unrote import Recipe, load_task
from unrote.automatic import ERM, LEVEL, settings
from unrote.data import Split, Task
from unrote.data.fashion import CLASSES
from unrote.data.planted import colours, plant_attribute, tint
from unrote.figures.two_shortcuts import two_shortcuts
from unrote.methods import METHODS, Session
from unrote.metrics import group_report
from unrote.models import Stack, StackedLinear, StackedMLP
from unrote.seeding import derive_seed, generator
from unrote.shift import group_shift, logit_shift
from unrote.supervision import Supervision
from unrote.training import Supervised, train

RECORDS = Records("automatic", "automatic.md")

GRID = [*settings(), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]
"""What the oracle chooses from, against one shortcut; the first ones are what `temperature="auto"` does."""

TWO_FEATURES, TWO_PLANTED = "interpretable, two shortcuts", "fashion, two shortcuts"
GARMENTS = {2: "pullover,coat", 3: "pullover,coat,shirt", 4: "t-shirt,pullover,coat,shirt"}
RECIPES = {
    "interpretable": Recipe("sgd", 1e-2, momentum=0.0, epochs=1000, batch_size=None),
    "reviews": Recipe("adam", 1e-2, epochs=60, batch_size=128),
    "fashion": Recipe("adam", 1e-3, epochs=40, batch_size=128),
}
RECIPES["two features"] = RECIPES["interpretable"]
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
    rows: int = 6000  # photographs to train on, as many as the task has by default
    rare: float = 1.0  # share of the second class's training and validation examples that is kept


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
    yield from _hard()
    yield Condition(TWO_FEATURES, "two features", {}, shortcut=True)
    for classes in (GARMENTS[2], "sandal,sneaker"):
        yield Condition(
            f"{TWO_PLANTED}, {classes}", "fashion", {"classes": classes}, shortcut=True, rows=3000
        )


def _noisy() -> Iterator[Condition]:
    two, four = GARMENTS[2], GARMENTS[4]
    for rate in (0.05, 0.1, 0.2):
        options = {"classes": two, "alignment": 0.5}
        yield Condition(f"fashion, 2 classes 50%, noise {rate:.0%}", "fashion", options, False, rate)
    options = {"classes": four, "alignment": 0.25}
    yield Condition("fashion, 4 classes 25%, noise 10%", "fashion", options, False, 0.1)
    # so easy that twins agree: the exceptions are the wrong labels
    for classes, rate in (("trouser,bag", 0.05), ("trouser,bag", 0.2), ("t-shirt,ankle boot", 0.1)):
        options = {"classes": classes, "alignment": 0.5}
        yield Condition(f"fashion, {classes} 50%, noise {rate:.0%}", "fashion", options, False, rate)
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


def _hard() -> Iterator[Condition]:
    """Few examples, 15 exceptions in all, many classes, classes of different size, a minority of half a percent."""
    for n in GARMENTS:
        for share in (1 / n, 0.95, 0.99):
            options = {"classes": GARMENTS[n], "alignment": share}
            name = f"fashion, {n} classes {share:.0%}, of 1,500"
            yield Condition(name, "fashion", options, share > 1 / n, rows=1500)
    for n in (6, 10):
        for share in (1 / n, 0.9):
            options = {"classes": CLASSES[:n], "alignment": share}
            yield Condition(
                f"fashion, {n} classes {share:.0%}", "fashion", options, share > 1 / n, rows=500 * n
            )
    for share in (0.5, 0.9):
        options = {"classes": GARMENTS[2], "alignment": share}
        name = f"fashion, 2 classes {share:.0%}, of 10 : 1"
        yield Condition(name, "fashion", options, share > 0.5, rows=3000, rare=0.1)
    options = {"classes": GARMENTS[2], "alignment": 0.995}
    yield Condition("fashion, 2 classes 99.5%", "fashion", options, shortcut=True)


def two_planted(task: Task, seed: int) -> Task:
    """The photographs of a task with two shortcuts: a tint (95%) and the corner with a bright square (90%)."""

    def planted(split: Split, name: str, alignments: tuple[float, float]) -> Split:
        first, second = (
            plant_attribute(split.y, 2, alignment, derive_seed(seed, "two planted", name, which))
            for which, alignment in enumerate(alignments)
        )
        x = tint(split.x[torch.arange(len(split))].amax(1), first, colours(2), 1.0)
        for corner, columns in enumerate((slice(0, 4), slice(24, 28))):
            x[second == corner, :, :4, columns] = 1.0
        return Split(x, split.y, 2 * first + second)

    assert task.validation is not None
    assert task.test is not None
    parts = {
        "train": planted(task.train, "train", (0.95, 0.9)),
        "validation": planted(task.validation, "validation", (0.95, 0.9)),
        "test": planted(task.test, "test", (0.5, 0.5)),
    }
    return Task(
        "two planted", **parts, class_names=task.class_names, attribute_names=("--", "-+", "+-", "++")
    )


def make(condition: Condition, seed: int) -> Task:
    """The condition's task, small enough for seconds."""
    if condition.name == TWO_FEATURES:
        task = two_shortcuts(1000, 1797, seed)
        assert task.test is not None
        return replace(task, validation=task.test)  # nothing is chosen by it
    extra = {"n_train": condition.rows, "n_validation": 500} if condition.task == "fashion" else {}
    if condition.name.startswith(TWO_PLANTED):
        # without a tint the channels are alike
        task = two_planted(load_task("fashion", seed=seed, strength=0.0, **condition.options, **extra), seed)
    else:
        task = load_task(condition.task, seed=seed, **condition.options, **extra)

    def small(split: Split | None, name: str) -> Split:
        assert split is not None
        rows = torch.arange(min(len(split), ROWS) if condition.task in ("adult", "compas") else len(split))
        if condition.rare < 1 and name != "test":
            lucky = torch.rand(len(rows), generator=generator(seed, "rare", name)) < condition.rare
            rows = rows[(split.y != 1) | lucky]
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
    if condition.task in ("interpretable", "reviews", "two features"):
        return lambda seeds: StackedLinear(d, n_classes, seeds)
    return lambda seeds: StackedMLP(d, n_classes, seeds, hidden=64)


def execute(condition: Condition, seed: int) -> dict[str, Any]:
    """Measure, choose, and score every setting."""
    start = time.process_time()
    task = make(condition, seed)
    build, recipe = builder(condition, task), RECIPES.get(condition.task, DEFAULT)
    x, y = task.train.x, task.train.y
    session = Session(task.for_regime("none"), build, recipe, seed)
    own = METHODS["mat"]().supervision(session).shift
    chosen, held_out = session.artefacts["automatic"], session.artefacts["held_out"].logits
    shift = torch.stack([strength * logit_shift(held_out, y, t) for t, strength in GRID])
    shift = torch.cat([shift, torch.zeros_like(shift[:1]) if own is None else own.unsqueeze(0)])
    stack = build([derive_seed(seed, "model", 0)] * len(shift))
    train(stack, x, Supervised(Supervision(y, shift=shift)), recipe, seed=derive_seed(seed, "order"))
    assert task.validation is not None
    assert task.test is not None
    known = {}
    if condition.name.startswith((TWO_FEATURES, TWO_PLANTED)):
        # both attributes known
        groupdro = METHODS["groupdro"]().fit(Session(task.for_regime("train"), build, recipe, seed))
        known["groupdro"] = group_accuracy(task, task.test, groupdro.logits(task.test.x))
        exact = build([derive_seed(seed, "model", 0)])
        supervision = Supervision(y, shift=group_shift(task.train.attribute, y, task.n_classes))
        train(exact, x, Supervised(supervision), recipe, seed=derive_seed(seed, "order"))
        known["exact"] = group_accuracy(task, task.test, exact.predict(task.test.x)[0])
    return {
        **known,
        "condition": condition.name,
        "seed": seed,
        "shortcut": condition.shortcut,
        "fresh": condition.fresh,
        "evidence": chosen.evidence.to_dict(),
        "behind": [one.to_dict() for one in chosen.behind],
        "chosen": [chosen.temperature, chosen.strength],
        "shortcuts": chosen.shortcuts,
        "grid": GRID,
        "validation": [group_accuracy(task, task.validation, z)[1] for z in stack.predict(task.validation.x)],
        "test": [group_accuracy(task, task.test, z) for z in stack.predict(task.test.x)],
        "seconds": round(time.process_time() - start, 1),
    }


def group_accuracy(task: Task, split: Split, logits: Tensor) -> tuple[float, float, list[float]]:
    """Average, worst group, and every group that has examples."""
    report = group_report(split.y, logits.argmax(-1), task.group(split), task.group_names)
    accuracies = [one.accuracy for one in report.groups if one.n and one.accuracy is not None]
    return report.average, min(accuracies), accuracies


def run(seeds: list[int], pattern: str) -> None:
    """Make the records that are missing."""
    done = {(row["condition"], row["seed"]) for row in RECORDS.read()}
    for seed in seeds:
        for condition in conditions():
            if (condition.name, seed) in done or pattern not in condition.name:
                continue
            row = execute(condition, seed)
            RECORDS.add(row)
            agreed, worst = row["evidence"]["agreement"], [one[1] for one in row["test"]]
            print(
                f"{condition.name:40s} seed {seed}: kappa {agreed['kappa']:.2f} differ {agreed['differ']:.3f} "
                f"p {row['evidence']['p_value']:.3f} found {row['shortcuts']} chosen {row['chosen']} "
                f"worst {worst[-1]:.2f}, ERM {worst[0]:.2f}, best {max(worst):.2f}",
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
        # where it trains ERM it is that very run (a member of a stack by itself may differ in the last bits)
        "auto": len(grid) if row["chosen"][1] else grid.index(ERM),
        "validation groups": int(np.argmax(row["validation"][: len(grid)])),
        "oracle": int(np.argmax(worst[: len(grid)])),
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


def several(records: list[dict[str, Any]]) -> str:
    """A line per condition with two shortcuts: how many were found, average and worst of all groups by method."""
    lines = [
        "| condition | found | ERM | one shortcut, T 0.1 | auto | exact shift, both known | GroupDRO, both known |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["condition"] for row in records):
        rows = [row for row in records if row["condition"] == name]
        known = [[row["test"][policies(row)[p]] for row in rows] for p in ("ERM", "T 0.1", "auto")] + [
            [row[p] for row in rows] for p in ("exact", "groupdro")
        ]
        cells = [
            f"{100 * _mean(one[0] for one in found):.0f} / **{100 * _mean(one[1] for one in found):.0f}**"
            for found in known
        ]
        counts = ", ".join(str(row["shortcuts"]) for row in rows)
        lines.append(f"| {name} | {counts} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def summary(records: list[dict[str, Any]]) -> str:
    """The aims, and what was reached."""
    from sklearn.metrics import roc_auc_score

    known = [row for row in records if row["shortcut"] is not None]
    hard = {condition.name for condition in _hard()}
    lines = []
    for title, rows in (
        ("all", known),
        ("all but the hard ones", [row for row in known if row["condition"] not in hard]),
        ("neither hard nor fresh", [r for r in known if r["condition"] not in hard and not r["fresh"]]),
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
    """Put summary and tables into the page, between their markers."""
    records = [row for row in RECORDS.read() if row["seed"] > 9]
    two = [row for row in records if "exact" in row]
    one = [row for row in records if "exact" not in row]
    for part, text in (("summary", summary(one)), ("table", table(one)), ("several", several(two))):
        RECORDS.show(text, part)


def main() -> None:
    """Run or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["run", "write"], default="run")
    parser.add_argument("--seeds", nargs="*", type=int, default=[10, 11])
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
