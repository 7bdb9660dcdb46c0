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

    It runs in PyTorch's own OpenMP threads, which have to be loaded before; in one thread where there are none.

    Args:
        name: of the source.
        defined: macros.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if os.name != "posix" or os.environ.get(SWITCH) == "0" or shutil.which(compiler[0]) is None:
        return None
    macros = [f"-D{key}={value}" for key, value in defined.items()]
    for threads in (["-fopenmp"], []):
        try:
            return _load(name, compiler, [*_FLAGS, *threads, *macros])
        # no home, a full disk, another kind of compiler, no OpenMP
        except (OSError, RuntimeError, subprocess.SubprocessError):
            continue
    return None


def _load(name: str, compiler: list[str], flags: list[str]) -> ctypes.CDLL:
    source = Path(__file__).with_name(f"{name}.c")
    made_of = "\n".join((*compiler, *flags, _processor(), source.read_text(encoding="utf-8")))
    digest = hashlib.blake2b(made_of.encode(), digest_size=12).hexdigest()
    path = _own_folder() / f"{name}-{digest}.so"
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # a file that is not whole, as a loss of power can leave it
            path.unlink()
    _compile(compiler, flags, source, path)
    return ctypes.CDLL(str(path))


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


def _compile(compiler: list[str], flags: list[str], source: Path, path: Path) -> None:
    """Write the library; whole or not at all, as other processes may want it at the same time."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        object_file, made = Path(folder) / "object.o", Path(folder) / path.name
        # linked without -fopenmp, which would bring threads of its own beside PyTorch's
        for work in (
            [*compiler, *flags, "-c", str(source), "-o", str(object_file)],
            [*compiler, "-shared", str(object_file), "-o", str(made), "-lm"],
        ):
            subprocess.run(work, check=True, capture_output=True, timeout=_PATIENCE)
        made.replace(path)


def _processor() -> str:
    """What a library is compiled for: machines that share a home may be of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.platform()} {platform.processor()}"
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return "\n".join((platform.platform(), *sorted(told)))
