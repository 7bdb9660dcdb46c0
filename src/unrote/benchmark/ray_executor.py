"""Runs sent to a Ray cluster.

Each job is a Ray task that asks for the CPUs and GPUs it needs. A task whose machine is lost is started again on
another one, by Ray; what it computes does not depend on where it runs. Results come back as they end, and only the
process that submitted them writes to the store, so the machines share no file but the data sets.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

from unrote.benchmark.elsewhere import LOST, carry_out
from unrote.benchmark.execution import Outcome
from unrote.benchmark.executors import Executor, Job
from unrote.data import Task
from unrote.errors import MissingPackageError


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
        )(carry_out)
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
