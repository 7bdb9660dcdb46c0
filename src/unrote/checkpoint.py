"""Checkpoints: a safetensors file and a JSON file per step, written so that a kill at any moment loses nothing.

The tensors are written first and the JSON record, which holds their hash, last; each under a temporary name and
then renamed. A pair without its record was never finished and is ignored.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from unrote._version import __version__
from unrote.errors import CheckpointError, OptionError

FORMAT = 1
"""Raised whenever older readers would misread what is written."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either there whole or not there at all, whatever happens meanwhile."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def content_hash(content: bytes) -> str:
    """The hash under which a file's content is recorded."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: its step, its tensors, and a JSON-ready record of everything else."""

    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
        folder: made when the first checkpoint is written.
        identity: JSON-ready description of the run (task, method, hyper-parameters, seed). A checkpoint of
            another identity is refused, not silently continued.
        every: steps between checkpoints; None saves by the clock, every 30 seconds.
        keep: how many of the newest to keep.

    Raises:
        OptionError: if `every` or `keep` is below 1.
    """

    folder: Path
    identity: Mapping[str, Any]
    every: int | None = None
    keep: int = 2
    _saved_at: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("keep", self.keep)):
            if value is not None and value < 1:
                raise OptionError(f"checkpoints: {name}={value}, at least 1 is wanted")

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be written after `step` steps."""
        if self.every is None:
            return time.monotonic() - self._saved_at > 30
        return step % self.every == 0

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Write a checkpoint and drop the oldest ones beyond `keep`.

        Raises:
            CheckpointError: if the folder cannot be written (full disk, no permission).
        """
        content = dump_tensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        header = {
            "format": FORMAT,
            "version": __version__,
            "identity": dict(self.identity),
            "step": step,
            "tensors": content_hash(content),
            "record": dict(record),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._tensor_path(step), content)
            write_atomically(self._record_path(step), json.dumps(header, indent=1).encode())
            for old in self._steps()[: -self.keep]:
                self._record_path(old).unlink(missing_ok=True)
                self._tensor_path(old).unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"cannot write a checkpoint to {self.folder}: {error.strerror}; free some space or choose "
                "another folder, the checkpoints already there are intact"
            ) from error
        self._saved_at = time.monotonic()

    def latest(self) -> Checkpoint | None:
        """The newest readable checkpoint, or None if there is none at all.

        A damaged one is passed over with a warning if an older one can be read.

        Raises:
            CheckpointError: if checkpoints exist but none can be read, or they belong to another run or to
                another format version.
        """
        damaged: CheckpointError | None = None
        for step in reversed(self._steps()):
            try:
                checkpoint = self._read(step)
            except _DamagedError as error:
                damaged = error
                continue
            if damaged is not None:
                warnings.warn(f"{damaged}; going on from step {step} instead", UserWarning, stacklevel=2)
            return checkpoint
        if damaged is not None:
            raise damaged
        return None

    def _read(self, step: int) -> Checkpoint:
        path = self._record_path(step)
        try:
            header = json.loads(path.read_bytes())
            version, identity = header["format"], header["identity"]
            if version != FORMAT:
                raise CheckpointError(
                    f"checkpoint {path} has format {version}, this version of unrote reads format {FORMAT}: "
                    f"use unrote {header.get('version', '?')}, or delete {self.folder} to start again"
                )
            self._check_identity(path, identity)
            content = self._tensor_path(step).read_bytes()
            if content_hash(content) != header["tensors"]:
                raise _DamagedError(f"checkpoint {self._tensor_path(step)} does not match its recorded hash")
            return Checkpoint(int(header["step"]), load_tensors(content), header["record"])
        except (OSError, LookupError, ValueError, TypeError, AttributeError, SafetensorError) as error:
            raise _DamagedError(
                f"checkpoint {path} is damaged ({type(error).__name__}): delete it to go on without it"
            ) from error

    def refuse_others(self, keys: Collection[str]) -> None:
        """Refuse a folder whose newest checkpoint is of another run, before anything is trained or written.

        Args:
            keys: what to compare, where not all of the identity is known yet.

        Raises:
            CheckpointError: if they differ.
        """
        for step in self._steps()[-1:]:
            path = self._record_path(step)
            try:
                found = json.loads(path.read_bytes())["identity"]
            except (OSError, ValueError, LookupError):
                return  # damaged, which `latest` deals with
            self._check_identity(path, found, keys)

    def _check_identity(
        self, path: Path, found: Mapping[str, Any], keys: Collection[str] | None = None
    ) -> None:
        # through JSON and back, because a tuple comes back as a list
        wanted = json.loads(json.dumps(dict(self.identity)))
        compared = {*wanted, *found} if keys is None else set(keys)
        differing = sorted(key for key in compared if wanted.get(key) != found.get(key))
        if differing:
            details = "; ".join(f"{k}: {found.get(k)!r} there, {wanted.get(k)!r} here" for k in differing)
            raise CheckpointError(
                f"checkpoint {path} belongs to another run ({details}): choose another folder, or delete "
                f"{self.folder} to start again"
            )

    def _steps(self) -> list[int]:
        names = self.folder.glob("step-*.json") if self.folder.is_dir() else ()
        return sorted(int(path.stem[5:]) for path in names if path.stem[5:].isdigit())

    def _record_path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.json"

    def _tensor_path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.safetensors"


class _DamagedError(CheckpointError):
    """A checkpoint that cannot be read, where an older one may do."""
