"""Inner loops in C, compiled for the machine they run on when they are first wanted.

The system's C compiler (`$CC`, else `cc`) takes half a second; what it makes is kept in the cache folder. Where there
is none, or $UNROTE_COMPILED is 0, there is no library, and whoever asks for one does the same work in PyTorch.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from unrote.cache import cache_folder

SWITCH = "UNROTE_COMPILED"

NUMBERS = {torch.float32: "float", torch.float64: "double"}
"""The types of number that there are libraries for, and their names in C."""

_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
_PATIENCE = 60  # seconds that a compiler is waited for


@cache
def library(name: str, **defined: str) -> ctypes.CDLL | None:
    """What is compiled of `name`.c in this folder; None where nothing can be.

    It runs in PyTorch's own OpenMP threads; in one thread where there are none, or the compiler knows none.

    Args:
        name: of the source.
        defined: macros.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if os.name != "posix" or os.environ.get(SWITCH) == "0" or shutil.which(compiler[0]) is None:
        return None
    source = Path(__file__).with_name(f"{name}.c")
    command = [*compiler, *_FLAGS, *(f"-D{key}={value}" for key, value in defined.items())]
    made_of = "\n".join((*command, _processor(), source.read_text(encoding="utf-8")))
    digest = hashlib.blake2b(made_of.encode(), digest_size=12).hexdigest()
    try:
        path = _own_folder() / f"{name}-{digest}.so"
    except (OSError, RuntimeError):  # no home, a full disk
        return None
    with suppress(OSError):  # not there, or not whole, as a loss of power can leave it
        return ctypes.CDLL(str(path))
    for threads in (["-fopenmp"], []):
        with suppress(OSError, subprocess.SubprocessError):  # another kind of compiler, no OpenMP
            return _compile(command, threads, source, path)
    return None


def _own_folder() -> Path:
    """A folder that nobody else can write code into, in a cache that others may share.

    Raises:
        PermissionError: if there is another's in its place.
    """
    folder = cache_folder() / f"compiled-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"others can write to {folder}")
    return folder


def _compile(command: list[str], threads: list[str], source: Path, path: Path) -> ctypes.CDLL:
    """Load the library and then keep it: whole, as other processes may want it, and none that does not load."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        object_file, made = Path(folder) / "object.o", Path(folder) / path.name
        # linked without -fopenmp, which would bring threads of its own beside PyTorch's
        for work in (
            [*command, *threads, "-c", str(source), "-o", str(object_file)],
            [*command, "-shared", str(object_file), "-o", str(made), "-lm"],
        ):
            subprocess.run(work, check=True, capture_output=True, timeout=_PATIENCE)
        found = ctypes.CDLL(str(made))
        made.replace(path)
    return found


def _processor() -> str:
    """What a library is compiled for: machines that share a home may be of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.platform()} {platform.processor()}"
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return "\n".join((platform.platform(), *sorted(told)))
