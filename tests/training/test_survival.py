"""What a run meets from outside: a scheduler's SIGTERM, a full disk, losses that are no numbers."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import long_run
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toys import assert_same_bits, clusters

from unrote.checkpoint import Checkpoints
from unrote.errors import CheckpointError, DivergedError, DivergedWarning
from unrote.models import Stack, StackedLinear
from unrote.supervision import Supervision
from unrote.training import Batch, Order, Recipe, Supervised, TrainingResult, train
from unrote.training.interruption import Termination

X, Y = clusters(40, 3, 4)


def go(folder: Path, name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, long_run.__file__, str(folder), name],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stderr=subprocess.PIPE,
    )


class TestSIGTERM:
    def test_saves_exits_143_and_goes_on_to_the_same_bits(self, tmp_path: Path) -> None:
        """No checkpoint falls due by the clock: those that are there, SIGTERM wrote."""
        stops = 0
        for _ in range(2):
            process = go(tmp_path, "broken")
            while not (tmp_path / "broken.started").exists():
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.01)
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            stops += process.wait(timeout=60) == 143
            (tmp_path / "broken.started").unlink()
        steps = sorted(int(path.stem[5:]) for path in (tmp_path / "broken").glob("step-*.json"))
        assert stops == 2
        assert len(steps) == 2
        assert 0 < steps[0] < steps[1]
        for name in ("broken", "unbroken"):
            (tmp_path / f"{name}.quick").touch()
            long_run.main(tmp_path, name)
        found, wanted = (load_file(tmp_path / f"{name}.safetensors") for name in ("broken", "unbroken"))
        assert_same_bits(found, wanted)

    def test_the_handler_that_was_there_is_asked_and_put_back(self) -> None:
        asked: list[int] = []

        def mine(number: int, frame: object) -> None:
            asked.append(number)

        before = signal.signal(signal.SIGTERM, mine)
        try:
            with Termination(True) as termination:
                os.kill(os.getpid(), signal.SIGTERM)
                assert termination.agreed(False)
                assert asked == []
                with pytest.raises(SystemExit) as caught:
                    termination.end()
            assert caught.value.code == 143
            assert asked == [signal.SIGTERM]
            assert signal.getsignal(signal.SIGTERM) is mine
        finally:
            signal.signal(signal.SIGTERM, before)

    @pytest.mark.parametrize("saves", [False, True])
    def test_is_left_alone_where_nothing_is_saved_or_it_is_ignored(self, saves: bool) -> None:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN if saves else signal.SIG_DFL)
        try:
            at_first = signal.getsignal(signal.SIGTERM)
            with Termination(saves):
                assert signal.getsignal(signal.SIGTERM) == at_first
        finally:
            signal.signal(signal.SIGTERM, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class TestFullDisk:
    def run(self, folder: Path) -> TrainingResult:
        x, y = clusters(20, 2, 3000)
        recipe = Recipe("sgd", 0.1, batch_size=5, steps=8)
        stack = StackedLinear(3000, 2, range(6))  # 150 kB a checkpoint, with two of momentum and parameters
        return train(
            stack, x, Supervised(Supervision(y)), recipe, checkpoints=Checkpoints(folder / "run", {}, every=1)
        )

    def test_stops_the_run_with_its_checkpoints_whole(self, small_disk: Path, tmp_path: Path) -> None:
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"\0" * 350_000)
        with pytest.raises(
            CheckpointError, match=r"cannot write a checkpoint.*No space left on device.*intact"
        ):
            self.run(small_disk)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Checkpoints(small_disk / "run", {}).latest()
        assert found is not None
        assert 0 < found.step < 8
        assert not [path for path in (small_disk / "run").iterdir() if "partial" in path.name]
        ballast.unlink()
        resumed = self.run(small_disk)
        assert_same_bits(resumed.stack.state_dict(), self.run(tmp_path).stack.state_dict())


class Poisoned(Supervised):
    """NaN for some members from a step on."""

    def __init__(self, members: list[int], step: int) -> None:
        super().__init__(Supervision(Y))
        self.members, self.step = members, step

    def loss(self, stack: Stack, batch: Batch) -> Tensor:
        losses = super().loss(stack, batch)
        factor = torch.ones(len(losses))
        if batch.step >= self.step:
            factor[self.members] = torch.nan
        return losses * factor


class TestNaN:
    recipe = Recipe("adam", 0.1, batch_size=6, steps=30)

    def indices(self, step: int, seed: int = 4) -> tuple[int, ...]:
        return tuple(next(Order(40, 6, seed).minibatches(step, step + 1)).tolist())

    @pytest.mark.usefixtures("gradients_derived")  # as those of a loss of its own are
    def test_of_one_member_is_told_and_the_others_go_on_to_the_same_bits(self) -> None:
        stack, plain = (StackedLinear(4, 3, (0, 1, 2)) for _ in range(2))
        shown = ", ".join(map(str, self.indices(13)))
        with pytest.warns(
            DivergedWarning, match=f"member 1 at step 13, on examples {shown}; the other"
        ) as told:
            result = train(stack, X, Poisoned([1], 13), self.recipe, seed=4)
        assert len(told) == 1
        (divergence,) = result.divergences
        assert (divergence.member, divergence.step, divergence.indices) == (1, 13, self.indices(13))
        train(plain, X, Supervised(Supervision(Y)), self.recipe, seed=4)
        for member in (0, 2):
            assert torch.equal(stack.weight[member], plain.weight[member])
        assert not bool(stack.weight[1].isfinite().any())

    def test_of_all_members_stops_the_run_and_names_member_step_and_examples(self) -> None:
        shown = ", ".join(map(str, self.indices(3)))
        with pytest.raises(
            DivergedError, match=rf"member 0 at step 3, on examples {shown}; member 1 at step 3"
        ):
            train(StackedLinear(4, 3, (0, 1)), X, Poisoned([0, 1], 3), self.recipe, seed=4)

    def test_of_members_with_orders_of_their_own_names_each_ones_examples(self) -> None:
        with pytest.warns(DivergedWarning):
            result = train(
                StackedLinear(4, 3, (0, 1, 2)), X, Poisoned([0, 2], 8), self.recipe, seed=(5, 6, 7)
            )
        assert [one.indices for one in result.divergences] == [self.indices(8, 5), self.indices(8, 7)]

    def test_is_still_known_after_a_stop(self, tmp_path: Path) -> None:
        results = []
        for steps in (7, 30):  # stopped before a look
            recipe = Recipe("adam", 0.1, batch_size=6, steps=steps)
            with pytest.warns(DivergedWarning):
                results.append(
                    train(
                        StackedLinear(4, 3, (0, 1)),
                        X,
                        Poisoned([1], 5),
                        recipe,
                        seed=4,
                        checkpoints=Checkpoints(tmp_path, {}, every=7),
                    )
                )
        assert results[0].divergences == results[1].divergences
        assert results[1].divergences[0].indices == self.indices(5)
