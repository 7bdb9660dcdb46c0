"""The results: one SQLite file, a row per run, that any number of processes on one machine work on at once.

A run is claimed before it is carried out, in one transaction, so that no two processes do the same one. A claim
holds for as long as its process lives: one that was killed leaves claims that the next process takes over at once,
and one on another machine, whose processes cannot be seen from here, loses them when its heartbeat stops. Results
are written whole or not at all, so a kill at any moment loses the runs in flight and nothing else.
"""

import json
import os
import platform
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from unrote.benchmark.execution import Outcome, dump_outcome
from unrote.benchmark.runs import Run
from unrote.errors import DataError, OptionError
from unrote.selection import Counts, Trial

FORMAT = 1
"""Raised whenever older readers would misread what is written."""

RunStatus = Literal["running", "done", "diverged", "failed"]

HEARTBEAT = 10.0
"""Seconds between signs of life of a process with claims."""

STALE = 120.0
"""Seconds without a sign of life after which the claims of a process on another machine are free."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY, config TEXT NOT NULL, status TEXT NOT NULL, owner TEXT NOT NULL, beat REAL NOT NULL,
    started REAL NOT NULL, finished REAL, seconds REAL, result TEXT, error TEXT, artefact BLOB, environment TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS specs (name TEXT PRIMARY KEY, content TEXT NOT NULL, saved REAL NOT NULL);
"""


@dataclass(frozen=True)
class Record:
    """What the store knows of a run.

    Args:
        key: of the run.
        status: "running" as well as what an `Outcome` has.
        result: see `Outcome`.
        error: likewise.
        seconds: likewise; None while it runs.
    """

    key: str
    status: RunStatus
    result: dict[str, Any] | None
    error: str | None
    seconds: float | None

    @property
    def final(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status != "running"

    @cached_property
    def trial(self) -> Trial:
        """What selection sees of it: its looks, as counts."""
        if self.result is None or "right" not in self.result:
            return Trial((), diverged=True)
        right, n = self.result["right"], self.result["n"]
        looks = [
            {name: Counts(tuple(rows[k]), tuple(n[name])) for name, rows in right.items()}
            for k in range(len(self.result["steps"]))
        ]
        return Trial(looks, diverged=self.status != "done")


class Store:
    """The results of benchmarks.

    Args:
        path: of the file; made, with its folder, if it is not there.

    Raises:
        DataError: if the file is not a store, cannot be opened, or has another format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.owner = f"{socket.gethostname()}|{os.getpid()}|{_started(os.getpid())}|{time.time_ns()}"
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._connect() as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(_SCHEMA)
                (found,) = db.execute("PRAGMA user_version").fetchone()
                if found not in (0, FORMAT):
                    raise DataError(
                        f"store {self.path} has format {found}, this version of unrote reads format {FORMAT}: "
                        "choose another file with --store"
                    )
                db.execute(f"PRAGMA user_version={FORMAT}")
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"{self.path} cannot be used as a store of results ({error}): choose another file with --store"
            ) from error

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=60.0, isolation_level=None)) as db:
            yield db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write that happens whole or not at all; others wait for it."""
        with self._connect() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def claim(self, runs: Sequence[Run]) -> list[Run]:
        """Claim what of some runs is neither finished nor another living process's; the rest is left alone."""
        now, mine = time.time(), []
        with self._transaction() as db:
            for run in runs:
                row = db.execute("SELECT status, owner, beat FROM runs WHERE key=?", (run.key,)).fetchone()
                if row is not None and (row[0] != "running" or _alive(row[1], row[2], now)):
                    continue
                db.execute(
                    "INSERT OR REPLACE INTO runs (key, config, status, owner, beat, started) VALUES (?,?,?,?,?,?)",
                    (run.key, run.to_json(), "running", self.owner, now, now),
                )
                mine.append(run)
        if mine:
            self._start_heart()
        return mine

    def finish(self, outcomes: Iterable[Outcome]) -> None:
        """Write outcomes of runs that this process has claimed, all in one transaction."""
        now = time.time()
        with self._transaction() as db:
            for one in outcomes:
                db.execute(
                    "UPDATE runs SET status=?, finished=?, seconds=?, result=?, error=?, artefact=?, environment=?"
                    " WHERE key=? AND owner=?",
                    (
                        one.status,
                        now,
                        one.seconds,
                        dump_outcome(one),
                        one.error,
                        one.artefact,
                        environment(),
                        one.key,
                        self.owner,
                    ),
                )

    def release(self) -> None:
        """Give up this process's claims, so that others need not wait to see that it is gone."""
        self._stop.set()
        with self._transaction() as db:
            db.execute("DELETE FROM runs WHERE status='running' AND owner=?", (self.owner,))

    def forget(self, statuses: Sequence[str]) -> int:
        """Delete finished runs of some statuses, so that they are done again; how many."""
        with self._transaction() as db:
            marks = ",".join("?" * len(statuses))
            return db.execute(f"DELETE FROM runs WHERE status IN ({marks})", tuple(statuses)).rowcount

    def records(self, known: Mapping[str, Record] | None = None) -> dict[str, Record]:
        """Everything there is, by key. Claims of processes that died are left out.

        Args:
            known: what was read before; finished runs among it are not read again.
        """
        ended = {key: record for key, record in (known or {}).items() if record.final}
        with self._connect() as db:
            statuses = db.execute("SELECT key, status, owner, beat FROM runs").fetchall()
            present = {row[0] for row in statuses}
            found = {key: record for key, record in ended.items() if key in present}
            now = time.time()
            for key, status, owner, beat in statuses:
                if status == "running":
                    if _alive(owner, beat, now):
                        found[key] = Record(key, "running", None, None, None)
                elif key not in found:
                    row = db.execute(
                        "SELECT status, result, error, seconds FROM runs WHERE key=?", (key,)
                    ).fetchone()
                    found[key] = Record(key, row[0], json.loads(row[1]) if row[1] else None, row[2], row[3])
        return found

    def artefact(self, key: str) -> bytes:
        """What a finished run left for others.

        Raises:
            DataError: if it left nothing.
        """
        with self._connect() as db:
            row = db.execute("SELECT artefact FROM runs WHERE key=?", (key,)).fetchone()
        if row is None or row[0] is None:
            raise DataError(f"store {self.path} has no artefact of run {key}: delete the file to start again")
        return bytes(row[0])

    def save_spec(self, name: str, content: str) -> None:
        """Remember what was run, so that its table can be made without the file it came from.

        Args:
            name: of the spec.
            content: whatever `spec` is to give back.
        """
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO specs VALUES (?,?,?)", (name, content, time.time()))

    def spec(self, name: str | None = None) -> str:
        """The content of a spec that was run here; of the last one, if no name is given.

        Raises:
            OptionError: if there is none.
        """
        with self._connect() as db:
            rows = db.execute("SELECT name, content FROM specs ORDER BY saved DESC").fetchall()
        for found, content in rows:
            if name in (None, found):
                return str(content)
        known = ", ".join(row[0] for row in rows) or "none"
        raise OptionError(
            f"store {self.path} has no benchmark {name or ''}: it has {known}; run one with `unrote bench run`"
        )

    def _start_heart(self) -> None:
        if self._heart is None or not self._heart.is_alive():
            self._stop.clear()
            self._heart = threading.Thread(target=self._beat, daemon=True)
            self._heart.start()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                with self._transaction() as db:
                    db.execute(
                        "UPDATE runs SET beat=? WHERE status='running' AND owner=?", (time.time(), self.owner)
                    )
            except sqlite3.Error:
                continue  # busy or full: the next beat may do, and a late one costs a run at worst


def _started(pid: int) -> str:
    """When a process started, as the system counts it: a number is given to a new process some time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(owner: str, beat: float, now: float) -> bool:
    """Whether the process that claimed a run still lives, as far as can be told from here."""
    host, pid, started, _ = owner.split("|")
    if host != socket.gethostname():
        return now - beat < STALE
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, and there
    return not started or (_started(int(pid)) == started and not _is_zombie(int(pid)))


def _is_zombie(pid: int) -> bool:
    """Whether a process was killed and its parent has not noticed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (OSError, IndexError):
        return False


@cache
def environment() -> str:
    """What a run ran on, as JSON."""
    import torch

    return json.dumps(
        {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "system": platform.system(),
            "threads": torch.get_num_threads(),
        }
    )
