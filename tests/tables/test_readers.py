"""Real files of every kind become the columns that a person would say they have."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from table_files import people, write_csv, write_pictures, write_rows

from unrote.errors import DataError, MissingPackageError, UnknownNameError
from unrote.tables import Dates, Numbers, Pictures, Strings, Table, read_table
from unrote.tables.columns import Unusable, as_dates, as_numbers, as_strings, parse_number


def values(table: Table, name: str) -> list[str | None]:
    """The strings of a column, None where missing."""
    column = as_strings(table[name])
    return [None if code < 0 else column.levels[code] for code in column.codes]


class TestCSV:
    def test_columns(self, tmp_path: Path) -> None:
        wanted = people(50)
        table = read_table(write_csv(tmp_path / "a.csv", wanted))
        assert list(table.columns) == list(wanted)
        assert len(table) == 50
        kinds = {name: type(column) for name, column in table.columns.items()}
        assert kinds["age"] is kinds["visits"] is Numbers
        assert kinds["joined"] is Dates
        assert kinds["city"] is kinds["note"] is Strings
        ages = np.array([np.nan if value == "" else value for value in wanted["age"]], float)
        np.testing.assert_array_equal(as_numbers(table["age"])[0], ages)
        assert values(table, "city") == wanted["city"]
        assert values(table, "job") == [job or None for job in wanted["job"]]
        assert as_dates(table["joined"])[0].astype("datetime64[D]").astype(str).tolist() == wanted["joined"]

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    def test_delimiter_and_encoding(self, tmp_path: Path, delimiter: str, encoding: str) -> None:
        rows = [["naïve, or; not", "n"], ["Málaga", "1.5"], ["Zürich | x", "2"], ["tab\there", "-3"]]
        path = write_rows(tmp_path / "a.csv", rows, encoding, delimiter)
        table = read_table(path)
        assert list(table.columns) == ["naïve, or; not", "n"]
        assert values(table, "naïve, or; not") == ["Málaga", "Zürich | x", "tab\there"]
        assert as_numbers(table["n"])[0].tolist() == [1.5, 2, -3]

    def test_missing_values(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("n,s\n1,x\nNA, ?\n,\n 3 ,None\nnull,nan\n")
        table = read_table(path)
        np.testing.assert_array_equal(as_numbers(table["n"])[0], [1, np.nan, np.nan, 3, np.nan])
        assert values(table, "s") == ["x", None, None, "None", None]

    def test_decimal_comma(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("price;city\n1,5;Bonn\n-2;Köln\n;Ulm\n", encoding="utf-8")
        np.testing.assert_array_equal(as_numbers(read_table(path)["price"])[0], [1.5, -2, np.nan])

    def test_as_text_keeps_what_is_written(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("code,n\n007,1\n1.0,2\n")
        assert values(read_table(path, as_text={"code"}), "code") == ["007", "1.0"]

    def test_quoted_newlines_and_unnamed_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text('"the\nname",,\n"two\nlines",1,a\nb,2,c\n')
        table = read_table(path)
        assert list(table.columns) == ["the\nname", "column 2", "column 3"]
        assert values(table, "the\nname") == ["two\nlines", "b"]

    def test_a_late_word_makes_strings_of_numbers(self, tmp_path: Path) -> None:
        """However far down it stands: the type does not depend on what was read first."""
        rows = [["n"], *([[k] for k in range(50_000)]), ["word"]]
        column = read_table(write_rows(tmp_path / "a.csv", rows))["n"]
        assert isinstance(column, Strings)
        assert column.levels[column.codes[-1]] == "word"
        assert as_numbers(column)[1].nonzero()[0].tolist() == [50_000]

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"a,b\n1,2\n3\n", "Expected 2 columns, got 1"),
            (b"a,b\n1,2\n3,4,5\n", "Expected 2 columns, got 3"),
            (b'a,b\n1,"2\n', "never closed"),
            (b'a,b\n1,"2\n3,4\n5,6\n', "never closed"),
            (b'a,b\n"1,2\n3,4\n', "cannot be read as 2 columns"),
            (b"a,a\n1,2\n", "more than one column named 'a'"),
            (b"a,b\n", "no rows"),
            (b"", "is empty"),
            (b"\n \n", "is empty"),
            (b"a,b\n1,\x00\n", "zero bytes"),
            (b"a,b\n1,\x07\n", "control characters"),
            (b"a,b\n1,\x81\x8d\n", "save it as UTF-8"),
            (b"PK\x03\x04....", "zip archive"),
            (b"\x1f\x8b....", "gzipped"),
            (b"PAR1....", "Parquet"),
        ],
    )
    def test_faults_are_named(self, tmp_path: Path, content: bytes, why: str) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        with pytest.raises(DataError, match=why):
            read_table(path)

    def test_too_many_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text(",".join(f"c{k}" for k in range(20_001)) + "\n" + ",".join("1" * 20_001) + "\n")
        with pytest.raises(DataError, match="20,001 columns: at most 20,000"):
            read_table(path)

    def test_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_csv(tmp_path / "a.csv", people(5))
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(MissingPackageError, match=r"unrote\[tables\]"):
            read_table(path)


class TestParquet:
    def test_types(self, tmp_path: Path) -> None:
        table = pa.table(
            {
                "whole": pa.array([1, None, 3]),
                "real": pa.array([0.5, 1.5, None], pa.float32()),
                "truth": pa.array([True, False, None]),
                "word": pa.array(["a", " b ", ""]),
                "category": pa.array(["x", "y", "x"]).dictionary_encode(),
                "moment": pa.array(np.array(["2020-01-01T10", "NaT", "1969-12-31T23"], "datetime64[ms]")),
                "decimal": pa.array([1, 2, 3]).cast(pa.decimal128(22, 2)),
                "nothing": pa.nulls(3),
                "list": pa.array([[1], [2, 3], None]),
            }
        )
        parquet.write_table(table, tmp_path / "a.parquet")
        read = read_table(tmp_path / "a.parquet")
        nan = np.nan
        numbers = {"whole": [1, nan, 3], "real": [0.5, 1.5, nan], "truth": [1, 0, nan], "decimal": [1, 2, 3]}
        for name, wanted in numbers.items():
            np.testing.assert_array_equal(as_numbers(read[name])[0], wanted)
        assert values(read, "word") == ["a", "b", None]
        assert values(read, "category") == ["x", "y", "x"]
        assert values(read, "moment") == ["2020-01-01T10:00:00", None, "1969-12-31T23:00:00"]
        assert read["nothing"].missing.all()
        assert isinstance(read["list"], Unusable)

    def test_truncated(self, tmp_path: Path) -> None:
        parquet.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
        content = (tmp_path / "a.parquet").read_bytes()
        for n in (0, 3, len(content) // 2, len(content) - 1):
            (tmp_path / "b.parquet").write_bytes(content[:n])
            with pytest.raises(DataError, match="cannot be read as Parquet"):
                read_table(tmp_path / "b.parquet")


class TestNPZ:
    def test_arrays(self, tmp_path: Path) -> None:
        np.savez(
            tmp_path / "a.npz",
            x=np.arange(6, dtype=np.float16).reshape(3, 2),
            y=np.array(["a ", "", "b"]),
            t=np.array([True, False, True]),
            when=np.array(["2020-01-01", "NaT", "2021-01-01"], "datetime64[D]"),
        )
        table = read_table(tmp_path / "a.npz")
        assert list(table.columns) == ["x[0]", "x[1]", "y", "t", "when"]
        assert as_numbers(table["x[1]"])[0].tolist() == [1, 3, 5]
        assert values(table, "y") == ["a", None, "b"]
        assert table["when"].missing.tolist() == [False, True, False]

    @pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 8, 8, 3), (4, 8, 8)])
    def test_pictures(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        array = np.random.default_rng(0).random(shape)
        np.savez(tmp_path / "a.npz", x=array, y=np.arange(4))
        pictures = read_table(tmp_path / "a.npz")["x"]
        assert isinstance(pictures, Pictures)
        channels_first = array.transpose(0, 3, 1, 2) if shape[-1] == 3 else array.reshape(4, -1, 8, 8)
        np.testing.assert_allclose(pictures.values, channels_first, rtol=1e-6)

    def test_objects_are_not_unpickled(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> object:
                return (Path.touch, (tmp_path / "sprung",))

        np.savez(tmp_path / "a.npz", x=np.array([Trap()], object), y=np.array([1]))
        with pytest.raises(DataError, match="'x' holds pickled objects"):
            read_table(tmp_path / "a.npz")
        assert not (tmp_path / "sprung").exists()

    def test_a_small_file_of_many_zeros(self, tmp_path: Path) -> None:
        """200 KB that would unpack to gigabytes are refused by their header."""
        import io
        import zipfile

        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (2_000_000_000,)}
        )
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", header.getvalue() + bytes(1_000_000))
        with pytest.raises(DataError, match="at most 1,000,000,000 values"):
            read_table(tmp_path / "a.npz")

    def test_lengths_differ(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.arange(4))
        with pytest.raises(DataError, match="'x' has 3 rows and 'y' 4"):
            read_table(tmp_path / "a.npz")


class TestPictures:
    def test_folder(self, tmp_path: Path) -> None:
        table = read_table(write_pictures(tmp_path / "p", per_class=3), picture_size=8)
        assert values(table, "class") == ["sea"] * 3 + ["sky"] * 3
        pictures = table["picture"]
        assert isinstance(pictures, Pictures)
        assert pictures.values.shape == (6, 3, 8, 8)
        top, bottom = (pictures.values[:, :, half].mean((1, 2, 3)) for half in (slice(0, 4), slice(4, 8)))
        assert (bottom > top).tolist() == [True] * 3 + [False] * 3
        assert table.row_name(4) == str(Path("sky") / "1.png")

    def test_unlabelled(self, tmp_path: Path) -> None:
        table = read_table(write_pictures(tmp_path / "p", per_class=2) / "sky", labelled=False)
        assert list(table.columns) == ["picture"]
        assert [table.row_name(k) for k in range(2)] == ["0.png", "1.png"]

    def test_faults_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="no pictures"):
            read_table(tmp_path / "empty")
        folder = write_pictures(tmp_path / "p", per_class=2)
        (folder / "sky" / "0.png").write_bytes((folder / "sky" / "0.png").read_bytes()[:100])
        with pytest.raises(DataError, match=r"0\.png cannot be read as a picture"):
            read_table(folder)
        for file in (folder / "sky").iterdir():
            file.unlink()
        with pytest.raises(DataError, match="pictures of one class, 'sea'"):
            read_table(folder)


def test_other_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(DataError, match=r"ends in '\.xlsx'"):
        read_table(tmp_path / "a.xlsx")


def test_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    table = read_table(write_csv(tmp_path / "a.csv", people(5)))
    with pytest.raises(UnknownNameError, match="did you mean 'colour'"):
        table["color"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1.0), (" -2.5e3 ", -2500.0), ("+.5", 0.5), ("3,25", 3.25), ("7.", 7.0)],
)
def test_numbers_in_strings(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "1_000", "nan", "infinity", "0x10", "1,000,000", "five", "5%", "1e"])
def test_no_numbers_in_strings(text: str) -> None:
    assert np.isnan(parse_number(text))


def test_strings_of_other_columns() -> None:
    numbers = Table(
        "t", {"a": Numbers(np.array([1.0, 2.5, np.nan, -0.0])), "b": Numbers(np.array([True] * 4))}
    )
    assert values(numbers, "a") == ["1", "2.5", None, "0"]
    assert values(numbers, "b") == ["True"] * 4
