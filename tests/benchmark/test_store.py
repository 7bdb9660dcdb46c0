import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from unrote.benchmark.execution import Outcome
from unrote.benchmark.runs import Run
from unrote.benchmark.store import STALE, Store
from unrote.errors import DataError, OptionError


def run(seed: int = 0, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "kind": "method",
        "label": "toy",
        "task": {"name": "toy", "options": {}, "data": "x"},
        "model": "linear",
        "recipe": {"learning_rate": 0.1, "weight_decay": 0.0, "steps": 3},
        "evaluate_every": None,
        "method": "erm",
        "settings": {},
        "groups": "true",
        "regime": "none",
        "seed": seed,
        "order_seed": 0,
        "twins": None,
        "code": "1",
    }
    return Run(**{**values, **changes})


class TestKeys:
    def test_everything_that_decides_the_outcome_is_in_it(self) -> None:
        base = run()
        changes = [
            {"seed": 1},
            {"code": "2"},
            {"settings": {"a": 1}},
            {"recipe": {**base.recipe, "learning_rate": 0.2}},
            {"task": {**base.task, "data": "y"}},
            {"twins": "k"},
            {"regime": "val"},
            {"order_seed": None},
        ]
        keys = {run(**change).key for change in changes} | {base.key}
        assert len(keys) == len(changes) + 1

    def test_the_label_is_but_a_name(self) -> None:
        assert run(label="other").key == run().key

    def test_survives_json(self) -> None:
        assert Run.from_json(run().to_json()).key == run().key


class TestClaims:
    def test_a_run_is_claimed_once(self, tmp_path: Path) -> None:
        one, other = Store(tmp_path / "s.sqlite"), Store(tmp_path / "s.sqlite")
        assert one.claim([run(0), run(1)]) == [run(0), run(1)]
        assert other.claim([run(1), run(2)]) == [run(2)]

    def test_a_finished_run_is_never_claimed_again_nor_a_failed_one(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "s.sqlite")
        store.claim([run(0), run(1)])
        store.finish([Outcome(run(0).key, "done", {"a": 1}), Outcome(run(1).key, "failed", error="Oops: x")])
        assert Store(tmp_path / "s.sqlite").claim([run(0), run(1)]) == []
        records = store.records()
        assert records[run(0).key].result == {"a": 1}
        assert records[run(1).key].error == "Oops: x"
        assert store.forget(["failed"]) == 1
        assert store.claim([run(0), run(1)]) == [run(1)]

    def test_the_claims_of_a_killed_process_are_free_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "s.sqlite"
        code = (
            "import sys, time; sys.path.insert(0, sys.argv[2]); from unrote.benchmark.store import Store;"
            "from unrote.benchmark.runs import Run; import json;"
            "Store(sys.argv[1]).claim([Run.from_json(sys.argv[3])]); print('claimed', flush=True); time.sleep(60)"
        )
        command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent), run().to_json()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "claimed\n"
            store = Store(path)
            assert store.claim([run()]) == []
            assert store.records()[run().key].status == "running"
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert store.records() == {}
        assert store.claim([run()]) == [run()]

    def test_the_claims_of_another_machine_end_with_its_heartbeat(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "s.sqlite")
        store.claim([run()])
        store.release()
        store.owner = f"not-{socket.gethostname()}|1|1|1"
        store.claim([run()])
        other = Store(tmp_path / "s.sqlite")
        assert other.claim([run()]) == []
        with sqlite3.connect(tmp_path / "s.sqlite") as db:
            db.execute("UPDATE runs SET beat=?", (time.time() - STALE - 1,))
        assert other.claim([run()]) == [run()]

    def test_a_number_given_to_a_new_process_does_not_keep_a_claim(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "s.sqlite")
        store.owner = f"{socket.gethostname()}|{os.getpid()}|12345|1"  # this process, but not when it started
        store.claim([run()])
        assert Store(tmp_path / "s.sqlite").claim([run()]) == [run()]

    def test_what_was_lost_to_another_process_is_not_written(self, tmp_path: Path) -> None:
        one, other = Store(tmp_path / "s.sqlite"), Store(tmp_path / "s.sqlite")
        other.claim([run()])
        one.finish([Outcome(run().key, "done", {"a": 1})])
        assert one.records()[run().key].status == "running"

    def test_released_claims_are_free(self, tmp_path: Path) -> None:
        one, other = Store(tmp_path / "s.sqlite"), Store(tmp_path / "s.sqlite")
        one.claim([run()])
        one.release()
        assert other.claim([run()]) == [run()]


class TestFile:
    def test_a_file_of_something_else_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not a database, " * 100)
        with pytest.raises(DataError, match=r"cannot be used as a store .*--store"):
            Store(path)
        assert path.read_text().startswith("not a database")

    def test_another_format_is_refused(self, tmp_path: Path) -> None:
        Store(tmp_path / "s.sqlite")
        with sqlite3.connect(tmp_path / "s.sqlite") as db:
            db.execute("PRAGMA user_version=99")
        with pytest.raises(DataError, match="format 99"):
            Store(tmp_path / "s.sqlite")

    def test_specs_are_remembered(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "s.sqlite")
        with pytest.raises(OptionError, match="it has none"):
            store.spec()
        store.save_spec("a", "1")
        store.save_spec("b", "2")
        assert (store.spec(), store.spec("a")) == ("2", "1")
        with pytest.raises(OptionError, match="no benchmark c: it has b, a"):
            store.spec("c")

    def test_only_the_new_is_read_again(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "s.sqlite")
        store.claim([run(0), run(1)])
        store.finish([Outcome(run(0).key, "done", {"a": 1})])
        first = store.records()
        store.finish([Outcome(run(1).key, "done", {"a": 2})])
        second = store.records(first)
        assert second[run(0).key] is first[run(0).key]
        assert second[run(1).key].result == {"a": 2}

    def test_an_artefact_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no artefact"):
            Store(tmp_path / "s.sqlite").artefact("k")
