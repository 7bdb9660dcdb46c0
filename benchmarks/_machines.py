"""Two machines in one: network namespaces with host names and addresses of their own, and a SLURM cluster in them.

It wants Linux, root, and the commands `ip` and `unshare`; the cluster `slurm-wlm` and `munge` of Debian and Ubuntu.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

ADDRESSES = {"unrote-a": "10.77.0.1", "unrote-b": "10.77.0.2"}
FIRST, SECOND = ADDRESSES
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PATIENCE = 240.0

CONFIGURATION = """
ClusterName=unrote
SlurmctldHost={first}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
NodeName={first},{second} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


class MachinesError(RuntimeError):
    """What did not happen as it should."""


def until(what: str, reached: Callable[[], bool]) -> None:
    """Wait for it.

    Raises:
        MachinesError: if it does not come.
    """
    limit = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > limit:
            raise MachinesError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.02)


class Machines:
    """Two network namespaces, joined by a cable; all that runs in them ends with the context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Machines":
        ip("netns", "add", FIRST)  # where another run has it: an error before there is anything to be removed
        try:
            ip("netns", "add", SECOND)
            ip("link", "add", "eth0", "netns", FIRST, "type", "veth", "peer", "name", "eth0", "netns", SECOND)
            for name, address in ADDRESSES.items():
                ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    ip("-n", name, "link", "set", device, "up")
            self.name()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what runs on the machines, and remove them."""
        for process in self.started:
            process.kill()
        for name in ADDRESSES:
            self.kill(name)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, env={"PATH": PATH})
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
        with suppress(OSError):
            Path("/etc/netns").rmdir()  # if it was made here
        for process in self.started:
            process.wait()

    def name(self, *, own_on_loopback: bool = False) -> None:
        """Write each machine's /etc/hosts.

        Args:
            own_on_loopback: whether a machine knows its own name as 127.0.1.1, as Debian and Ubuntu set it up.
        """
        for name in ADDRESSES:
            file = Path("/etc/netns") / name / "hosts"
            file.parent.mkdir(parents=True, exist_ok=True)
            own = f"127.0.1.1 {name}\n" if own_on_loopback else ""
            others = "".join(f"{address} {other}\n" for other, address in ADDRESSES.items())
            file.write_text(f"127.0.0.1 localhost\n{own}{others}")

    def start(
        self, name: str, command: Sequence[str], log: Path, **environment: str
    ) -> "subprocess.Popen[bytes]":
        """Run a command on a machine, under its host name."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_", "WORLD_"))}
        host = [*f"ip netns exec {name} unshare --uts sh -c".split(), 'hostname "$0" && exec "$@"', name]
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*host, *command],
                env={**inherited, "PATH": PATH, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def kill(self, name: str) -> None:
        """SIGKILL to every process on a machine."""

        def gone() -> bool:
            found = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, env={"PATH": PATH}
            )
            for process in found.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            return not found.stdout.split()

        until(f"the end of the processes on {name}", gone)


def ip(*arguments: str) -> None:
    """Run `ip`.

    Raises:
        MachinesError: if it fails.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, env={"PATH": PATH})
    if done.returncode:
        raise MachinesError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Cluster:
    """SLURM on both machines."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        for name in ("state", *ADDRESSES):
            (folder / name).mkdir(parents=True)
        (folder / "slurm.conf").write_text(CONFIGURATION.format(first=FIRST, second=SECOND, folder=folder))
        # of slurmd's plugins the one that starts without systemd; nothing here uses cgroups
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.machines, self.folder = machines, folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
        munged += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
        machines.start(FIRST, munged, folder / "out.log")
        until("munged", lambda: (folder / "munge.socket").exists())
        machines.start(FIRST, ["slurmctld", "-D"], folder / "out.log", **self.environment)
        for name in ADDRESSES:
            machines.start(name, ["slurmd", "-D", "-N", name], folder / "out.log", **self.environment)
        until("SLURM's nodes", lambda: self.ask("sinfo", "-h", "-t", "idle", "-o", "%D") == "2")

    def ask(self, *command: str) -> str:
        """What a command of SLURM's prints."""
        log = self.folder / "answer.log"
        log.unlink(missing_ok=True)
        self.machines.start(FIRST, command, log, **self.environment).wait(PATIENCE)
        return log.read_text().strip()
