"""Runs sent to a Ray cluster.

Each job is a Ray task that asks for the CPUs and GPUs it needs. A task whose machine is lost is started again on
another one, by Ray; what it computes does not depend on where it runs. Results come back as they end, and only the
process that submitted them writes to the store, so the machines share no file but the data sets.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from unrote.benchmark.execution import Outcome, execute
from unrote.benchmark.executors import Executor, Job
from unrote.benchmark.runs import Run
from unrote.data import Task, load_task
from unrote.errors import DataError, MissingPackageError

LOST = 5
"""How often a job is started again because its machine was lost."""


class RayExecutor(Executor):
    """Jobs as tasks of a Ray cluster.

    Args:
        address: of the cluster; None is the one of the environment, or else one on this machine.
        cpus: per job; torch uses as many threads.
        gpus: per job; fractions share a device.

    Raises:
        MissingPackageError: if Ray is not installed.
    """

    def __init__(self, address: str | None = None, cpus: int = 1, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingPackageError(
                "--executor ray needs Ray, which is not installed: pip install 'unrote[ray]'"
            ) from error
        self._ray: Any = ray
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        self.cpus, self.gpus = cpus, gpus
        self._remote = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=LOST,
            retry_exceptions=False,
            scheduling_strategy="SPREAD",
        )(_carry_out)
        self._jobs: dict[Any, tuple[Job, Any, int]] = {}
        self._given: dict[str, Any] = {}

    @property
    def has_room(self) -> bool:
        """See `Executor.has_room`; a job for each share of the cluster, and one more so that none waits."""
        total = self._ray.cluster_resources()
        slots = total.get("CPU", 1.0) / self.cpus
        if self.gpus:
            slots = min(slots, total.get("GPU", 0.0) / self.gpus)
        return len(self._jobs) < max(1, int(slots)) + 1

    def submit(self, job: Job, task: Task) -> None:
        """See `Executor.submit`. A task with a name is built again where the job runs; another is sent there."""
        given = None
        if job.options is None:
            label = job.runs[0].label
            if label not in self._given:
                self._given[label] = self._ray.put(task)
            given = self._given[label]
        self._start(job, given, LOST)

    def _start(self, job: Job, given: Any, left: int) -> None:
        runs = [run.to_json() for run in job.runs]
        # the object itself stands among the arguments, where Ray puts the task in its place
        reference = self._remote.remote(runs, job.options, dict(job.twins), given, self.cpus)
        self._jobs[reference] = job, given, left

    def finished(self, timeout: float) -> list[tuple[Job, Sequence[Outcome]]]:
        """See `Executor.finished`. A machine lost while its result was on it costs one more try."""
        if not self._jobs:
            time.sleep(min(timeout, 0.05))
            return []
        ready, _ = self._ray.wait(list(self._jobs), num_returns=1, timeout=timeout)
        done = []
        for reference in ready:
            job, given, left = self._jobs.pop(reference)
            try:
                done.append((job, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                lost = not isinstance(error, self._ray.exceptions.RayTaskError)
                if lost and left > 0:
                    self._start(job, given, left - 1)
                    continue
                text = f"{type(error).__name__}: {error}"
                done.append((job, [Outcome(run.key, "failed", error=text) for run in job.runs]))
        return done

    def close(self) -> None:
        """See `Executor.close`; leaves a cluster that was there before as it is."""
        for reference in self._jobs:
            self._ray.cancel(reference, force=True)
        self._jobs.clear()
        if self._started:
            self._ray.shutdown()


def _carry_out(
    runs: Sequence[str],
    options: Mapping[str, Any] | None,
    twins: Mapping[str, bytes],
    given: Task | None,
    cpus: int,
) -> list[Outcome]:
    """What a worker does.

    Raises:
        DataError: if the task has other examples here than where the benchmark was started.
    """
    import torch

    torch.set_num_threads(max(1, cpus))
    made = [Run.from_json(text) for text in runs]
    first = made[0]
    task = given
    if task is None:
        task = _loaded(
            str(first.task["name"]), repr(sorted((options or {}).items())), _Options(options or {})
        )
        if task.fingerprint() != first.task["data"]:
            raise DataError(
                f"task {first.label!r} has other examples on this machine than where the benchmark was started: "
                "all machines must read the same data"
            )
    return execute(made, task, twins)


class _Options(dict[str, Any]):
    """Options that a cache can hold beside their text, which tells them apart."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0

    def __eq__(self, other: object) -> bool:
        return True


@lru_cache(maxsize=4)
def _loaded(name: str, text: str, options: _Options) -> Task:
    """A task, kept between the jobs of a worker."""
    return load_task(name, **options)
