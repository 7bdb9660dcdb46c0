"""A benchmark, from its spec to a store full of results."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from unrote.benchmark.display import Display, State
from unrote.benchmark.executors import Executor, Job, LocalExecutor
from unrote.benchmark.protocol import Protocol, Records
from unrote.benchmark.runs import Run, chunks
from unrote.benchmark.spec import Spec
from unrote.benchmark.store import Store
from unrote.benchmark.tasks import load_tasks
from unrote.data import Task

_POLL = 0.2  # seconds between looks at what other processes have done


@dataclass(frozen=True)
class Summary:
    """How a benchmark ended.

    Args:
        counts: runs of this spec by status, over all processes.
        mine: runs that this process carried out.
        seconds: it took.
        complete: whether nothing is left to do; not so where the budget ended it.
        missing: label and reason of optional tasks that could not be had.
    """

    counts: Mapping[str, int]
    mine: int
    seconds: float
    complete: bool
    missing: Mapping[str, str]


def run_benchmark(
    spec: Spec,
    store: Store,
    *,
    executor: Executor | None = None,
    tasks: Mapping[str, Task] | None = None,
    progress: bool = False,
) -> Summary:
    """Do all runs of a spec that the store does not have.

    Any number of processes may do so at once on one store; each run is done by one of them.

    Args:
        spec: what is wanted.
        store: of the results.
        executor: where runs are carried out; default this process.
        tasks: tasks of one's own by label, in place of those that their names would build.
        progress: whether to show a live display on standard error.

    Raises:
        DataError: if the data of a task that is not optional cannot be had.
        OptionError: if a task has no validation or test split.
    """
    start = time.monotonic()
    loaded, known = load_tasks(spec, tasks)
    protocol = Protocol(spec, known)
    protocol.save(store)
    executor = executor or LocalExecutor()
    work = _Work(spec, store, executor, protocol, loaded, set(tasks or ()))
    deadline = None if spec.budget_minutes is None else start + 60 * spec.budget_minutes
    try:
        with Display(spec.name, show=progress) as display:
            work.go(display, deadline)
    finally:
        executor.close()
        store.release()
    state = work.state()
    return Summary(
        counts=state.counts,
        mine=work.mine,
        seconds=time.monotonic() - start,
        complete=not protocol.pending(work.records),
        missing=protocol.missing,
    )


@dataclass
class _Work:
    """What changes while a benchmark runs."""

    spec: Spec
    store: Store
    executor: Executor
    protocol: Protocol
    tasks: Mapping[str, Task]
    given: set[str]
    records: Records = None  # type: ignore[assignment]
    mine: int = 0
    in_flight: int = 0
    busy_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.records = self.store.records()

    def go(self, display: Display, deadline: float | None) -> None:
        """Claim, carry out and write down, until nothing is left."""
        while True:
            in_time = deadline is None or time.monotonic() < deadline
            pending = self.protocol.pending(self.records)
            running = {key for key, record in self.records.items() if not record.final}
            started = in_time and self._start([run for run in pending if run.key not in running])
            display.update(self.state())
            if self.in_flight:
                for job, outcomes in self.executor.finished(timeout=_POLL):
                    self.store.finish(outcomes)
                    self.in_flight -= 1
                    self.mine += len(job.runs)
            elif not pending or not in_time:
                break
            elif not started:
                time.sleep(_POLL)  # others have the rest: they finish it, or leave it
            self.records = self.store.records(self.records)
        display.update(self.state())

    def _start(self, free: list[Run]) -> bool:
        """Claim and submit jobs while there is room; whether there were any."""
        started = False
        for chunk in chunks(free, self.spec.stack):
            if not self.executor.has_room:
                break
            claimed = self.store.claim(chunk)
            if claimed:
                self._submit(claimed)
                started = True
        if started:
            self.records = self.store.records(self.records)
        return started

    def _submit(self, runs: list[Run]) -> None:
        first = runs[0]
        keys = {run.twins for run in runs if run.twins is not None}
        options = None if first.label in self.given else dict(first.task["options"])
        twins = {key: self.store.artefact(key) for key in sorted(keys)}
        self.executor.submit(Job(tuple(runs), options, twins), self.tasks[first.label])
        self.in_flight += 1

    def state(self) -> State:
        """What the display shows."""
        return replace(State.of(self.protocol, self.records), mine=self.mine)
