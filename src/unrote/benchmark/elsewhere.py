"""What a worker does that shares no memory with the process which wants the runs."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from unrote.benchmark.execution import Outcome, execute
from unrote.benchmark.runs import Run
from unrote.data import Task, load_task
from unrote.errors import DataError

LOST = 5
"""How often a job is started again because its worker was lost."""


def carry_out(
    runs: Sequence[str],
    options: Mapping[str, Any] | None,
    twins: Mapping[str, bytes],
    given: Task | None,
    cpus: int,
) -> list[Outcome]:
    """Carry out the runs of a job.

    Args:
        runs: as JSON.
        options: of the task, which is built anew; None where it is given.
        twins: artefacts by key, of those the runs use.
        given: the task, if it was given as it is.
        cpus: threads.

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
