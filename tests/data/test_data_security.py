"""Files that people download are data: none is run, none is unpacked, none is trusted without its hash."""

import ast
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

import unrote
from unrote.data import reviews
from unrote.data.download import PackageFile, read_member
from unrote.errors import DataError

MODULES = sorted(Path(unrote.__file__).parent.rglob("*.py"))

UNPACKING = {"extractall", "extract_all", "unpack_archive"}
SHELL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def calls(source: str) -> list[tuple[str, dict[str, str]]]:
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [(ast.unparse(c.func), {k.arg: ast.unparse(k.value) for k in c.keywords if k.arg}) for c in found]


def faults(source: str) -> list[str]:
    said = []
    for name, options in calls(source):
        if name.split(".")[-1] in UNPACKING:
            said.append(f"{name} writes whatever an archive names")
        if name in SHELL or options.get("shell", "False") != "False":
            said.append(f"{name} gives text to a shell")
        if name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
            said.append(f"{name} without allow_pickle=False")
        if options.get("trust_remote_code", "False") != "False":
            said.append(f"{name} runs code that came with a model")
    return said


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "archive.extractall(folder)",
        "shutil.unpack_archive(a, b)",
        "subprocess.run(command, shell=True)",
        "os.system(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
    ],
)
def test_faults_are_seen(source: str) -> None:
    assert len(faults(source)) == 1


def archive(*members: tuple[str, bytes | None]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_an_archive_that_names_files_elsewhere_writes_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / "a.tar.gz"
    path.write_bytes(archive(("../outside", b"x"), ("/tmp/absolute", b"y"), ("link", None), ("good", b"z")))
    before = set(tmp_path.rglob("*"))
    with tarfile.open(path) as file:
        assert read_member(file, "good") == b"z"
        assert read_member(file, "../outside") == b"x"  # its content, as bytes in memory
        with pytest.raises(DataError, match="no regular file"):
            read_member(file, "link")
        with pytest.raises(DataError, match="has no"):
            read_member(file, "absent")
    assert set(tmp_path.rglob("*")) == before


def test_a_source_whose_archive_was_changed_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte more, and the sentences are refused before the archive is opened."""
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    table = b"1\t3.0\tfine\r\n2\t-3.0\tbad\r\n"
    inner = archive(("hutto_ICWSM_2014/tweets_GroundTruth.txt", table))
    outer = archive((reviews.INNER, inner))
    sha256 = hashlib.sha256(outer).hexdigest()
    monkeypatch.setattr(reviews, "ARCHIVE", replace(reviews.ARCHIVE, sha256=sha256))
    reviews.ARCHIVE.path.parent.mkdir(parents=True)
    reviews.ARCHIVE.path.write_bytes(outer)
    assert reviews.read_sentences("tweets").texts == ("fine", "bad")
    reviews.ARCHIVE.path.write_bytes(outer + b"\0")
    with pytest.raises(DataError, match="sha256"):
        reviews.read_sentences("tweets")


def test_every_archive_has_a_whole_hash_and_one_version() -> None:
    from unrote.data.fetching import fetchable

    archives: list[PackageFile] = [thing.archive for thing in fetchable().values()]
    for one in archives:
        assert len(bytes.fromhex(one.sha256)) == 32
        assert "==" in one.requirement
