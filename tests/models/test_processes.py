"""Two real processes that share the work of every minibatch end where one ends."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
import torch.distributed.fsdp
from safetensors.torch import load_file
from shared_runs import METHOD_NAMES, TASK, WHOLE_METHOD_NAMES, all_layers, fit, results
from torch import Tensor
from toys import assert_same_bits

from unrote.errors import OptionError
from unrote.models import Processes
from unrote.models.processes import as_launched

SCRIPT = Path(__file__).parents[1] / "shared_runs.py"
Runs: TypeAlias = tuple[Path, list[dict[str, Tensor]]]
CAN_SHARD = hasattr(getattr(torch.distributed.fsdp, "FSDPModule", None), "set_force_sum_reduction_for_comms")
SHARD = ["shard"] if CAN_SHARD else []

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def run(command: list[str], **environment: str) -> None:
    """Run the script, in a process group of its own, with nothing inherited of another launcher."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_", "WORLD_"))}
    done = subprocess.run(
        command,
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], name: str) -> None:
    """What is called NAME/..., up to rounding."""
    of_this = {key: value for key, value in wanted.items() if key.startswith(f"{name}/")}
    assert len(of_this) >= 3
    for key, value in of_this.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-7, msg=lambda m, k=key: f"{k}: {m}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left what they found, and their checkpoints."""
    pytest.importorskip("lightning")
    made = tmp_path_factory.mktemp("runs")
    run([sys.executable, str(SCRIPT), str(made), "2", *SHARD])
    return made


def read(folder: Path) -> Runs:
    return folder, [load_file(folder / f"rank-{rank}.safetensors") for rank in range(2)]


@pytest.fixture(scope="module")
def shared(folder: Path) -> Runs:
    return read(folder / "shared")


@pytest.fixture(scope="module")
def sharded(folder: Path) -> Runs:
    """The same with parameters in shards."""
    if not SHARD:
        pytest.skip("shards need PyTorch 2.8")
    return read(folder / "sharded")


@pytest.fixture(params=["shared", "sharded"])
def runs(request: pytest.FixtureRequest) -> Runs:
    return request.getfixturevalue(request.param)


def test_both_processes_have_the_same_bits(runs: Runs) -> None:
    first, second = ({k: v for k, v in found.items() if k != "norm/read"} for found in runs[1])
    assert_same_bits(first, second)


@pytest.mark.parametrize("name", ["xrm", "layers", *METHOD_NAMES])
def test_two_processes_end_where_one_ends(runs: Runs, alone: dict[str, Tensor], name: str) -> None:
    """Held-out logits, flipped labels, per-example and per-group state, parameters, losses and accuracy."""
    assert_same(runs[1][0], alone, name)


@pytest.mark.parametrize("name", WHOLE_METHOD_NAMES)
def test_two_processes_with_whole_parameters_end_where_one_ends(
    shared: Runs, alone: dict[str, Tensor], name: str
) -> None:
    assert_same(shared[1][0], alone, name)


def test_shards_change_nothing_about_batch_norm(shared: Runs, sharded: Runs) -> None:
    """Its statistics are of a process's examples; a process that has none counts none."""
    assert_same(sharded[1][0], shared[1][0], "batch norm")


def test_twins_flipped_labels(alone: dict[str, Tensor]) -> None:
    """Else equal flips would say nothing."""
    assert int((alone["xrm/labels"][0] != TASK.train.y).sum()) >= 3


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    return {**results(None), **all_layers(None)}


def test_each_example_is_loaded_by_one_process(shared: Runs) -> None:
    """Once an epoch, for two epochs; the first one is looked at beforehand."""
    reads = [found["norm/read"] for found in shared[1]]
    assert (reads[0] + reads[1])[1:].tolist() == [2] * 49
    assert all(20 <= int(read.sum()) <= 80 for read in reads)


def test_a_run_of_one_process_reads_the_checkpoints_of_two(runs: Runs) -> None:
    folder, (found, _) = runs
    fitted = fit("groupdro", None, folder / "checkpoints" / "groupdro")
    for key, value in fitted.stack.state_dict().items():
        assert torch.equal(value, found[f"groupdro/{key}"])


def test_sigterm_to_one_process_of_torchruns_ends_all_at_one_step(tmp_path: Path) -> None:
    """With code 143 and a checkpoint, from which the same command goes on to the same bits; in shards too."""
    pytest.importorskip("lightning")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(SCRIPT.with_name("shared_long_run.py")), str(tmp_path), *SHARD]
    ended = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200
    )
    # the first to end has torchrun close the other, by a SIGTERM that may find it past its own handler
    codes = set(re.findall(r"exitcode\s*: (-?\d+)", ended.stderr))
    assert "143" in codes, ended.stderr
    assert codes <= {"143", "-15"}, ended.stderr
    kinds = [tmp_path / kind for kind in (("shared", "sharded") if SHARD else ("shared",))]
    for kind in kinds:
        assert [path.stem for path in (kind / "broken").glob("*.json")] == ["step-000000020"]
        assert not (kind / "broken.safetensors").exists()
    run(command)
    for kind in kinds:
        assert_same_bits(load_file(kind / "broken.safetensors"), load_file(kind / "unbroken.safetensors"))


class TestRows:
    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    @pytest.mark.parametrize("size", [1, 2, 4, 7, 128])
    def test_are_dealt_out_once_and_evenly(self, count: int, size: int) -> None:
        slices = [Processes(rank, count, torch.device("cpu")).rows(size) for rank in range(count)]
        assert [i for rows in slices for i in range(size)[rows]] == list(range(size))
        lengths = [rows.stop - rows.start for rows in slices]
        assert max(lengths) - min(lengths) <= 1


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}
SRUN = {
    "SLURM_NTASKS": "6",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
}


class TestLaunched:
    """What is asked for against what was started; several machines, for real: benchmarks/several_machines.py."""

    @pytest.fixture(autouse=True)
    def by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [k for k in os.environ if k.startswith(("SLURM_", "TORCHELASTIC_")) or k == "NODE_RANK"]:
            monkeypatch.delenv(name)

    @pytest.mark.parametrize("environment", [TORCHRUN, SRUN])
    @pytest.mark.parametrize("asked", [("auto", "auto"), (2, "auto"), (2, 3)])
    def test_takes_what_was_started(
        self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], asked: tuple[Any, Any]
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert as_launched(*asked)[:2] == (2, 3)

    @pytest.mark.parametrize(
        ("environment", "asked", "message"),
        [
            (TORCHRUN, (3, "auto"), "devices=3, but torchrun started 2 on each of 3 machines"),
            (SRUN, (2, 1), "nodes=1, but srun started 2 on each of 3 machines"),
            ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "3,2,1"}, ("auto", "auto"), "--ntasks-per-node"),
            ({"SLURM_NTASKS": "6"}, (2, "auto"), "put srun before"),
            ({"SLURM_NNODES": "2"}, (2, "auto"), "put srun before"),
            ({}, (1, 2), "with torchrun or SLURM"),
        ],
    )
    def test_refuses_another_number(
        self,
        monkeypatch: pytest.MonkeyPatch,
        environment: dict[str, str],
        asked: tuple[Any, Any],
        message: str,
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(OptionError, match=re.escape(message)):
            as_launched(*asked)

    @pytest.mark.parametrize(
        "environment", [{}, {"SLURM_NTASKS": "1"}, {"SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}]
    )
    def test_one_process_starts_the_others(
        self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert as_launched(2, "auto") == (2, 1, None)
