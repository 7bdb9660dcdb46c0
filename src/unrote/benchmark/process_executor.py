"""Runs in worker processes of this machine, each on one thread.

Steps of small models are many small operations, which more threads do not make faster; several at once are. Workers
share no file: only the process that wants the runs writes to the store. They end with it, however it ends.
"""

import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection

from unrote.benchmark.elsewhere import LOST, carry_out
from unrote.benchmark.execution import Outcome
from unrote.benchmark.executors import Executor, Job
from unrote.data import Task


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ProcessExecutor(Executor):
    """Jobs in processes of their own; a script that uses it guards its start by `if __name__ == "__main__":`.

    Args:
        workers: processes at most; default one per usable core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or usable_cores()
        self._jobs: dict[Future[list[Outcome]], tuple[Job, Task, int]] = {}
        self._open()

    def _open(self) -> None:
        # spawned, as threads do not survive a fork: torch would wait for those it had
        context = get_context("spawn")
        there, self._here = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self.workers, context, _begin, (there,))

    @property
    def has_room(self) -> bool:
        """See `Executor.has_room`; a job for each worker, and one more so that none waits."""
        return len(self._jobs) <= self.workers

    def submit(self, job: Job, task: Task) -> None:
        """See `Executor.submit`. A task with a name is built again by the worker; another is sent there."""
        self._start(job, task, LOST)

    def _start(self, job: Job, task: Task, left: int) -> None:
        runs, given = [run.to_json() for run in job.runs], task if job.options is None else None
        arguments = runs, job.options, dict(job.twins), given, 1
        try:
            future = self._pool.submit(carry_out, *arguments)
        except BrokenProcessPool:  # since the last look
            self._renew()
            future = self._pool.submit(carry_out, *arguments)
        self._jobs[future] = job, task, left

    def _renew(self) -> None:
        """Start all jobs again, with new workers."""
        again = list(self._jobs.values())
        self.close()
        self._open()
        for job, task, left in again:
            self._start(job, task, left - 1)

    def finished(self, timeout: float) -> list[tuple[Job, Sequence[Outcome]]]:
        """See `Executor.finished`. A worker that was lost takes the others with it; all they had is done again."""
        if not self._jobs:
            time.sleep(min(timeout, 0.05))
            return []
        ready, _ = wait(self._jobs, timeout, return_when=FIRST_COMPLETED)
        done: list[tuple[Job, Sequence[Outcome]]] = []
        lost = False
        for future in ready:
            error, (job, _, left) = future.exception(), self._jobs[future]
            if isinstance(error, BrokenProcessPool) and left > 0:
                lost = True
                continue
            del self._jobs[future]
            text = f"{type(error).__name__}: {error}"
            failed = [Outcome(run.key, "failed", error=text) for run in job.runs]
            done.append((job, failed if error is not None else future.result()))
        if lost:
            self._renew()
        return done

    def close(self) -> None:
        """See `Executor.close`."""
        self._jobs.clear()
        self._here.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin(there: Connection) -> None:
    """What a worker does first: end when the other end of the pipe is closed, and leave Ctrl-C to the parent."""
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)
    threading.Thread(target=_end_with, args=(there,), daemon=True).start()


def _end_with(there: Connection) -> None:
    try:
        there.recv()
    except (EOFError, OSError):
        os._exit(1)
