"""The table, made from records written by hand, so that every number in it is known beforehand."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_toys import small_spec

from unrote.benchmark import Store, Table, build_tables, compare
from unrote.benchmark.execution import Outcome
from unrote.benchmark.formats import FORMATS, cells, percent, print_rich
from unrote.benchmark.protocol import Protocol
from unrote.benchmark.tables import Row
from unrote.benchmark.tasks import TaskInfo
from unrote.errors import DataError, OptionError, UnknownNameError

N = {"validation.groups": [10, 10, 0, 10], "validation.classes": [20, 10], "test.groups": [80, 20, 0, 100]}
N |= {"test.classes": [100, 100]}
TRAIN = [90, 5, 2, 3]


def spec(**changes: Any) -> Any:
    recipe = {"learning_rate": [0.1, 0.2], "steps": 5}
    tasks = [{"name": "toy", "label": "a task & more", "model": "linear", "recipe": recipe}]
    criteria = {"none": ["worst_class"], "val": ["worst_group"]}
    base: dict[str, Any] = {"tasks": tasks, "methods": ["erm", "rwy"], "criteria": criteria, "search": 8}
    return small_spec(**{**base, **changes})


def result(right: dict[str, list[list[int]]]) -> dict[str, Any]:
    steps = len(next(iter(right.values())))
    return {"steps": [5 * (k + 1) for k in range(steps)], "right": right, "n": N, "diverged_at": -1}


def looks(*rows: tuple[list[int], list[int]]) -> dict[str, Any]:
    """Per look: right answers by validation group and by test group."""
    classes = [([v[0] + v[1], v[2] + v[3]], [t[0] + t[1], t[2] + t[3]]) for v, t in rows]
    return result(
        {
            "validation.groups": [v for v, _ in rows],
            "validation.classes": [v for v, _ in classes],
            "test.groups": [t for _, t in rows],
            "test.classes": [t for _, t in classes],
        }
    )


GOOD = looks(([9, 6, 0, 8], [72, 10, 0, 90]))
BAD = looks(([10, 5, 0, 10], [80, 2, 0, 100]))
TWO_STEPS = looks(([10, 3, 0, 10], [80, 4, 0, 100]), ([8, 7, 0, 8], [64, 14, 0, 80]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """ERM: the second configuration is chosen; at seed 1 it has two steps, at seed 2 it diverged. RWY failed."""
    made = Store(tmp_path / "s.sqlite")
    info = TaskInfo(
        "a task & more",
        {"name": "toy"},
        model="linear",
        recipe=spec().tasks[0].recipe.model_dump(),
        class_names=("cat", "dog_1"),
        group_names=("cat, in", "cat, out", "dog_1, in", "dog_1, out"),
        sizes={"train": TRAIN, "validation": N["validation.groups"], "test": N["test.groups"]},
        class_sizes={"train": [95, 5]},
    )
    protocol = Protocol(spec(), {info.label: info})
    protocol.save(made)
    for _ in range(3):
        pending = protocol.pending(made.records())
        made.claim(pending)
        for run in pending:
            rate = run.recipe["learning_rate"]
            if run.method == "rwy":
                outcome = Outcome(run.key, "failed", error="DataError: no rows\n\nTraceback ...")
            elif run.seed == 0:
                outcome = Outcome(run.key, "done", GOOD if rate == 0.2 else BAD, seconds=2.0)
            elif run.seed == 1:
                outcome = Outcome(run.key, "done", TWO_STEPS if rate == 0.2 else BAD, seconds=1.0)
            else:
                outcome = Outcome(run.key, "diverged", GOOD, "the loss became NaN or infinite at step 3")
            made.finish([outcome])
    assert protocol.pending(made.records()) == []
    return made


@pytest.fixture
def table(store: Store) -> Table:
    return build_tables(store)


def row(table: Table, method: str, regime: str) -> Row:
    return next(row for row in table.tasks[0].rows if (row.method, row.regime) == (method, regime))


class TestRows:
    def test_the_choice_and_the_step_are_the_criterions(self, table: Table) -> None:
        by_groups = row(table, "erm", "val")
        assert by_groups.configuration is not None
        assert by_groups.configuration["learning_rate"] == 0.2
        assert by_groups.steps == (10, None)  # worst validation group 0.7 after 0.3

    def test_three_averages_by_hand_without_the_empty_group(self, table: Table) -> None:
        values = row(table, "erm", "val").values
        accuracy = {"in": 64 / 80, "out": 14 / 20, "dog": 80 / 100}
        assert values["average"][0] == pytest.approx((64 + 14 + 80) / 200)
        assert values["group_mean"][0] == pytest.approx(sum(accuracy.values()) / 3)
        weighted = 90 * accuracy["in"] + 5 * accuracy["out"] + 3 * accuracy["dog"]
        assert values["reweighted_average"][0] == pytest.approx(weighted / 98)
        assert values["worst_group"][0] == pytest.approx(0.7)
        assert row(table, "erm", "val").worst_group_name == "cat, out"

    def test_a_diverged_seed_is_counted_as_such_and_not_averaged(self, table: Table) -> None:
        found = row(table, "erm", "val")
        assert found.diverged == 1
        assert found.values["worst_group"][1] is None
        spread = found.spread("worst_group")
        assert spread is not None
        assert spread.n == 1
        assert "1/2, 1 diverged" in cells(found)

    def test_failures_are_said(self, table: Table) -> None:
        found = row(table, "rwy", "val")
        assert found.lost == found.tried == 2
        assert "DataError: no rows" in found.note

    def test_the_gap_to_the_oracle(self, table: Table) -> None:
        oracle = row(table, "erm", "oracle")
        assert oracle.is_oracle
        assert oracle.gap is None
        # by the worst class the first configuration looks better, and its worst test group has 0.1
        free = row(table, "erm", "none")
        assert free.configuration is not None
        assert free.configuration["learning_rate"] == 0.1
        assert free.gap == pytest.approx(0.7 - 0.1)


class TestFormats:
    def test_every_format_states_what_the_numbers_rest_on(self, table: Table) -> None:
        for name in ("markdown", "latex", "json"):
            text = FORMATS[name](table)
            for wanted in ("erm", "oracle", "none", "val"):
                assert wanted in text, (name, wanted)
        markdown = FORMATS["markdown"](table)
        for wanted in (
            "80 cat, in; 20 cat, out; 0 dog",
            "2 seeds (1 to 2) on the same data",
            "8 configurations",
            "re-weighted",
        ):
            assert wanted in markdown, wanted
        assert "oracle (test labels)" in markdown
        assert "TEST" in markdown

    def test_csv_reads_back(self, table: Table) -> None:
        rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](table))))
        assert len(rows) == len(table.tasks[0].rows)
        found = next(r for r in rows if (r["method"], r["regime"]) == ("erm", "val"))
        assert float(found["worst_group"]) == pytest.approx(0.7)
        assert found["worst_group_sd"] == ""
        assert found["test_n_per_group"] == "80 20 0 100"
        assert (found["configurations_tried"], found["diverged"]) == ("2", "1")
        assert {r["uses_test_labels"] for r in rows if r["criterion"] == "oracle"} == {"True"}

    def test_json_has_null_where_there_is_nothing(self, table: Table) -> None:
        rows = json.loads(FORMATS["json"](table))["rows"]
        failed = [r for r in rows if r["method"] == "rwy"]
        assert all(r["summary"]["worst_group"] is None for r in failed)

    def test_latex_escapes(self, table: Table) -> None:
        latex = FORMATS["latex"](table)
        assert r"a task \& more" in latex
        assert r"dog\_1" in latex
        body = [line for line in latex.splitlines() if line.endswith(r"\\")]
        assert len({line.count(" & ") for line in body}) == 1

    def test_rich_prints(self, table: Table, capsys: pytest.CaptureFixture[str]) -> None:
        print_rich(table)
        shown = capsys.readouterr().out
        assert "70.0" in shown
        assert "oracle (test labels)" in shown

    def test_percent(self, table: Table) -> None:
        assert percent(row(table, "erm", "val"), "worst_group", interval=True) == "70.0"


class TestCompare:
    def test_pairs_seeds_that_both_have(self, table: Table) -> None:
        (found,) = compare(table, "erm:val", "erm:none")
        assert found.seeds == (1,)
        assert found.difference.mean == pytest.approx(0.7 - 0.1)
        assert found.p == 1.0

    def test_what_has_no_results_cannot_be_compared(self, table: Table) -> None:
        with pytest.raises(DataError, match="both 'erm' and 'rwy'"):
            compare(table, "erm", "rwy")

    def test_unknown_rows(self, table: Table) -> None:
        with pytest.raises(UnknownNameError, match="'emr': did you mean 'erm'"):
            compare(table, "emr", "rwy")
        with pytest.raises(OptionError, match="the table has erm:none:worst_class"):
            compare(table, "erm:train", "rwy")
        with pytest.raises(OptionError, match="the same row"):
            compare(table, "erm", "erm:none")
        with pytest.raises(UnknownNameError, match="metric"):
            compare(table, "erm", "rwy", "speed")
