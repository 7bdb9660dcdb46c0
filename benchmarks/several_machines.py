"""Runs over two machines, started by torchrun and by SLURM, against one process.

    sudo python benchmarks/several_machines.py            # about six minutes on two cores
    sudo python benchmarks/several_machines.py torchrun   # or slurm: this part alone

The machines are two network namespaces of this one (Linux, root, `ip` and `unshare`), each with a host name and an
address; they share its files. SLURM (`slurm-wlm` and `munge` of Debian and Ubuntu) runs a cluster of its own in
them, with a configuration and a state that go with the folder; no cgroups, nothing of this machine's is changed.
Each case trains twins and MAT for a small network (_several_machines_job.py). What is wanted: held-out logits,
flips, parameters, losses and accuracy of one process to rtol 1e-5, the same bits on all processes, and those of the
unbroken run where one was broken off and started again. What is missing is said, and its part left out.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import torch
from _machines import ADDRESSES, FIRST, PATH, PATIENCE, SECOND, Cluster, Machines, MachinesError, until
from safetensors.torch import load_file
from torch import Tensor

JOB = Path(__file__).with_name("_several_machines_job.py")
TOOLS = {
    "torchrun": ("ip", "unshare"),
    "slurm": ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scancel"),
}
Results: TypeAlias = list[dict[str, Tensor]]


def tail(*logs: Path) -> str:
    """The last lines that processes wrote."""
    return "\n".join(
        "\n".join(log.read_text(errors="replace").splitlines()[-15:]) for log in logs if log.exists()
    )


def results(folder: Path, count: int, *logs: Path) -> Results:
    """What each process found.

    Raises:
        MachinesError: if one left nothing.
    """
    files = [folder / f"rank-{rank}.safetensors" for rank in range(count)]
    if not all(file.exists() for file in files):
        raise MachinesError(f"no results of {count} processes\n{tail(*logs)}")
    return [load_file(file) for file in files]


def half_way(folder: Path, runs: Callable[[], bool], *logs: Path) -> None:
    """Wait until the final model is in training and has checkpoints."""

    def reached() -> bool:
        if not runs():
            raise MachinesError(f"the run ended before it could be broken off\n{tail(*logs)}")
        return len(list((folder / "checkpoints" / "train").glob("step-*.json"))) > 1

    until("a checkpoint", reached)


class Torchrun:
    """A run on both machines by torchrun."""

    def __init__(self, machines: Machines, folder: Path, each: int, **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self.machines, self.folder, self.count = machines, folder, 2 * each
        self.logs = [folder / f"{name}.log" for name in ADDRESSES]
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--nproc-per-node={each}"]
        command += ["--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[FIRST]}:29400", str(JOB), str(folder)]
        self.running = {
            name: machines.start(name, command, log, **environment)
            for name, log in zip(ADDRESSES, self.logs, strict=True)
        }

    def end(self) -> Results:
        """Wait for it."""
        for process in self.running.values():
            process.wait(PATIENCE)
        return results(self.folder, self.count, *self.logs)

    def ended(self) -> bool:
        """Whether one of the machines has ended."""
        return any(process.poll() is not None for process in self.running.values())

    def lose(self, name: str) -> int:
        """SIGKILL to all on one machine; the other's exit code.

        Raises:
            MachinesError: if the run had ended.
        """
        half_way(self.folder, lambda: not self.ended(), *self.logs)
        self.machines.kill(name)
        code = next(process.wait(PATIENCE) for other, process in self.running.items() if other != name)
        if list(self.folder.glob("rank-*")):
            raise MachinesError("the run ended before it could be broken off")
        return code


class Job:
    """A job of SLURM's with two processes, started by sbatch and srun."""

    def __init__(self, cluster: Cluster, folder: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        script = folder / "job.sh"
        script.write_text(f"#!/bin/bash\nsrun {sys.executable} {JOB} {folder}\n")
        output = f"--output={folder}/%j.log"
        number = cluster.ask("sbatch", "--parsable", "--open-mode=append", output, *options, str(script))
        if not number.isdigit():
            raise MachinesError(f"sbatch: {number}")
        self.cluster, self.folder, self.number = cluster, folder, number
        self.log = folder / f"{number}.log"

    def state(self) -> str:
        """As SLURM names it; a busy controller may have to be asked again.

        Raises:
            MachinesError: if it tells nothing.
        """
        for _ in range(20):
            found = re.search(r"JobState=(\w+)", self.cluster.ask("scontrol", "show", "job", self.number))
            if found:
                return found[1]
        raise MachinesError(f"no state of job {self.number}")

    def end(self) -> Results:
        """Wait for it."""
        until(f"job {self.number}", lambda: self.state() in ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL"))
        return results(self.folder, 2, self.log)

    def stop(self, *command: str) -> list[str]:
        """Have SLURM end it half way; the processes' exit codes.

        Raises:
            MachinesError: if the run had ended.
        """
        half_way(self.folder, lambda: self.state() in ("PENDING", "CONFIGURING", "RUNNING"), self.log)
        self.cluster.ask(*command, self.number)
        until("the job's end", lambda: self.state() not in ("RUNNING", "COMPLETING"))
        if list(self.folder.glob("rank-*")):
            raise MachinesError("the run ended before it could be broken off")
        return re.findall(r"exit code (\d+)", self.log.read_text())


class Table:
    """A line for each case, as it ends; whether all were as wanted."""

    def __init__(self, alone: dict[str, Tensor]) -> None:
        self.alone, self.good = alone, True
        print(f"{'case':<64}{'processes':>10}{'largest difference':>20}", flush=True)

    def add(self, case: str, run: Callable[[], Results], unbroken: Results | None = None) -> Results | None:
        """Run a case, and compare it."""
        try:
            found = run()
            self.check(found, unbroken or [])
        except (MachinesError, AssertionError, subprocess.TimeoutExpired) as error:
            self.good = False
            print(f"{case:<64} FAILED: {error}", flush=True)
            return None
        largest = max(float((found[0][name] - value).abs().max()) for name, value in self.alone.items())
        print(f"{case:<64}{len(found):>10}{largest:>20.1e}", flush=True)
        return found

    def check(self, found: Results, unbroken: Results) -> None:
        """With one process up to rounding, with the case's other processes and the unbroken run to the bit.

        Raises:
            MachinesError: if bits differ.
        """
        for name, value in self.alone.items():
            torch.testing.assert_close(found[0][name], value, rtol=1e-5, atol=1e-7)
        for other in [*found[1:], *unbroken]:
            different = [name for name in self.alone if not torch.equal(found[0][name], other[name])]
            if different:
                raise MachinesError(f"other bits: {', '.join(different)}")


def by_torchrun(machines: Machines, folder: Path, table: Table) -> None:
    """One and two processes on each machine, a machine that is lost, and host names that mislead."""
    for each, lost in ((1, SECOND), (2, FIRST)):

        def broken(each: int = each, lost: str = lost) -> Results:
            where = folder / f"broken-{each}"
            if Torchrun(machines, where, each).lose(lost) == 0:
                raise MachinesError("a run that lost a machine ended with code 0")
            return Torchrun(machines, where, each).end()

        whole = Torchrun(machines, folder / f"whole-{each}", each)
        unbroken = table.add(f"torchrun, 2 machines x {each}", whole.end)
        table.add(f"torchrun, 2 machines x {each}, {lost} killed, started again", broken, unbroken)
    machines.name(own_on_loopback=True)

    def misled() -> Results:
        run = Torchrun(machines, folder / "misled", 1)
        until("an error", run.ended)  # the other machine may wait for it in vain
        for name in ADDRESSES:
            machines.kill(name)
        if "GLOO_SOCKET_IFNAME" not in "".join(log.read_text() for log in run.logs):
            raise MachinesError(f"no error that names GLOO_SOCKET_IFNAME\n{tail(*run.logs)}")
        return Torchrun(machines, folder / "led", 1, GLOO_SOCKET_IFNAME="eth0").end()

    table.add("torchrun, own name on loopback: refused, then GLOO_SOCKET_IFNAME", misled)
    machines.name()


def by_slurm(machines: Machines, folder: Path, table: Table) -> None:
    """Two machines and one, a run that is sent SIGTERM, and one that is requeued."""
    cluster = Cluster(machines, folder / "slurm")
    two, one = ("--nodes=2", "--ntasks-per-node=1"), ("--nodes=1", "--ntasks=2")
    unbroken = table.add("SLURM, 2 machines x 1", lambda: Job(cluster, folder / "two", *two).end())
    table.add("SLURM, 1 machine x 2", lambda: Job(cluster, folder / "one", *one).end())
    table.add(
        "SLURM, 2 machines x 1, in a job named bash",
        lambda: Job(cluster, folder / "bash", *two, "--job-name=bash").end(),
    )

    def sent() -> Results:
        codes = Job(cluster, folder / "sent", *two).stop("scancel", "--signal=TERM")
        if codes != ["143", "143"]:
            raise MachinesError(f"exit codes {codes}, 143 of both is wanted")
        return Job(cluster, folder / "sent", *two).end()

    def requeued() -> Results:
        job = Job(cluster, folder / "requeued", *two, "--requeue")
        codes = job.stop("scontrol", "requeue")
        if codes != ["143", "143"]:
            raise MachinesError(f"exit codes {codes}, 143 of both is wanted")
        cluster.ask("scontrol", "update", f"jobid={job.number}", "starttime=now")  # else two minutes later
        return job.end()

    table.add("SLURM, 2 machines x 1, SIGTERM by scancel, submitted again", sent, unbroken)
    table.add("SLURM, 2 machines x 1, requeued by scontrol", requeued, unbroken)


def missing(part: str) -> str | None:
    """What a part wants and is not there."""
    wanted = [tool for tool in (*TOOLS["torchrun"], *TOOLS[part]) if shutil.which(tool, path=PATH) is None]
    if os.geteuid():
        return "it must be run by root, who alone may make network namespaces"
    if find_spec("lightning") is None:
        return "lightning, the extra of that name"
    return None if not wanted else f"commands {', '.join(dict.fromkeys(wanted))}"


@contextmanager
def terminated() -> Iterator[None]:
    """SIGTERM ends it as an error would, so that machines and daemons go."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run the parts that can be run.

    Raises:
        SystemExit: with code 1 if a case fails.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *TOOLS], help="all of them, if none is named")
    runs = {"torchrun": by_torchrun, "slurm": by_slurm}
    parts = []
    for part in parser.parse_args().parts or TOOLS:
        lack = missing(part)
        if lack:
            print(f"{part} is left out, for want of: {lack}")
        else:
            parts.append(part)
    if not parts:
        return
    with tempfile.TemporaryDirectory(prefix="unrote-", ignore_cleanup_errors=True) as name, terminated():
        folder = Path(name)
        subprocess.run([sys.executable, str(JOB), name, "--alone"], check=True)
        table = Table(results(folder, 1)[0])
        for part in parts:
            (folder / part).mkdir()
            try:
                with Machines(folder) as machines:
                    runs[part](machines, folder / part, table)
            except MachinesError as error:
                table.good = False
                print(f"{part} could not be run: {error}")
    if not table.good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
