"""Files that are not what they should be: an error that says so, exit code 2, nothing written, no traceback."""

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from table_files import write_csv, write_pictures

from unrote.errors import UnroteError
from unrote.tables import TableTask, make_task, read_table

Run = Callable[..., Any]
GOOD = "n,s,y\n" + "".join(f"{k % 7},{'ab'[k % 2]},{'uv'[k % 3 == 0]}\n" for k in range(60))


def replaced(line: int, text: str) -> str:
    """The good file with another line in one place."""
    lines = GOOD.splitlines()
    lines[line] = text
    return "\n".join(lines) + "\n"


def column(values: str) -> str:
    """The good file with 60 other values of n, separated by spaces."""
    rows = [line.split(",", 1)[1] for line in GOOD.splitlines()[1:]]
    return "n,s,y\n" + "".join(f"{v},{row}\n" for v, row in zip(values.split(" "), rows, strict=True))


def target(values: list[Any]) -> str:
    return "n,y\n" + "".join(f"{k % 7},{value}\n" for k, value in enumerate(values))


JUNK = np.random.default_rng(0).bytes(5000)
CSV: dict[str, str | bytes] = {
    "empty": "",
    "white space": " \n\n\t\n",
    "one byte": "\x00",
    "junk": JUNK,
    "junk without zero bytes": JUNK.replace(b"\0", b"."),
    "junk after a header": b"n,s,y\n" + JUNK,
    "all bytes": bytes(range(256)) * 20,
    "an ELF file": b"\x7fELF\x02\x01\x01" + bytes(100),
    "a picture": b"\x89PNG\r\n\x1a\n" + JUNK,
    "a zip archive": b"PK\x03\x04" + JUNK,
    "gzipped": b"\x1f\x8b\x08" + JUNK,
    "an old spreadsheet": b"\xd0\xcf\x11\xe0" + JUNK,
    "a PDF": b"%PDF-1.7\n" + JUNK,
    "a Parquet file": b"PAR1" + JUNK,
    "JSON": '{"n": [1, 2], "y": [0, 1]}',
    "JSON lines": '{"n": 1, "y": 0}\n{"n": 2, "y": 1}\n',
    "XML": "<?xml version='1.0'?>\n<rows><row n='1' y='0'/></rows>\n",
    "a web page": "<!doctype html>\n<html><body>Not found, sorry</body></html>\n",
    "prose": "Dear all,\nplease find attached, as ever, the table.\nYours,\nA.\n",
    "header only": "n,s,y\n",
    "header only, no newline": "n,s,y",
    "no header": GOOD.split("\n", 1)[1],
    "one column": "y\n" + "u\nv\n" * 30,
    "one long line": "a" * 300_000,
    "a long header field": '"' + "a" * 300_000 + '",y\n1,2\n',
    "only commas": ",,,,\n,,,,\n",
    "only quotes": '"""""""\n',
    "a short row": replaced(5, "1,a"),
    "a long row": replaced(5, "1,a,u,x"),
    "a long last row": GOOD + "1,a,u,x\n",
    "half a last row": GOOD + "1",
    "a blank header": replaced(0, "").lstrip("\n"),
    "quote never closed": replaced(5, '1,"a,u'),
    "quote never closed at the end": replaced(60, '1,a,"u'),
    "two columns of one name": replaced(0, "y,s,y"),
    "all columns of one name": replaced(0, "y,y,y"),
    "other case": replaced(0, "n,s,Y"),
    "Latin-1 with bytes of none": GOOD.replace("a", "\x81").encode("latin-1"),
    "UTF-16 cut in half": GOOD.encode("utf-16")[:-1],
    "UTF-16 mark on UTF-8": b"\xff\xfe" + GOOD.encode(),
    "UTF-32": GOOD.encode("utf-32"),
    "zero bytes in a value": GOOD.replace("a", "\x00", 1),
    "a bell": GOOD.replace("a", "\x07", 1),
    "infinity": column("inf " + " ".join(map(str, range(59)))),
    "minus infinity": column("-inf " + " ".join(map(str, range(59)))),
    "1e999": column("1e999 " + " ".join(map(str, range(59)))),
    "a number of 400 digits": column("9" * 400 + " " + " ".join(map(str, range(59)))),
    "numbers of 200 digits": column(" ".join(f"{k}" + "0" * 200 for k in range(60))),
    "one class": target(["u"] * 60),
    "no class": target([""] * 60),
    "no class but gaps": target(["NA", "?", "null"] * 20),
    "a class per row": target([f"c{k}" for k in range(60)]),
    "numbers to estimate": target([k * 0.37 for k in range(60)]),
    "a class of one": target(["u"] * 59 + ["v"]),
    "a class of four": target(["u"] * 56 + ["v"] * 4),
    "one row": "n,s,y\n1,a,u\n",
    "two rows": "n,s,y\n1,a,u\n2,b,v\n",
    "no feature": "y\n" + "u\nv\n" * 30,
    "features that never change": "n,y\n" + "1,u\n1,v\n" * 30,
    "features all missing": "n,y\n" + ",u\n,v\n" * 30,
    "only row numbers": "n,y\n" + "".join(f"{k},{'uv'[k % 2]}\n" for k in range(60)),
    "only names": "n,y\n" + "".join(f"user{k},{'uv'[k % 2]}\n" for k in range(60)),
    "text without common words": "n,y\n" + "".join(f"a{k} b{k} c{k},{'uv'[k % 2]}\n" for k in range(60)),
    "25,000 columns": ",".join(f"c{k}" for k in range(24_999)) + ",y\n" + ("1," * 24_999 + "u\n") * 3,
    "a million columns": "," * 1_000_000 + "y\n",
    "formula": "=cmd|' /C calc'!A0\n",
}


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def as_parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def archive(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, content)
    return file.getvalue()


def header(**said: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, **said})
    return file.getvalue()


Y = np.arange(60) % 2
X = np.random.default_rng(0).normal(size=(60, 3))
WHOLE = as_parquet(n=X[:, 0], y=Y)
NPZ: dict[str, bytes] = {
    "empty": b"",
    "junk": JUNK,
    "cut short": npz(x=X, y=Y)[:-200],
    "cut shorter": npz(x=X, y=Y)[:100],
    "one byte changed": npz(x=X, y=Y).replace(X.tobytes()[:8], b"\0" * 8, 1),
    "pickled objects": npz(x=np.array([{}] * 60, object), y=Y),
    "pickled target": npz(x=X, y=np.array(["u", None] * 30, object)),
    "no arrays": npz(),
    "no target": npz(x=X),
    "other lengths": npz(x=X, y=Y[:50]),
    "no rows": npz(x=X[:0], y=Y[:0]),
    "a scalar": npz(x=X, y=Y, n=np.array(3)),
    "five dimensions": npz(x=np.zeros((60, 2, 2, 2, 2)), y=Y),
    "complex numbers": npz(x=X + 1j, y=Y),
    "pictures and more": npz(x=np.random.default_rng(0).random((60, 8, 8)), z=X, y=Y),
    "pictures with NaN": npz(x=np.full((60, 8, 8), np.nan), y=Y),
    "infinity": npz(x=np.where(X > 2, np.inf, X), y=Y),
    "no array file": archive("readme.txt", b"hello"),
    "a header that lies": archive("y.npy", header(shape=(60,)) + bytes(8)),
    "a header of billions": archive("y.npy", header(shape=(10**12,)) + bytes(10**6)),
    "a header of minus one": archive("y.npy", header(shape=(60,)).replace(b"(60,)", b"(-1,)") + bytes(480)),
    "a bomb": archive("y.npy", bytes(50_000_000)),
    "30,000 features": npz(x=np.zeros((5, 30_000), np.int8), y=Y[:5]),
}
PARQUET: dict[str, bytes] = {
    "empty": b"",
    "junk": JUNK,
    "magic alone": b"PAR1" + JUNK + b"PAR1",
    "half": WHOLE[: len(WHOLE) // 2],
    "without its end": WHOLE[:-8],
    "without its start": WHOLE[100:],
    "damaged inside": WHOLE[:4] + bytes(100) + WHOLE[104:],
    "no rows": as_parquet(n=pa.array([], pa.float64()), y=pa.array([], pa.int64())),
    "no target": as_parquet(n=X[:, 0]),
    "nested lists": as_parquet(n=[[1, 2]] * 60, y=Y),
    "structures": as_parquet(n=[{"a": 1}] * 60, y=Y),
    "bytes": as_parquet(n=[b"ab"] * 60, y=Y),
    "a nested target": as_parquet(n=X[:, 0], y=[[1], [0]] * 30),
    "a target of nothing": as_parquet(n=X[:, 0], y=pa.nulls(60)),
    "infinity": as_parquet(n=np.where(X[:, 0] > 2, X[:, 0], np.inf), y=Y),
}
FILES = [
    *(("csv", name, c.encode() if isinstance(c, str) else c) for name, c in CSV.items()),
    *(("npz", name, content) for name, content in NPZ.items()),
    *(("parquet", name, content) for name, content in PARQUET.items()),
]


def test_there_are_a_hundred() -> None:
    assert len(FILES) + len(FOLDERS) >= 100


def refused(run: Run, tmp_path: Path, *arguments: object) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments)
    assert result.code == 2, result.err
    assert "error: " in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("suffix", "name", "content"), FILES, ids=[f"{s}-{n}" for s, n, _ in FILES])
def test_file(run: Run, tmp_path: Path, suffix: str, name: str, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    options = ("--target", "y", "--epochs", "1")
    refused(run, tmp_path, "fit", path, *options, "-o", tmp_path / "model")
    refused(run, tmp_path, "audit", path, *options, "-o", tmp_path / "report.json")


def no_pictures(folder: Path) -> None:
    folder.mkdir()


def only_text(folder: Path) -> None:
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "notes.txt").write_text("no picture")


def no_classes(folder: Path) -> None:
    write_pictures(folder / "below", per_class=2)
    (folder / "below").rename(folder / "one")


def cut_short(folder: Path) -> None:
    write_pictures(folder)
    file = folder / "sky" / "3.png"
    file.write_bytes(file.read_bytes()[:60])


def text_named_png(folder: Path) -> None:
    write_pictures(folder)
    (folder / "sea" / "x.jpg").write_text("no picture")


def empty_picture(folder: Path) -> None:
    write_pictures(folder)
    (folder / "sea" / "x.png").touch()


def few_pictures(folder: Path) -> None:
    write_pictures(folder, per_class=2)


FOLDERS = [no_pictures, only_text, no_classes, cut_short, text_named_png, empty_picture, few_pictures]


@pytest.mark.parametrize("make", FOLDERS)
def test_folder(run: Run, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "pictures")
    refused(run, tmp_path, "fit", tmp_path / "pictures", "--epochs", 1, "-o", tmp_path / "model")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--target", "z"),
        ("--target", "y", "--group", "z"),
        ("--target", "y", "--group", "y"),
        ("--target", "y", "--ignore", "z"),
        ("--target", "y", "--ignore", "n", "--ignore", "s"),
        ("--target", "y", "--method", "magic"),
        ("--target", "y", "--set", "temperature"),
        ("--target", "y", "--set", "temperature=-1"),
        ("--target", "y", "--set", "temperature=hot"),
        ("--target", "y", "--set", "heat=1"),
        ("--target", "y", "--kind", "n=colour"),
        ("--target", "y", "--kind", "s=number"),
        ("--target", "y", "--kind", "s=picture"),
        ("--target", "y", "--test", "0.99"),
        ("--target", "y", "--test", "nan"),
        ("--target", "y", "--test", "absent.csv"),
        ("--target", "y", "--model", "huge"),
        ("--target", "y", "--model", "cnn"),
        ("--target", "y", "--epochs", "0"),
        ("--target", "y", "--method", "resmem"),
    ],
    ids=" ".join,
)
def test_options(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(GOOD)
    result = run("fit", path, "--epochs", 1, *options, "-o", tmp_path / "model")
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_the_good_file_is_good(run: Run, tmp_path: Path) -> None:
    """So that it is not for another reason that all of the above are refused."""
    (tmp_path / "a.csv").write_text(GOOD)
    options = ("--target", "y", "--method", "erm", "--epochs", 1, "-o", tmp_path / "model")
    assert run("fit", tmp_path / "a.csv", *options).code == 0
    (tmp_path / "a.npz").write_bytes(npz(x=X, y=Y))
    assert run("fit", tmp_path / "a.npz", *options, "--overwrite").code == 0
    (tmp_path / "a.parquet").write_bytes(WHOLE)
    assert run("fit", tmp_path / "a.parquet", *options, "--overwrite").code == 0
    for content in (b"", JUNK, b"n,s,y\n1,2\n"):
        (tmp_path / "bad.csv").write_bytes(content)
        result = run("predict", tmp_path / "model", tmp_path / "bad.csv")
        assert (result.code, result.out) == (2, "")


def made_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(UnroteError):
        assert isinstance(make_task(read_table(path, as_text={"y"}), "y"), TableTask)


QUIET = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.filterwarnings("ignore::unrote.errors.TableWarning")
class TestAnyBytes:
    """Whatever the file holds, it is read or refused; nothing else comes out."""

    @QUIET
    @given(st.binary(max_size=200))
    def test_binary(self, tmp_path: Path, content: bytes) -> None:
        for suffix in ("csv", "npz", "parquet"):
            made_or_refused(tmp_path / f"a.{suffix}", content)

    @QUIET
    @given(st.text(alphabet="a1,;\t|\"\n\r .-e'é?", max_size=200))
    def test_text(self, tmp_path: Path, text: str) -> None:
        made_or_refused(tmp_path / "a.csv", text.encode())
        made_or_refused(tmp_path / "a.csv", ("y," + text).encode())

    @QUIET
    @given(st.data())
    def test_damaged(self, tmp_path: Path, data: st.DataObject) -> None:
        """A good file with a few bytes overwritten."""
        suffix, good = data.draw(
            st.sampled_from([("csv", GOOD.encode()), ("npz", npz(x=X, y=Y)), ("parquet", WHOLE)])
        )
        start = data.draw(st.integers(0, len(good) - 1))
        damage = data.draw(st.binary(min_size=1, max_size=8))
        made_or_refused(tmp_path / f"a.{suffix}", good[:start] + damage + good[start + len(damage) :])

    @QUIET
    @given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2), min_size=1, max_size=40))
    def test_tables_of_anything(self, tmp_path: Path, rows: list[list[str]]) -> None:
        columns = {"n": [row[0] for row in rows], "y": [row[1] for row in rows]}
        path = write_csv(tmp_path / "a.csv", columns)
        made_or_refused(path, path.read_bytes())
