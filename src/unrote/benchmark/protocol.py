"""The protocol: which runs a spec asks for, in which order, given what the store already has.

    twins     K configurations of XRM at the search's seed -> the one that flips most labels -> every seed
    search    K configurations of each method at the search's seed, on those twins
    choice    for each regime and criterion: configuration and step
    final     each chosen configuration at every seed, on that seed's twins; the step is chosen anew in each

Everything here is a function of the spec, the tasks and the records: nothing is remembered between calls, so
processes that share a store agree on what is left to do, and an interrupted benchmark goes on where it stopped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from unrote.benchmark.runs import SHARED_ORDER, Run, can_stack, code_version
from unrote.benchmark.search import configurations, twin_configurations
from unrote.benchmark.spec import MethodSpec, Spec
from unrote.benchmark.store import Record, Store
from unrote.benchmark.tasks import TaskInfo
from unrote.data import Regime
from unrote.methods import METHODS
from unrote.selection import CRITERIA, ORACLE, Chosen, Criterion, choose, choose_twins

Records = Mapping[str, Record]


@dataclass(frozen=True)
class Selection:
    """What one criterion chose in one regime, and the runs that re-run it.

    Args:
        task: label.
        method: its entry in the spec.
        regime: None for the oracle.
        criterion: by which it was chosen.
        tried: the runs of the search; one run where there was nothing to search.
        chosen: which of them, and at which step; None while that is open, or if none can be scored.
        finals: the re-runs, in the order of seeds; empty while `chosen` is open.
        blocked: why there will be no re-runs; empty if there are or will be.
    """

    task: str
    method: MethodSpec
    regime: Regime | None
    criterion: Criterion
    tried: tuple[Run, ...]
    chosen: Chosen | None
    finals: tuple[Run, ...]
    blocked: str = ""


@dataclass(frozen=True)
class Twins:
    """XRM on one task: its configurations, which was chosen, and the run of each seed.

    Args:
        tried: runs at the search's seed.
        chosen: which of them has the largest flip rate; None while that is open.
        by_seed: the chosen configuration at every seed, the search's included.
        blocked: why there are none; empty if there are or will be.
    """

    tried: tuple[Run, ...]
    chosen: int | None
    by_seed: Mapping[int, Run]
    blocked: str = ""


class Protocol:
    """The runs of a spec.

    Args:
        spec: what is wanted.
        known: its tasks.
        code: version of the code whose runs these are; default this code's.
    """

    def __init__(self, spec: Spec, known: Mapping[str, TaskInfo], code: str | None = None) -> None:
        self.spec, self.code = spec, code or code_version()
        self.missing = {label: info.missing for label, info in known.items() if info.missing}
        self.known = {label: info for label, info in known.items() if not info.missing}
        self._made: dict[tuple[Any, ...], Run] = {}  # runs are asked for often, and their keys cost

    def save(self, store: Store) -> None:
        """Remember in a store what was asked for, for tables to be made of it by whatever version."""
        infos = [asdict(info) for info in self.known.values()]
        missing = [asdict(TaskInfo(label, {}, missing=why)) for label, why in self.missing.items()]
        content = {"code": self.code, "spec": self.spec.model_dump(), "tasks": infos + missing}
        store.save_spec(self.spec.name, json.dumps(content))

    @staticmethod
    def read(store: Store, name: str | None = None) -> "Protocol":
        """What was last run of a spec in a store; of any spec, if no name is given."""
        content = json.loads(store.spec(name))
        known = {item["label"]: TaskInfo.read(item) for item in content["tasks"]}
        return Protocol(Spec.model_validate(content["spec"]), known, content["code"])

    def _run(self, info: TaskInfo, *, method: str, recipe: Mapping[str, Any], seed: int, **rest: Any) -> Run:
        stacks = self.spec.shared_order and can_stack(method, info.model)
        return Run(
            label=info.label,
            task=info.identity,
            model=info.model,
            recipe=recipe,
            method=method,
            seed=seed,
            order_seed=SHARED_ORDER if stacks else None,
            code=self.code,
            **rest,
        )

    def _needs_twins(self, method: MethodSpec) -> bool:
        fields = getattr(METHODS[method.name], "__dataclass_fields__", {})
        sources = [method.settings.get(n, fields[n].default) for n in ("held_out", "guess") if n in fields]
        asked = any(source in ("auto", "xrm") for source in sources)
        return self.spec.uses_inferred_groups or method.groups == "xrm" or asked

    @cached_property
    def _twin_recipes(self) -> dict[str, list[dict[str, Any]]]:
        return {
            label: twin_configurations(self.spec, info.recipe_spec(), label)
            for label, info in self.known.items()
        }

    @cached_property
    def _method_configurations(self) -> dict[tuple[str, str], list[tuple[dict[str, Any], dict[str, Any]]]]:
        return {
            (label, method.shown): configurations(self.spec, method, info.recipe_spec(), label)
            for label, info in self.known.items()
            for method in self.spec.methods
        }

    def _twin_run(self, info: TaskInfo, recipe: Mapping[str, Any], seed: int) -> Run:
        at = (info.label, "twins", tuple(recipe.items()), seed)
        if at not in self._made:
            rest: dict[str, Any] = {"settings": {}, "groups": "true", "regime": "none", "twins": None}
            rest["evaluate_every"] = info.evaluate_every
            run = self._run(info, kind="twins", method="xrm", recipe=recipe, seed=seed, **rest)
            self._made[at] = run
        return self._made[at]

    def twins(self, label: str, records: Records) -> Twins:
        """XRM on one task, as far as the records go."""
        info, spec = self.known[label], self.spec
        recipes = self._twin_recipes[label]
        tried = tuple(self._twin_run(info, recipe, spec.search_seed) for recipe in recipes)
        found = [records.get(run.key) for run in tried]
        if not all(record is not None and record.final for record in found):
            return Twins(tried, None, {})
        rates = [
            record.result["flip_rate"] if record and record.result and record.status == "done" else None
            for record in found
        ]
        chosen = choose_twins(rates)
        if chosen is None:
            error = next((record.error for record in found if record and record.error), "")
            return Twins(tried, None, {}, f"XRM's twins: {_first_line(error)}")
        by_seed = {seed: self._twin_run(info, recipes[chosen], seed) for seed in spec.final_seeds}
        return Twins(tried, chosen, {spec.search_seed: tried[chosen], **by_seed})

    def _method_run(
        self, info: TaskInfo, method: MethodSpec, configuration: int, seed: int, twins: Run | None
    ) -> Run:
        at = (info.label, method.shown, configuration, seed, None if twins is None else twins.key)
        if at in self._made:
            return self._made[at]
        recipe, settings = self._method_configurations[info.label, method.shown][configuration]
        self._made[at] = self._run(
            info,
            kind="method",
            method=method.name,
            recipe=recipe,
            settings=settings,
            seed=seed,
            evaluate_every=info.evaluate_every,
            groups=method.groups,
            regime=method.needs,
            twins=None if twins is None else twins.key,
        )
        return self._made[at]

    def criteria_of(self, label: str, method: MethodSpec) -> Iterator[tuple[Regime | None, Criterion]]:
        """The regimes and criteria a method is reported under, the oracle last."""
        has_groups = "validation" in (self.known[label].sizes or {})
        for regime in self.spec.regimes_of(method):
            for name in self.spec.criteria[regime]:
                if has_groups or name != "worst_group":
                    yield regime, CRITERIA[name]
        if self.spec.oracle and "test" in (self.known[label].sizes or {}):
            yield None, CRITERIA[ORACLE]

    def selections(self, label: str, method: MethodSpec, records: Records) -> list[Selection]:
        """What each criterion chose of a method on a task, as far as the records go."""
        info, spec = self.known[label], self.spec
        twins = self.twins(label, records) if self._needs_twins(method) else None
        count = len(self._method_configurations[label, method.shown])
        blocked = twins.blocked if twins is not None else ""

        def at(configuration: int, seed: int) -> Run | None:
            if twins is not None and seed not in twins.by_seed:
                return None
            own = None if twins is None else twins.by_seed[seed]
            return self._method_run(info, method, configuration, seed, own)

        tried = tuple(run for k in range(count) if (run := at(k, spec.search_seed)) is not None)
        done = len(tried) == count and all(
            (record := records.get(run.key)) is not None and record.final for run in tried
        )
        trials = [records[run.key].trial for run in tried] if done and count > 1 else []
        found = []
        for regime, criterion in self.criteria_of(label, method):
            chosen = (
                Chosen(0, -1, float("nan")) if count == 1 else choose(trials, criterion) if done else None
            )
            why = blocked
            if done and count > 1 and chosen is None:
                why = why or f"no configuration can be scored: {self._errors(tried, records)}"
            runs = () if chosen is None else tuple(at(chosen.trial, seed) for seed in spec.final_seeds)
            finals = tuple(run for run in runs if run is not None)
            found.append(Selection(label, method, regime, criterion, tried, chosen, finals, why))
        return found

    def _errors(self, runs: Sequence[Run], records: Records) -> str:
        errors = [_first_line(r.error) for run in runs if (r := records.get(run.key)) is not None and r.error]
        return errors[0] if errors else "no validation group has examples"

    def pending(self, records: Records) -> list[Run]:
        """The runs that could start now, in a fixed order: twins first, then searches, then re-runs."""
        wanted: dict[str, Run] = {}

        def want(run: Run) -> None:
            record = records.get(run.key)
            if record is None or not record.final:
                wanted.setdefault(run.key, run)

        def has_twins(run: Run) -> bool:
            record = None if run.twins is None else records.get(run.twins)
            return run.twins is None or (record is not None and record.status == "done")

        for label in self.known:
            users = [method for method in self.spec.methods if self._needs_twins(method)]
            if users:
                twins = self.twins(label, records)
                for run in (*twins.tried, *twins.by_seed.values()):
                    want(run)
        for stage in ("search", "final"):
            for label in self.known:
                for method in self.spec.methods:
                    for selection in self.selections(label, method, records):
                        # with one configuration there is nothing to search
                        searched = selection.tried if len(selection.tried) > 1 else ()
                        for run in searched if stage == "search" else selection.finals:
                            if has_twins(run):
                                want(run)
        return list(wanted.values())

    def errors(self, records: Records) -> list[dict[str, Any]]:
        """Every run that failed or diverged, and why, in one line each."""
        found: dict[str, dict[str, Any]] = {}
        for label in self.known:
            runs = list(self.twins(label, records).tried) + list(self.twins(label, records).by_seed.values())
            for method in self.spec.methods:
                for selection in self.selections(label, method, records):
                    runs += [*selection.tried, *selection.finals]
            for run in runs:
                record = records.get(run.key)
                if record is not None and record.status in ("failed", "diverged"):
                    found[run.key] = {
                        "task": label,
                        "method": run.method,
                        "seed": run.seed,
                        "status": record.status,
                        "error": _first_line(record.error),
                        "configuration": run.configuration(),
                    }
        return list(found.values())

    def expected(self, records: Records) -> int:
        """How many runs there are in all; what is not yet chosen counts as one choice per criterion."""
        keys: set[str] = set()
        open_finals = 0
        for label in self.known:
            if any(self._needs_twins(method) for method in self.spec.methods):
                twins = self.twins(label, records)
                keys |= {run.key for run in (*twins.tried, *twins.by_seed.values())}
                if twins.chosen is None and not twins.blocked:
                    open_finals += self.spec.seeds
            for method in self.spec.methods:
                count = len(self._method_configurations[label, method.shown])
                selections = self.selections(label, method, records)
                for selection in selections:
                    if count > 1:
                        keys |= {run.key for run in selection.tried}
                    keys |= {run.key for run in selection.finals}
                if count > 1 and not selections[0].tried and not selections[0].blocked:
                    open_finals += count
                undecided = [s for s in selections if not s.finals and not s.blocked]
                open_finals += self.spec.seeds * (len(undecided) if count > 1 else min(1, len(undecided)))
        return len(keys) + open_finals


def _first_line(error: str | None) -> str:
    return (error or "").split("\n", 1)[0]
