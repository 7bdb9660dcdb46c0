"""One live display of a benchmark: runs done, failed and running, the time left, and the best so far."""

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from unrote.benchmark.protocol import Protocol, Records
from unrote.selection import CRITERIA


@dataclass(frozen=True)
class Best:
    """The best of a task so far, on validation: the test split is not looked at while a benchmark runs."""

    task: str
    method: str
    criterion: str
    score: float


@dataclass(frozen=True)
class State:
    """How far a benchmark is.

    Args:
        counts: runs by status.
        expected: runs in all, as far as can be told.
        best: per task.
        mine: runs that this process has carried out.
    """

    counts: dict[str, int]
    expected: int
    best: tuple[Best, ...]
    mine: int = 0

    @property
    def ended(self) -> int:
        """Runs that have ended, well or not."""
        return sum(n for status, n in self.counts.items() if status != "running")

    @staticmethod
    def of(protocol: Protocol, records: Records) -> "State":
        """How far a protocol is, given the records."""
        counts = dict.fromkeys(("done", "failed", "diverged", "running"), 0)
        best: list[Best] = []
        keys: set[str] = set()
        for label in protocol.known:
            leader: Best | None = None
            twins = protocol.twins(label, records)
            keys |= {run.key for run in (*twins.tried, *twins.by_seed.values())}
            for method in protocol.spec.methods:
                for selection in protocol.selections(label, method, records):
                    keys |= {run.key for run in (*selection.tried, *selection.finals)}
                    criterion = selection.criterion
                    if criterion.needs is None:
                        continue
                    scores = [
                        score
                        for run in (*selection.tried, *selection.finals)
                        if (record := records.get(run.key)) is not None and record.status == "done"
                        for look in record.trial.looks
                        if (score := criterion.score(look)) is not None
                    ]
                    leading = leader is None or _rank(criterion.name) < _rank(leader.criterion)
                    if scores and leader is not None and criterion.name == leader.criterion:
                        leading = max(scores) > leader.score
                    if scores and leading:
                        leader = Best(label, method.shown, criterion.name, max(scores))
            if leader is not None:
                best.append(leader)
        for key in keys:
            if key in records:
                counts[records[key].status] += 1
        return State(counts, protocol.expected(records), tuple(best))


def _rank(criterion: str) -> int:
    return list(CRITERIA).index(criterion)


class Display:
    """A live display on standard error.

    Args:
        title: name of the benchmark.
        show: whether to show anything.
    """

    def __init__(self, title: str, *, show: bool) -> None:
        self.title, self.show = title, show
        self._live: Any = None
        self._start = time.monotonic()
        self._ended_before: int | None = None
        self._state: State | None = None

    def __enter__(self) -> "Display":
        if self.show:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=sys.stderr)
            self._live = Live(
                console=console,
                get_renderable=self._render,
                refresh_per_second=4,
                transient=console.is_terminal,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, state: State) -> None:
        """Show another state."""
        if self._ended_before is None:
            self._ended_before = state.ended
        self._state = state

    def _left(self, state: State) -> str:
        """Time left at the rate since the start, all processes together."""
        ended = state.ended - (self._ended_before or 0)
        left = max(0, state.expected - state.ended)
        if not left:
            return "nothing left"
        if not ended:
            return "time left: not known yet"
        seconds = (time.monotonic() - self._start) / ended * left
        return f"about {_duration(seconds)} left"

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        state = self._state
        if state is None:
            return Text(f"{self.title}: loading the tasks")
        counts = state.counts
        head = Text.assemble(
            (f"{self.title}  ", "bold"),
            f"{state.ended} of {state.expected} runs: ",
            (f"{counts['done']} done", "green"),
            ", ",
            (f"{counts['failed']} failed", "bold red" if counts["failed"] else ""),
            ", ",
            (f"{counts['diverged']} diverged", "yellow" if counts["diverged"] else ""),
            f", {counts['running']} running   ",
            f"{_duration(time.monotonic() - self._start)} gone, {self._left(state)}",
        )
        bar = ProgressBar(total=max(1, state.expected), completed=state.ended, width=72)
        best = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for one in state.best:
            best.add_row(
                f"best on {one.task}",
                f"[bold]{one.method}[/]",
                f"{one.score:.1%}",
                CRITERIA[one.criterion].description,
            )
        return Group(head, bar, best)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
