"""The protocol from end to end on a small task: what runs, what is kept, and what a kill loses."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import benchmark_process
import pytest
import torch
from benchmark_toys import shortcut_task, small_spec

from unrote.benchmark import Store, build_tables, run_benchmark
from unrote.benchmark import executors as executors_module
from unrote.benchmark.execution import execute
from unrote.benchmark.formats import as_json
from unrote.benchmark.protocol import Protocol
from unrote.benchmark.tables import Table
from unrote.errors import OptionError

TASK = shortcut_task()


def go(path: Path, **changes: Any) -> Table:
    store = Store(path)
    run_benchmark(small_spec(**changes), store, tasks={"toy": TASK})
    return build_tables(store)


def numbers(table: Table) -> list[Any]:
    """All that a table says but the time it took."""
    return [
        (row.method, row.regime, row.configuration, row.values, row.steps)
        for t in table.tasks
        for row in t.rows
    ]


class TestProtocol:
    def test_runs_everything_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done: Counter[str] = Counter()

        def counted(runs: Any, *rest: Any) -> Any:
            done.update(run.key for run in runs)
            return execute(runs, *rest)

        monkeypatch.setattr(executors_module, "execute", counted)
        store = Store(tmp_path / "s.sqlite")
        first = run_benchmark(small_spec(), store, tasks={"toy": TASK})
        assert first.complete
        assert first.mine == len(done) == sum(done.values()) == first.counts["done"]
        # 3 twins, 2 more seeds of the best; 2 x 3 searched; re-runs of up to 3 choices of each
        assert 11 + 4 <= first.mine <= 11 + 12
        again = run_benchmark(small_spec(), store, tasks={"toy": TASK})
        assert (again.mine, again.complete) == (0, True)
        assert max(done.values()) == 1

    @pytest.mark.parametrize("held_out", ["auto", "xrm"])
    def test_held_out_predictions_are_of_the_twins_that_were_searched(
        self, held_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def noted(runs: Any, *rest: Any) -> Any:
            seen.extend(runs)
            return execute(runs, *rest)

        monkeypatch.setattr(executors_module, "execute", noted)
        mat = {"name": "mat", "settings": {"temperature": 0.1, "held_out": held_out}}
        # nobody's groups have to be inferred
        go(tmp_path / "s.sqlite", methods=[mat], criteria={"val": ["worst_group"]}, oracle=False)
        twins = {run.key for run in seen if run.kind == "twins"}
        assert len(twins) == 5
        assert {run.twins for run in seen if run.kind == "method"} <= twins

    def test_more_seeds_keep_what_is_there(self, tmp_path: Path) -> None:
        few = go(tmp_path / "s.sqlite")
        store = Store(tmp_path / "s.sqlite")
        summary = run_benchmark(small_spec(seeds=3), store, tasks={"toy": TASK})
        assert 0 < summary.mine <= 1 + 2 * 3  # the third seed of the twins and of each choice
        more = build_tables(store)
        for row, other in zip(few.tasks[0].rows, more.tasks[0].rows, strict=True):
            assert other.values["worst_group"][:2] == row.values["worst_group"]

    def test_a_table_of_one_stack_is_that_of_runs_one_by_one(self, tmp_path: Path) -> None:
        assert numbers(go(tmp_path / "a.sqlite")) == numbers(go(tmp_path / "b.sqlite", stack=1))

    def test_an_order_of_its_own_for_each_run(self, tmp_path: Path) -> None:
        protocol_runs = []
        store = Store(tmp_path / "s.sqlite")
        run_benchmark(small_spec(shared_order=False), store, tasks={"toy": TASK})
        protocol = Protocol.read(store)
        for method in protocol.spec.methods:
            protocol_runs += [r for s in protocol.selections("toy", method, store.records()) for r in s.tried]
        assert {run.order_seed for run in protocol_runs} == {None}

    def test_the_budget_ends_it(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "s.sqlite")
        summary = run_benchmark(small_spec(budget_minutes=1e-9), store, tasks={"toy": TASK})
        assert not summary.complete
        assert summary.mine == 0
        assert "not finished" in {row.note for row in build_tables(store).tasks[0].rows}

    def test_a_task_without_validation_split(self, tmp_path: Path) -> None:
        store, bare = Store(tmp_path / "s.sqlite"), replace(TASK, validation=None)
        with pytest.raises(OptionError, match="'toy' has no validation split"):
            run_benchmark(small_spec(), store, tasks={"toy": bare})

    def test_a_task_without_group_labels(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "s.sqlite")
        blind = shortcut_task(attributes=False)
        criteria = {"none": ["worst_group_inferred", "worst_class"]}
        run_benchmark(small_spec(criteria=criteria), store, tasks={"toy": blind})
        rows = build_tables(store).tasks[0].rows
        assert {row.criterion for row in rows} == {"worst_group_inferred", "worst_class"}
        assert all(row.spread("worst_group") is None for row in rows)
        assert all(row.spread("worst_class") is not None for row in rows)


class TestTrouble:
    def test_a_run_that_fails_is_kept_with_its_error_and_stops_no_other(self, tmp_path: Path) -> None:
        # a value that ResMem refuses, which a spec that is read from a file would not get past its checks
        methods = [{"name": "erm"}, {"name": "resmem", "search": {"neighbours": [5, 0]}}]
        store = Store(tmp_path / "s.sqlite")
        summary = run_benchmark(small_spec(methods=methods, search=6), store, tasks={"toy": TASK})
        assert summary.complete
        assert summary.counts["failed"] > 0
        failed = [record for record in store.records().values() if record.status == "failed"]
        assert all("neighbours" in (record.error or "") for record in failed)
        rows = {(row.method, row.regime): row for row in build_tables(store).tasks[0].rows}
        assert rows["erm", "val"].spread("worst_group") is not None
        assert rows["resmem", "val"].lost == len({r.key for r in failed})
        assert rows["resmem", "val"].spread("worst_group") is not None

    def test_one_that_spoils_a_stack_does_not_take_its_neighbours_along(self, tmp_path: Path) -> None:
        # learning rates that leave the finite numbers, next to one that does not
        recipe = {"optimizer": "sgd", "learning_rate": [0.05, 1e38], "batch_size": 32, "steps": 12}
        tasks = [{"name": "toy", "model": "linear", "recipe": recipe}]
        store = Store(tmp_path / "s.sqlite")
        run_benchmark(small_spec(tasks=tasks, methods=["erm"], search=6), store, tasks={"toy": TASK})
        table = build_tables(store)
        row = next(row for row in table.tasks[0].rows if row.regime == "val")
        assert row.tried == 2
        assert row.lost == 1
        assert row.configuration is not None
        assert row.configuration["learning_rate"] == 0.05
        assert {r.status for r in store.records().values()} == {"done", "diverged"}

    def test_when_all_diverge_the_table_says_so(self, tmp_path: Path) -> None:
        recipe = {"optimizer": "sgd", "learning_rate": 1e38, "batch_size": 32, "steps": 12}
        tasks = [{"name": "toy", "model": "linear", "recipe": recipe}]
        spec = small_spec(tasks=tasks, methods=["erm"], criteria={"val": ["worst_group"]})
        store = Store(tmp_path / "s.sqlite")
        run_benchmark(spec, store, tasks={"toy": TASK})
        row = build_tables(store).tasks[0].rows[0]
        assert (row.diverged, row.spread("worst_group")) == (2, None)
        assert "infinite" in row.note

    def test_an_optional_task_that_cannot_be_had(self, tmp_path: Path) -> None:
        tasks = [
            {"name": "toy", "model": "linear", "recipe": {"steps": 4}},
            {"name": "fashion", "options": {"path": str(tmp_path / "nothing")}, "optional": True},
        ]
        store = Store(tmp_path / "s.sqlite")
        summary = run_benchmark(small_spec(tasks=tasks, methods=["erm"]), store, tasks={"toy": TASK})
        assert summary.complete
        assert "nothing" in summary.missing["fashion"]
        assert "nothing" in build_tables(store).missing["fashion"]


def start(store: Path, log: Path, pause: float) -> "subprocess.Popen[str]":
    command = [sys.executable, benchmark_process.__file__, str(store), str(log), str(pause)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True)


def read_log(log: Path) -> list[tuple[str, str]]:
    """(process, key) of every run begun, in order."""
    return [tuple(line.split()) for line in log.read_text().splitlines()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The numbers of one process that nothing befalls."""
    torch.set_num_threads(1)
    return numbers(go(tmp_path_factory.mktemp("alone") / "s.sqlite", stack=1))


def test_two_processes_on_one_store_do_no_run_twice(tmp_path: Path, wanted: list[Any]) -> None:
    log, store = tmp_path / "log", tmp_path / "s.sqlite"
    processes = [start(store, log, pause=0.05) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    begun = read_log(log)
    assert max(Counter(key for _, key in begun).values()) == 1
    assert len({pid for pid, _ in begun}) == 2, "both had work"
    assert numbers(build_tables(Store(store))) == wanted


def test_kill_9_loses_the_runs_in_flight_and_nothing_else(
    tmp_path: Path, wanted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, store = tmp_path / "log", tmp_path / "s.sqlite"
    chance, kills = random.Random(os.getpid()), 0
    for _ in range(3):
        process = start(store, log, pause=0.05)
        before = len(read_log(log)) if log.exists() else 0
        deadline = time.monotonic() + 60
        while not log.exists() or len(read_log(log)) < before + 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        finished = {key for key, record in Store(store).records().items() if record.final}
        begun = {key for _, key in read_log(log)}
        assert len(begun - finished) <= 1, "one run was in flight"
    assert kills == 3
    monkeypatch.setattr(executors_module, "execute", execute)  # in whose place the script puts its own
    benchmark_process.main(str(store), str(log), 0.0)
    repeated = [key for key, n in Counter(key for _, key in read_log(log)).items() if n > 1]
    assert len(repeated) <= kills
    assert numbers(build_tables(Store(store))) == wanted


def test_the_json_of_a_table_has_no_nan(tmp_path: Path) -> None:
    assert "NaN" not in as_json(go(tmp_path / "s.sqlite", methods=["erm"]))
