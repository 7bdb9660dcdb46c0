"""Where runs are carried out: in this process, or elsewhere behind the same three calls."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unrote.benchmark.execution import Outcome, execute
from unrote.benchmark.runs import Run
from unrote.data import Task


@dataclass(frozen=True)
class Job:
    """Runs that are carried out together.

    Args:
        runs: of the same neighbours.
        options: of the task, for a machine that builds it anew; None where it was given as it is.
        twins: artefacts by key, of those the runs use.
    """

    runs: tuple[Run, ...]
    options: Mapping[str, Any] | None
    twins: Mapping[str, bytes]


class Executor(ABC):
    """Carries out jobs."""

    @property
    @abstractmethod
    def has_room(self) -> bool:
        """Whether another job would start soon."""

    @abstractmethod
    def submit(self, job: Job, task: Task) -> None:
        """Take on a job."""

    @abstractmethod
    def finished(self, timeout: float) -> list[tuple[Job, Sequence[Outcome]]]:
        """Jobs that have ended since the last call; waits for one, up to `timeout` seconds."""

    @abstractmethod
    def close(self) -> None:
        """Give up what is still under way."""


class LocalExecutor(Executor):
    """One job at a time, in this process."""

    def __init__(self) -> None:
        self._waiting: tuple[Job, Task] | None = None

    @property
    def has_room(self) -> bool:
        """See `Executor.has_room`."""
        return self._waiting is None

    def submit(self, job: Job, task: Task) -> None:
        """See `Executor.submit`; the work is done when `finished` asks for it."""
        self._waiting = job, task

    def finished(self, timeout: float) -> list[tuple[Job, Sequence[Outcome]]]:
        """See `Executor.finished`; does the work, however long it takes."""
        if self._waiting is None:
            return []
        (job, task), self._waiting = self._waiting, None
        return [(job, execute(job.runs, task, job.twins))]

    def close(self) -> None:
        """See `Executor.close`."""
        self._waiting = None
