"""Worker processes on this machine: of which one is killed, or which lose the process that wanted the runs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_toys import shortcut_task, small_spec

from unrote.benchmark import Store, build_tables, run_benchmark
from unrote.benchmark.process_executor import ProcessExecutor, usable_cores
from unrote.benchmark.spec import Spec

RECIPE = {"learning_rate": {"low": 1e-2, "high": 1e-1, "log": True}, "steps": 40}
CHANGES: dict[str, Any] = {
    # a task that workers build by name, in jobs of one run each
    "tasks": [{"name": "digits", "model": "linear", "recipe": RECIPE}],
    "stack": 1,
    "search": 2,
    "evaluate_every": 20,
}


def spec(**changes: Any) -> Spec:
    return small_spec(**{**CHANGES, **changes})


def table(store: Store) -> list[Any]:
    """All that a table says but the time it took."""
    return [(row.values, row.steps, row.configuration) for row in build_tables(store).tasks[0].rows]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The table of this process alone."""
    torch.set_num_threads(1)
    store = Store(tmp_path_factory.mktemp("local") / "s.sqlite")
    run_benchmark(spec(), store)
    return table(store)


def test_a_killed_worker_changes_nothing_in_the_table(tmp_path: Path, wanted: list[Any]) -> None:
    store, killed = Store(tmp_path / "s.sqlite"), []

    def kill_a_worker() -> None:
        while sum(record.final for record in store.records().values()) < 3:
            time.sleep(0.02)
        child = multiprocessing.active_children()[0]
        os.kill(child.pid or 0, signal.SIGKILL)
        killed.append(len(store.records()))

    thread = threading.Thread(target=kill_a_worker)
    thread.start()
    summary = run_benchmark(spec(), store, executor=ProcessExecutor(2))
    thread.join(timeout=60)
    assert summary.complete
    assert summary.counts["failed"] == 0
    assert killed[0] < summary.mine, "it was killed in mid-sweep"
    assert table(store) == wanted


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are read off /proc")
def test_workers_end_with_the_process_that_wants_the_runs(tmp_path: Path, wanted: list[Any]) -> None:
    path = tmp_path / "spec.json"
    path.write_text(spec().model_dump_json())
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\n"
        "from unrote.benchmark import Spec, Store, run_benchmark\n"
        "from unrote.benchmark.process_executor import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        "    spec = Spec.model_validate_json(open(sys.argv[1]).read())\n"
        "    run_benchmark(spec, Store(sys.argv[2]), executor=ProcessExecutor(2))\n"
    )
    store = tmp_path / "s.sqlite"
    command = [sys.executable, str(script), str(path), str(store)]
    with subprocess.Popen(command) as process:
        while not store.exists() or not any(record.final for record in Store(store).records().values()):
            assert process.poll() is None
            time.sleep(0.02)
        workers = children(process.pid)
        process.kill()
    assert len(workers) >= 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "workers outlive the process that started them"
        time.sleep(0.05)
    run_benchmark(spec(), Store(store))
    assert table(Store(store)) == wanted


def test_a_task_of_ones_own_is_sent_to_the_workers(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    stores = [Store(tmp_path / f"{name}.sqlite") for name in ("here", "there")]
    for store, executor in zip(stores, (None, ProcessExecutor(1)), strict=True):
        run_benchmark(small_spec(), store, tasks={"toy": shortcut_task()}, executor=executor)
    assert table(stores[0]) == table(stores[1])


def test_one_worker_per_core_by_default() -> None:
    executor = ProcessExecutor()
    assert executor.workers == usable_cores() >= 1
    executor.close()
