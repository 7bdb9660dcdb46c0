"""Checkpoints: runs killed with SIGKILL end as unbroken ones do, and nothing damaged or foreign is taken."""

import errno
import json
import math
import os
import re
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from toys import assert_same_bits, clusters

from unrote.checkpoint import FORMAT, Checkpoint, Checkpoints, write_atomically
from unrote.errors import CheckpointError, OptionError
from unrote.models import StackedLinear, StackedMLP
from unrote.supervision import Supervision
from unrote.training import EarlyStopping, Recipe, Supervised, TrainingResult, train

IDENTITY = {"task": "digits", "seed": 3, "recipe": {"rates": (0.1, 0.2)}}
TENSORS = {"stack/weight": torch.arange(6.0).view(2, 3), "run/count": torch.tensor(7)}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(folder: Path, *steps: int, **options: Any) -> Checkpoints:
    checkpoints = Checkpoints(folder, IDENTITY, **options)
    for step in steps:
        checkpoints.save(step, TENSORS, {"history": [step]})
    return checkpoints


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs to kill are forked")
@pytest.mark.parametrize("scenario", ["erm", "xrm_mat", "cnn", "early_stopping"])
def test_killed_runs_end_with_the_bits_of_an_unbroken_one(scenario: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_runs.py")
    seed = int.from_bytes(os.urandom(4), "big")  # other moments each time
    command = [sys.executable, str(script), scenario, str(tmp_path), str(seed), "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert int(done.stdout) == 20, f"seed {seed}"
    unbroken, broken = (load_file(tmp_path / f"{name}.safetensors") for name in ("unbroken", "broken"))
    assert_same_bits(broken, unbroken)


class TestSaved:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        tensors=st.dictionaries(
            st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1),
            st.tuples(
                st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.float16]),
                st.lists(st.integers(0, 3), max_size=3),
            ),
        ),
        record=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
        step=st.integers(0, 10**10),
    )
    def test_comes_back_as_it_was(
        self, tmp_path_factory: Any, tensors: dict[str, Any], record: Any, step: int
    ) -> None:
        folder = tmp_path_factory.mktemp("checkpoints")
        made = {
            name: torch.from_numpy(np.random.default_rng(k).normal(size=shape)).to(dtype)
            for k, (name, (dtype, shape)) in enumerate(tensors.items())
        }
        Checkpoints(folder, IDENTITY).save(step, made, {"history": record})
        found = Checkpoints(folder, IDENTITY).latest()
        assert found is not None
        assert found.step == step
        assert found.record == {"history": record}
        assert_same_bits(found.tensors, made)

    def test_numbers_that_are_not_finite_and_views(self, tmp_path: Path) -> None:
        values = torch.tensor([[math.nan, math.inf], [-math.inf, -0.0]])
        Checkpoints(tmp_path, {}).save(1, {"turned": values.T, "column": values[:, 1]}, {})
        found = Checkpoints(tmp_path, {}).latest()
        assert found is not None
        assert_same_bits(
            found.tensors, {"turned": values.T.contiguous(), "column": values[:, 1].contiguous()}
        )

    def test_newest_is_taken(self, tmp_path: Path) -> None:
        found = fill(tmp_path, 9, 10, 100, keep=5).latest()  # 9 sorts last as text
        assert found is not None
        assert found.step == 100

    def test_none_at_all(self, tmp_path: Path) -> None:
        assert Checkpoints(tmp_path / "nothing", IDENTITY).latest() is None
        assert Checkpoints(tmp_path, IDENTITY).latest() is None
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("keep", [1, 2, 3])
    def test_only_the_newest_are_kept(self, tmp_path: Path, keep: int) -> None:
        fill(tmp_path, 1, 2, 3, 4, keep=keep)
        steps = [f"step-{step:09d}" for step in (1, 2, 3, 4)[-keep:]]
        assert sorted(contents(tmp_path)) == [
            f"{s}.{kind}" for s in steps for kind in ("json", "safetensors")
        ]

    def test_partial_and_unfinished_files_are_passed_over(self, tmp_path: Path) -> None:
        checkpoints = fill(tmp_path, 1)
        (tmp_path / ".step-000000002.json.123.partial").write_bytes(b"{")
        (tmp_path / ".step-000000002.safetensors.123.partial").write_bytes(b"half")
        (tmp_path / "step-000000003.safetensors").write_bytes(b"tensors without their record")
        (tmp_path / "step-final.json").write_bytes(b"another's")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = checkpoints.latest()
        assert found is not None
        assert found.step == 1

    def test_due(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoints = Checkpoints(tmp_path, {}, every=4)
        assert [step for step in range(1, 13) if checkpoints.due(step)] == [4, 8, 12]
        now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: now)
        by_clock = Checkpoints(tmp_path, {})
        by_clock.save(1, {}, {})
        now += 29
        assert not by_clock.due(1)
        now += 2
        assert by_clock.due(2)
        by_clock.save(2, {}, {})
        assert not by_clock.due(3)

    @pytest.mark.parametrize("options", [{"every": 0}, {"every": -1}, {"keep": 0}])
    def test_refuses_to_save_never(self, tmp_path: Path, options: dict[str, int]) -> None:
        with pytest.raises(OptionError, match="at least 1"):
            Checkpoints(tmp_path, {}, **options)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def change(**entries: Any) -> Callable[[Path], None]:
    """Write other entries into a record."""

    def changed(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return changed


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "truncated tensors": ("safetensors", truncate),
    "empty tensors": ("safetensors", lambda path: path.write_bytes(b"") and None),
    "garbage for tensors": ("safetensors", garbage),
    "a flipped bit": ("safetensors", flip_a_bit),
    "no tensors": ("safetensors", Path.unlink),
    "truncated record": ("json", truncate),
    "empty record": ("json", lambda path: path.write_bytes(b"") and None),
    "garbage for a record": ("json", garbage),
    "a record that is a list": ("json", lambda path: path.write_text("[1, 2]") and None),
    "a record without entries": ("json", lambda path: path.write_text("{}") and None),
    "an identity that is a list": ("json", change(identity=["digits"])),
    "an identity that is text": ("json", change(identity="digits")),
    "a step that is no number": ("json", change(step="soon")),
}


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("damage", DAMAGES)
class TestDamaged:
    def damaged(self, folder: Path, damage: str) -> dict[str, bytes]:
        """Damage the newest checkpoint; the files as they then are."""
        kind, harm = DAMAGES[damage]
        harm(sorted(folder.glob(f"*.{kind}"))[-1])
        return contents(folder)

    def test_newest_falls_back_to_the_one_before(self, tmp_path: Path, damage: str) -> None:
        checkpoints = fill(tmp_path, 5, 6)
        before = self.damaged(tmp_path, damage)
        with pytest.warns(UserWarning, match=r"step-000000006.*going on from step 5 instead"):
            found = checkpoints.latest()
        assert found is not None
        assert found.step == 5
        assert_same_bits(found.tensors, TENSORS)
        assert contents(tmp_path) == before

    def test_only_one_is_an_error(self, tmp_path: Path, damage: str) -> None:
        checkpoints = fill(tmp_path, 5)
        before = self.damaged(tmp_path, damage)
        with pytest.raises(CheckpointError, match="step-000000005"):
            checkpoints.latest()
        assert contents(tmp_path) == before


class TestForeign:
    def test_another_format_names_both(self, tmp_path: Path) -> None:
        checkpoints = fill(tmp_path, 5)
        change(format=FORMAT + 1, version="9.9")(tmp_path / "step-000000005.json")
        before = contents(tmp_path)
        message = rf"has format {FORMAT + 1}.*reads format {FORMAT}.*unrote 9\.9"
        with pytest.raises(CheckpointError, match=message):
            checkpoints.latest()
        assert contents(tmp_path) == before

    @pytest.mark.parametrize(
        ("identity", "message"),
        [
            ({**IDENTITY, "task": "fashion"}, "task: 'digits' there, 'fashion' here"),
            ({**IDENTITY, "seed": 4}, "seed: 3 there, 4 here"),
            ({**IDENTITY, "recipe": {"rates": (0.1, 0.3)}}, "recipe: .*0.2.* there, .*0.3.* here"),
            ({**IDENTITY, "method": "mat"}, "method: None there, 'mat' here"),
            ({"task": "fashion", "seed": 4}, r"recipe.*; seed: .*; task: "),
        ],
    )
    def test_another_run_names_what_differs(
        self, tmp_path: Path, identity: dict[str, Any], message: str
    ) -> None:
        fill(tmp_path, 4, 5)
        before = contents(tmp_path)
        with pytest.raises(CheckpointError, match=f"belongs to another run.*{message}"):
            Checkpoints(tmp_path, identity).latest()
        assert contents(tmp_path) == before

    def test_tuples_in_an_identity_are_the_lists_they_became(self, tmp_path: Path) -> None:
        fill(tmp_path, 5)
        assert Checkpoints(tmp_path, {**IDENTITY, "recipe": {"rates": [0.1, 0.2]}}).latest() is not None


@contextmanager
def disk_full_beyond(size: int) -> Iterator[None]:
    """Writing past `size` bytes of a file fails, as it does when a disk fills up in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestCannotWrite:
    def fails(self, checkpoints: Checkpoints, tensors: dict[str, Tensor], message: str) -> None:
        """Saving step 6 after step 5 is an error that leaves step 5 as the newest, and nothing half written."""
        before = contents(checkpoints.folder)
        with pytest.raises(CheckpointError, match=f"cannot write a checkpoint to .*{message}.*intact"):
            checkpoints.save(6, tensors, {"history": []})
        after = contents(checkpoints.folder)
        assert {name: after[name] for name in before} == before
        assert not any("partial" in name or name.endswith("6.json") for name in after)
        found = checkpoints.latest()
        assert found is not None
        assert found.step == 5

    def test_disk_that_is_full_at_the_tensors(self, tmp_path: Path) -> None:
        checkpoints = fill(tmp_path, 5)
        with disk_full_beyond(4096):
            self.fails(checkpoints, {"large": torch.zeros(10_000)}, re.escape(os.strerror(errno.EFBIG)))

    def test_disk_that_is_full_at_the_record(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoints = fill(tmp_path, 5)
        replace = Path.replace

        def full(self: Path, target: Path) -> Path:
            if target.suffix == ".json":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", full)
        self.fails(checkpoints, TENSORS, re.escape(os.strerror(errno.ENOSPC)))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_folder_without_permission(self, tmp_path: Path) -> None:
        checkpoints = fill(tmp_path, 5)
        tmp_path.chmod(0o500)
        try:
            self.fails(checkpoints, TENSORS, "Permission denied")
        finally:
            tmp_path.chmod(0o700)

    def test_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("mine")
        for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
            checkpoints = Checkpoints(folder, IDENTITY)
            assert checkpoints.latest() is None
            with pytest.raises(CheckpointError, match="cannot write a checkpoint"):
                checkpoints.save(1, TENSORS, {})
        assert contents(tmp_path) == {"taken": b"mine"}

    def test_training_stops_with_the_error(self, tmp_path: Path) -> None:
        x, y = clusters(20, 2, 3000)
        stack = StackedLinear(3000, 2)
        checkpoints = Checkpoints(tmp_path, IDENTITY, every=2)
        with disk_full_beyond(4096), pytest.raises(CheckpointError, match="cannot write"):
            train(
                stack, x, Supervised(Supervision(y)), Recipe(batch_size=5, epochs=2), checkpoints=checkpoints
            )
        assert contents(tmp_path) == {}


def test_write_atomically_replaces_whole_files_or_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old" * 1000)
    with disk_full_beyond(2000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        write_atomically(path, b"new" * 1000)
    assert contents(tmp_path) == {"file": b"old" * 1000}
    write_atomically(path, b"new")
    assert contents(tmp_path) == {"file": b"new"}


class TestTraining:
    """A run on the checkpoints of another."""

    x, y = clusters(20, 3, 4, seed=3)

    def run(self, folder: Path, stack: Any = None, optimizer: Any = "adam", **options: Any) -> TrainingResult:
        steps = options.pop("steps", 6)
        return train(
            StackedLinear(4, 3, (0, 1)) if stack is None else stack,
            self.x,
            Supervised(Supervision(self.y)),
            Recipe(optimizer, 0.1, batch_size=6, steps=steps),
            checkpoints=Checkpoints(folder, IDENTITY, every=2),
            **options,
        )

    @pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
    @pytest.mark.parametrize("stop", [1, 4, 5, 6])
    def test_goes_on_bit_for_bit(self, tmp_path: Path, optimizer: str, stop: int) -> None:
        """Stopped within an epoch, between two, and at the end; the history too."""
        self.run(tmp_path / "broken", optimizer=optimizer, steps=stop)
        resumed = self.run(tmp_path / "broken", optimizer=optimizer)
        unbroken = self.run(tmp_path / "unbroken", optimizer=optimizer)
        assert_same_bits(resumed.stack.state_dict(), unbroken.stack.state_dict())
        if stop in (4, 6):  # elsewhere the end of the first run evaluated once more
            assert resumed.history == unbroken.history

    def test_a_finished_run_is_read_not_repeated(self, tmp_path: Path) -> None:
        first = self.run(tmp_path)
        before = contents(tmp_path)
        again = self.run(tmp_path, StackedLinear(4, 3, (8, 9)))  # starts elsewhere
        assert_same_bits(again.stack.state_dict(), first.stack.state_dict())
        assert again.history == first.history
        assert again.best_step.tolist() == [6, 6]
        assert contents(tmp_path) == before

    def test_a_run_that_stopped_early_is_read_not_repeated(self, tmp_path: Path) -> None:
        scores = iter([0.5, 0.4, 0.3, 0.9])
        options: dict[str, Any] = {
            "evaluate": lambda _: {"score": torch.full((2,), next(scores))},
            "evaluate_every": 1,
            "early_stopping": EarlyStopping("score", patience=2),
        }
        first = self.run(tmp_path, **options)
        assert first.history[-1]["step"] == 3
        again = self.run(tmp_path, StackedLinear(4, 3, (8, 9)), **options)
        assert_same_bits(again.stack.state_dict(), first.stack.state_dict())
        assert again.best_step.tolist() == [1, 1]
        assert next(scores) == 0.9  # it was not asked again

    @pytest.mark.parametrize(
        "stack",
        [StackedMLP(4, 3, (0, 1)), StackedLinear(4, 3, (0, 1, 2)), StackedLinear(4, 3, (0, 1), bias=False)],
        ids=["another kind", "more members", "no bias"],
    )
    def test_another_stack_is_refused(self, tmp_path: Path, stack: Any) -> None:
        self.run(tmp_path)
        before = contents(tmp_path)
        with pytest.raises(CheckpointError, match="step 6 does not fit this run"):
            self.run(tmp_path, stack)
        assert contents(tmp_path) == before

    def test_early_stopping_that_was_not_there_is_refused(self, tmp_path: Path) -> None:
        self.run(tmp_path)
        with pytest.raises(CheckpointError, match="does not fit this run"):
            self.run(
                tmp_path,
                evaluate=lambda _: {"score": torch.zeros(2)},
                early_stopping=EarlyStopping("score"),
            )

    @pytest.mark.parametrize("record", [{}, [], {"history": 3}, None], ids=str)
    def test_record_of_another_make_is_refused(self, tmp_path: Path, record: Any) -> None:
        self.run(tmp_path)
        for path in tmp_path.glob("*.json"):
            change(record=record)(path)
        with pytest.raises(CheckpointError, match="step"):
            self.run(tmp_path)

    def test_tensors_without_a_part_are_refused(self, tmp_path: Path) -> None:
        self.run(tmp_path)
        newest = Checkpoints(tmp_path, IDENTITY).latest()
        assert isinstance(newest, Checkpoint)
        for names in (("stack",), ("run", "optimizer"), ()):
            kept = {name: value for name, value in newest.tensors.items() if name.startswith(names)}
            if not names:
                kept = {"weight": torch.zeros(2)}
            Checkpoints(tmp_path, IDENTITY).save(6, kept, newest.record)
            with pytest.raises(CheckpointError, match="does not fit this run"):
                self.run(tmp_path)
