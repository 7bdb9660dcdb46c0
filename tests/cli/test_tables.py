"""`unrote fit`, `predict` and `audit` on files as users have them, from the first row to the exit code."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from table_files import people, write_csv, write_pictures

import unrote

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """people.csv with labels, new.csv without, and a model of the first."""
    folder = tmp_path_factory.mktemp("cli")
    write_csv(folder / "people.csv", people(300))
    new = people(50, seed=1)
    del new["label"]
    write_csv(folder / "new.csv", new)
    arguments = ["people.csv", "--target", "label", "--group", "colour", "--epochs", "2", "-o", "model"]
    # in a process of its own, as a shell would run it, which finds the package though its folder is another
    result = subprocess.run(
        [sys.executable, "-c", "from unrote.cli import main; main()", "fit", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "100", "PYTHONPATH": str(Path(unrote.__file__).parents[1])},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


class TestFit:
    def test_prints_scores_by_class_and_group(self, run: Run, folder: Path, tmp_path: Path) -> None:
        result = run(
            "fit",
            folder / "people.csv",
            "--target",
            "label",
            "--group",
            "colour",
            "--epochs",
            1,
            "-o",
            tmp_path / "m",
        )
        assert result.code == 0, result.err
        for wanted in (
            "Is there a shortcut? The training rows show",
            "MAT trained on 210 rows of people.csv, scored on 60 rows that it never saw",
            "95% interval",
            "by label and colour",
            "inferred minority",
            "no, blue",
            "worst group",
            "unrote predict",
        ):
            assert wanted in result.out
        assert max(map(len, result.out.replace(str(tmp_path), "").splitlines())) <= 100
        # progress is not a result
        assert "XRM" in result.err
        assert "━" not in result.out
        assert sorted(p.name for p in (tmp_path / "m").iterdir())[0] == "model.json"

    def test_json(self, run: Run, folder: Path, tmp_path: Path) -> None:
        path = folder / "people.csv"
        result = run(
            "fit",
            path,
            "--target",
            "label",
            "--epochs",
            1,
            "--method",
            "erm",
            "--seed",
            3,
            "--json",
            "-o",
            tmp_path / "m",
        )
        record = json.loads(result.out)
        assert record["method"] == "erm"
        assert record["seed"] == 3
        assert record["scores"]["overall"]["n"] == 60
        assert record["scores"]["groups"] is None
        assert record["warnings"] == []
        assert sum(one["n"] for one in record["scores"]["classes"]) == 60

    def test_same_seed_same_model(self, run: Run, folder: Path, tmp_path: Path) -> None:
        """As in another process, with shape checks off."""
        options = ("--target", "label", "--group", "colour", "--epochs", 2)
        assert run("fit", folder / "people.csv", *options, "-o", tmp_path / "m").code == 0
        here, there = (parent / "weights.safetensors" for parent in (tmp_path / "m", folder / "model"))
        assert here.read_bytes() == there.read_bytes()

    def test_options(self, run: Run, folder: Path, tmp_path: Path) -> None:
        write_csv(tmp_path / "test.csv", people(40, seed=2))
        result = run(
            *("fit", folder / "people.csv", "--target", "label", "--test", tmp_path / "test.csv"),
            *("--validation", "0", "--ignore", "note", "--ignore", "colour", "--kind", "visits=category"),
            *("--method", "rwg", "--model", "linear", "--epochs", 1, "-o", tmp_path / "m", "--json"),
        )
        assert result.code == 0, result.err
        assert json.loads(result.out)["rows"] == {"train": 300, "test": 40}
        kinds = json.loads((tmp_path / "m" / "model.json").read_text())["preprocessing"]["kinds"]
        assert kinds == {
            "age": "number",
            "visits": "category",
            "city": "category",
            "job": "category",
            "joined": "date",
        }

    def test_settings_of_the_method(self, run: Run, folder: Path, tmp_path: Path) -> None:
        options = ("--target", "label", "--epochs", 1, "--set", "temperature=0.5", "--set", "held_out=kfold")
        assert run("fit", folder / "people.csv", *options, "-o", tmp_path / "m").code == 0
        record = json.loads((tmp_path / "m" / "model.json").read_text())
        assert record["method"]["settings"] == {
            "temperature": 0.5,
            "held_out": "kfold",
            "strength": 1.0,
            "shortcuts": None,
        }

    def test_a_saved_model_is_not_replaced_unasked(self, run: Run, folder: Path, tmp_path: Path) -> None:
        data = ("fit", folder / "people.csv", "--target", "label")
        options = (*data, "--method", "erm", "--epochs", 1, "-o", tmp_path / "m")
        assert run(*options).code == 0
        refused = run(*options)
        assert refused.code == 2
        assert "--overwrite" in refused.err
        assert refused.out == ""
        assert run(*options, "--overwrite").code == 0

    def test_warnings_name_columns(self, run: Run, tmp_path: Path) -> None:
        columns = people(100)
        columns["id"] = [f"user-{k}" for k in range(100)]
        columns["[red]"] = ["same"] * 100
        columns["label"][7] = ""
        path = write_csv(tmp_path / "a.csv", columns)
        options = ("--target", "label", "--method", "erm", "--epochs", 1, "--json")
        result = run("fit", path, *options, "-o", tmp_path / "m")
        assert "left out column 'id': nearly every value is different" in result.err
        assert "left out column '[red]': all values are the same" in result.err
        assert "1 of 100 rows have no 'label'" in result.err
        assert len(json.loads(result.out)["warnings"]) == 3

    def test_warnings_of_methods_are_shown_and_those_of_libraries_are_not(self, capsys: Any) -> None:
        import warnings

        from unrote.cli.table_options import warnings_on_stderr

        methods = str(Path(unrote.__file__).parent / "methods" / "jtt.py")
        with warnings_on_stderr() as said:
            for _ in range(2):
                warnings.warn_explicit("the error set is empty", UserWarning, methods, 1)
            warnings.warn("of a library", UserWarning, stacklevel=1)
            warnings.warn_explicit("soon to change", FutureWarning, methods, 1)
        assert said == ["the error set is empty"]
        assert capsys.readouterr().err == "warning: the error set is empty\n"

    @pytest.mark.parametrize("kind", ["parquet", "npz", "pictures"])
    def test_other_files(self, run: Run, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"a.{kind}"
        target: tuple[str, ...] = ("--target", "label")
        random = np.random.default_rng(0)
        if kind == "parquet":
            parquet.write_table(pa.table({"n": random.normal(size=60), "label": [True, False] * 30}), path)
        elif kind == "npz":
            np.savez(path, x=random.normal(size=(60, 4)), label=np.arange(60) % 3)
        else:
            path, target = write_pictures(tmp_path / "pictures"), ("--picture-size", "16")
        assert run("fit", path, *target, "--epochs", 1, "-o", tmp_path / "m").code == 0
        result = run("predict", tmp_path / "m", path)
        assert result.code == 0, result.err
        # a folder to classify need not be sorted into classes, so none are looked for
        assert ("rows agree with their" in result.err) == (kind != "pictures")
        assert len(result.out.splitlines()) == (25 if kind == "pictures" else 61)


class TestPredict:
    def test_csv_on_standard_output(self, run: Run, folder: Path) -> None:
        """Of a model that another process saved."""
        result = run("predict", folder / "model", folder / "new.csv")
        rows = list(csv.DictReader(io.StringIO(result.out)))
        assert [row["row"] for row in rows] == [str(k + 1) for k in range(50)]
        for row in rows:
            p = {name: float(row[f"p({name})"]) for name in ("no", "yes")}
            assert sum(p.values()) == pytest.approx(1, abs=1e-4)
            assert row["prediction"] == max(p, key=p.__getitem__)

    def test_files(self, run: Run, folder: Path, tmp_path: Path) -> None:
        printed = run("predict", folder / "model", folder / "new.csv").out
        for name in ("p.csv", "p.parquet"):
            result = run("predict", folder / "model", folder / "new.csv", "-o", tmp_path / name)
            assert result.code == 0
            assert result.out == ""
        assert (tmp_path / "p.csv").read_text() == printed
        table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
        assert table["prediction"] == [row["prediction"] for row in csv.DictReader(io.StringIO(printed))]
        refused = run("predict", folder / "model", folder / "new.csv", "-o", tmp_path / "p.csv")
        assert refused.code == 2
        assert (
            run("predict", folder / "model", folder / "new.csv", "-o", tmp_path / "p.csv", "--overwrite").code
            == 0
        )

    def test_json(self, run: Run, folder: Path) -> None:
        records = json.loads(run("predict", folder / "model", folder / "new.csv", "--json").out)
        assert len(records) == 50
        assert set(records[0]) == {"row", "prediction", "probabilities"}
        assert set(records[0]["probabilities"]) == {"no", "yes"}

    def test_columns_in_another_order_and_more_of_them(self, run: Run, folder: Path, tmp_path: Path) -> None:
        columns = people(50, seed=1)
        del columns["label"]
        turned = write_csv(
            tmp_path / "turned.csv", {"new": list(range(50)), **dict(reversed(columns.items()))}
        )
        result = run("predict", folder / "model", turned)
        assert result.out == run("predict", folder / "model", folder / "new.csv").out
        assert "not trained on ignored: 'new'" in " ".join(result.err.split())

    def test_missing_columns(self, run: Run, folder: Path, tmp_path: Path) -> None:
        columns = people(50, seed=1)
        del columns["age"], columns["city"]
        result = run("predict", folder / "model", write_csv(tmp_path / "a.csv", columns))
        assert result.code == 2
        assert "lacks columns 'age', 'city'" in result.err
        assert result.out == ""

    def test_without_the_group_column(self, run: Run, folder: Path, tmp_path: Path) -> None:
        """The model never saw it, so nobody has to have it."""
        columns = people(50, seed=1)
        del columns["label"], columns["colour"]
        result = run("predict", folder / "model", write_csv(tmp_path / "a.csv", columns))
        assert result.out == run("predict", folder / "model", folder / "new.csv").out

    def test_unseen_categories(self, run: Run, folder: Path, tmp_path: Path) -> None:
        columns = people(50, seed=1)
        columns["city"][0] = "Atlantis"
        result = run("predict", folder / "model", write_csv(tmp_path / "a.csv", columns))
        assert result.code == 0
        assert "'Atlantis'" in result.err

    def test_a_tampered_model(self, run: Run, folder: Path, tmp_path: Path) -> None:
        import shutil

        shutil.copytree(folder / "model", tmp_path / "m")
        text = (tmp_path / "m" / "model.json").read_text()
        (tmp_path / "m" / "model.json").write_text(text.replace('"no"', '"NO"', 1))
        result = run("predict", tmp_path / "m", folder / "new.csv")
        assert result.code == 2
        assert "does not match its recorded hash" in " ".join(result.err.split())


class TestAudit:
    def test_report(self, run: Run, folder: Path, tmp_path: Path) -> None:
        options = ("--target", "label", "--group", "colour", "--epochs", 2, "--top", 4)
        result = run("audit", folder / "people.csv", *options, "-o", tmp_path / "rows.csv")
        assert result.code == 0, result.err
        for wanted in (
            "Is there a shortcut to label?",
            "is for you to say",
            "inferred minority",
            "ERM",
            "MAT",
            "made of? (by colour)",
            "Which rows are learned by rote?",
            "p without",
        ):
            assert wanted in result.out
        assert max(map(len, result.out.splitlines())) <= 100
        rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
        assert len(rows) == 240
        first = people(300)["label"]
        assert all(row["label"] == first[int(row["row"]) - 1] for row in rows)

    def test_json(self, run: Run, folder: Path, tmp_path: Path) -> None:
        options = ("--target", "label", "--epochs", 1, "--top", 3, "--json", "-o", tmp_path / "a.json")
        result = run("audit", folder / "people.csv", *options)
        record = json.loads(result.out)
        assert record == json.loads((tmp_path / "a.json").read_text())
        assert record["verdict"]["kind"] in ("signs", "unclear", "none", "unknown")
        assert len(record["rote"]) == 3
        assert record["rows"] == {"train": 240, "test": 60}


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['unrote', '--help']\n"
        "from unrote.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(command in out for command in ("fit", "predict", "audit"))
    loaded = set(out.split("LOADED")[1].split())
    assert loaded & {"torch", "numpy", "sklearn", "scipy", "pyarrow", "pandas", "matplotlib", "PIL"} == set()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_memory_of_a_large_table(tmp_path: Path) -> None:
    """From file to saved model, 40,000 rows of 50 columns take little more than the libraries do.

    benchmarks/table_memory.py has the million. The peak is the kernel's for this program: getrusage's would start
    from that of the tests' process, which was forked.
    """
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from table_memory import write_table

    write_table(tmp_path / "a.parquet", 40_000)
    code = (
        "import sys\n"
        "def peak(): return next(int(l.split()[1]) / 1e3 for l in open('/proc/self/status') if 'VmHWM' in l)\n"
        "import sklearn.feature_extraction.text, sklearn.impute, scipy.stats, pyarrow.parquet, torch\n"
        "libraries = peak()\n"
        "from unrote.cli import main\n"
        "sys.argv = ['unrote', 'fit', sys.argv[1], '--target', 'label', '--model', 'linear', '--method', 'erm',\n"
        "            '--epochs', '1', '-o', sys.argv[2], '--json']\n"
        "try: main()\n"
        "finally: print('PEAK', peak() - libraries)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.parquet"), str(tmp_path / "model")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # 1,162 features of 40,000 rows are 186 MB, held twice while they are put together
    assert float(out.split("PEAK")[1]) < 600
