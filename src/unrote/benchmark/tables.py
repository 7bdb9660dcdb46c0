"""The table of a benchmark, from the store: what was chosen, how it does on the test split, and how sure that is.

Three averages stand side by side under names of their own, because papers call each of them "average accuracy":
over the test split as it is; re-weighted by the training groups' shares; the mean over groups, all alike. A group
without test examples has no accuracy, and is never the worst.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unrote.benchmark.protocol import Protocol, Records, Selection, Twins
from unrote.benchmark.runs import Run
from unrote.benchmark.statistics import Spread, spread
from unrote.benchmark.store import Record, Store
from unrote.benchmark.tasks import TaskInfo
from unrote.selection import ORACLE, Counts, choose

METRICS = {
    "average": "average",
    "reweighted_average": "re-weighted average",
    "group_mean": "group mean",
    "worst_class": "worst class",
    "worst_group": "worst group",
}
"""What is measured on the test split, and what it is called."""


@dataclass(frozen=True)
class Row:
    """One method, as one criterion in one regime chose it.

    Args:
        task: label.
        method: as shown.
        regime: "none", "val", "train", or "oracle".
        criterion: by name.
        tried: configurations tried.
        lost: of them, how many failed or diverged.
        configuration: the chosen one; None while that is open.
        seeds: of the re-runs.
        values: per metric one value per seed, None where the run is missing, failed or diverged.
        steps: the step chosen in each re-run.
        diverged: re-runs that diverged.
        failed: re-runs that failed.
        pending: re-runs that are still to come.
        worst_groups: name of the worst test group of each re-run.
        gap: mean worst-group accuracy of the oracle's choice less this row's; None without an oracle.
        note: why there is no result, if so.
    """

    task: str
    method: str
    regime: str
    criterion: str
    tried: int
    lost: int
    configuration: dict[str, Any] | None
    seeds: tuple[int, ...]
    values: Mapping[str, tuple[float | None, ...]]
    steps: tuple[int | None, ...]
    diverged: int
    failed: int
    pending: int
    worst_groups: tuple[str | None, ...]
    gap: float | None = None
    note: str = ""

    def spread(self, metric: str) -> Spread | None:
        """Mean and spread of a metric over the re-runs that have it."""
        return spread([value for value in self.values[metric] if value is not None])

    @property
    def worst_group_name(self) -> str:
        """The group that is the worst in most re-runs."""
        names = Counter(name for name in self.worst_groups if name)
        return names.most_common(1)[0][0] if names else ""

    @property
    def is_oracle(self) -> bool:
        """Whether the test split's own labels chose it."""
        return self.criterion == ORACLE


@dataclass(frozen=True)
class TaskTable:
    """The rows of one task, and what they rest on.

    Args:
        info: of the task.
        rows: in the order of methods, regimes and criteria of the spec.
        twins: a line on XRM's search; empty if there is none.
        seconds: spent on its runs, all together.
    """

    info: TaskInfo
    rows: tuple[Row, ...]
    twins: str
    seconds: float


@dataclass(frozen=True)
class Table:
    """The table of a benchmark.

    Args:
        name: of the spec.
        description: of the spec.
        tasks: those that could be had.
        missing: label and reason of those that could not.
        settings: seeds, search and regimes, in words.
        code: version of the code.
        pending: runs still to come.
    """

    name: str
    description: str
    tasks: tuple[TaskTable, ...]
    missing: Mapping[str, str]
    settings: str
    code: str
    pending: int

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; what is missing is null."""
        rows = []
        for task in self.tasks:
            for row in task.rows:
                spreads = {metric: row.spread(metric) for metric in METRICS}
                found = {metric: None if one is None else asdict(one) for metric, one in spreads.items()}
                rows.append({**asdict(row), "worst_group_name": row.worst_group_name, "summary": found})
        infos = [{**asdict(task.info), "xrm": task.twins, "seconds": task.seconds} for task in self.tasks]
        return {
            "name": self.name,
            "description": self.description,
            "settings": self.settings,
            "code": self.code,
            "pending": self.pending,
            "missing": dict(self.missing),
            "tasks": infos,
            "rows": rows,
        }


def build_tables(store: Store, name: str | None = None) -> Table:
    """The table of what was last run of a spec.

    Args:
        store: of the results.
        name: of the spec; default the one that was run last.

    Raises:
        OptionError: if no such spec was run.
    """
    protocol = Protocol.read(store, name)
    records, spec = store.records(), protocol.spec
    tasks = []
    for label, info in protocol.known.items():
        selections = [s for m in spec.methods for s in protocol.selections(label, m, records)]
        rows = _with_gaps([_row(info, selection, records, spec.final_seeds) for selection in selections])
        twins = (
            protocol.twins(label, records) if any(run.twins for s in selections for run in s.tried) else None
        )
        tasks.append(
            TaskTable(info, tuple(rows), _twins_line(twins, records), _seconds(selections, twins, records))
        )
    first, last = spec.final_seeds[0], spec.final_seeds[-1]
    order = (
        "one order of minibatches for all runs of a stack"
        if spec.shared_order
        else "an order of each run's own"
    )
    settings = (
        f"up to {spec.search} configurations per method at seed {spec.search_seed}, the first with defaults; the "
        f"choice re-run with {spec.seeds} seeds ({first} to {last}) on the same data, {order}; "
        "each run's step chosen by the same criterion"
    )
    pending = sum(1 for run in protocol.pending(records) if run.key not in records)
    return Table(
        spec.name, spec.description, tuple(tasks), protocol.missing, settings, protocol.code, pending
    )


def _row(info: TaskInfo, selection: Selection, records: Records, seeds: Sequence[int]) -> Row:
    finals = [records.get(run.key) for run in selection.finals]
    measured = [_measure(info, selection, record) for record in finals]
    ended = [record for record in finals if record is not None and record.final]
    chosen = selection.chosen
    waits = any(record is None or not record.final for record in finals)
    note = selection.blocked
    if not note and (waits or chosen is None):
        note = "not finished"
    errors = [record.error for record in ended if record.status != "done" and record.error]
    if not note and errors and len(errors) == len(finals):
        note = errors[0].split("\n", 1)[0]
    return Row(
        task=info.label,
        method=selection.method.shown,
        regime=selection.regime or "oracle",
        criterion=selection.criterion.name,
        tried=len(selection.tried),
        lost=sum(1 for run in selection.tried if _lost(records.get(run.key))),
        configuration=None if chosen is None else selection.tried[chosen.trial].configuration(),
        seeds=tuple(seeds),
        values={metric: tuple(one.get(metric) for one in measured) for metric in METRICS},
        steps=tuple(one.get("step") for one in measured),
        diverged=sum(1 for record in ended if record.status == "diverged"),
        failed=sum(1 for record in ended if record.status == "failed"),
        pending=len(finals) - len(ended),
        worst_groups=tuple(one.get("worst_group_name") for one in measured),
        note=note,
    )


def _lost(record: Record | None) -> bool:
    return record is not None and record.final and record.status != "done"


def _measure(info: TaskInfo, selection: Selection, record: Record | None) -> dict[str, Any]:
    """Test metrics of a re-run at the step its criterion chooses; empty if there are none."""
    if record is None or record.status != "done" or record.result is None:
        return {}
    chosen = choose([record.trial], selection.criterion)
    if chosen is None:
        return {}
    look = record.trial.looks[chosen.look]
    classes, groups = look["test.classes"], look.get("test.groups")
    found: dict[str, Any] = {
        "step": record.result["steps"][chosen.look],
        "average": classes.total,
        "worst_class": classes.worst,
    }
    if groups is None or groups.worst is None:
        return found
    accuracy = groups.accuracy
    present = [value for value in accuracy if value is not None]
    return {
        **found,
        "worst_group": groups.worst,
        "worst_group_name": info.group_names[accuracy.index(groups.worst)],
        "group_mean": sum(present) / len(present),
        "reweighted_average": _reweighted(
            groups, None if info.overlapping else (info.sizes or {}).get("train")
        ),
    }


def _reweighted(groups: Counts, train: Sequence[int] | None) -> float | None:
    """Mean over the groups that have examples, by their shares of the training split."""
    if train is None:
        return None
    pairs = [(a, n) for a, n in zip(groups.accuracy, train, strict=True) if a is not None]
    total = sum(n for _, n in pairs)
    return sum(a * n for a, n in pairs) / total if total else None


def _with_gaps(rows: list[Row]) -> list[Row]:
    """Rows with how much the oracle's choice of the same method is ahead."""
    oracle = {row.method: row.spread("worst_group") for row in rows if row.is_oracle}
    found = []
    for row in rows:
        own, best = row.spread("worst_group"), oracle.get(row.method)
        gap = None if own is None or best is None or row.is_oracle else best.mean - own.mean
        found.append(Row(**{**vars(row), "gap": gap}))
    return found


def _twins_line(twins: Twins | None, records: Records) -> str:
    if twins is None:
        return ""
    if twins.chosen is None:
        return twins.blocked or "XRM: not finished"
    record = records[twins.tried[twins.chosen].key]
    result = record.result or {}
    rates = {
        name: f"{twins.tried[twins.chosen].recipe[name]:.2g}" for name in ("learning_rate", "weight_decay")
    }
    warning = "; DEGENERATE: a class has a single inferred group" if result.get("degenerate") else ""
    return (
        f"XRM's twins: {len(twins.tried)} configurations, chosen by the largest flip rate "
        f"({result.get('flip_rate', 0.0):.1%} of labels; learning rate {rates['learning_rate']}, weight decay "
        f"{rates['weight_decay']}), re-run at every seed{warning}"
    )


def _seconds(selections: Sequence[Selection], twins: Twins | None, records: Records) -> float:
    runs: list[Run] = [run for s in selections for run in (*s.tried, *s.finals)]
    if twins is not None:
        runs += [*twins.tried, *twins.by_seed.values()]
    keys = {run.key for run in runs}
    return sum(records[key].seconds or 0.0 for key in keys if key in records)
