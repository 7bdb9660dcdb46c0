"""A table becomes a task with named classes and groups, and splits that share no row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table_files import people, write_csv

from unrote.errors import DataError, OptionError, TableWarning, UnknownNameError
from unrote.tables import Numbers, Strings, Table, make_task, read_table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return read_table(write_csv(tmp_path / "people.csv", people(300)), as_text={"label", "colour"})


def one_column(y: Any, n: int = 60) -> Table:
    return Table("t", {"x": Numbers(np.random.default_rng(0).normal(size=n)), "y": y})


class TestSplits:
    def test_shares_within_each_class(self, table: Table) -> None:
        made = make_task(table, "label", group="colour", validation=0.1, test=0.3)
        rows = np.concatenate(list(made.rows.values()))
        assert sorted(rows) == list(range(300))
        labels = np.array(people(300)["label"])
        for name, share in (("validation", 0.1), ("test", 0.3), ("train", 0.6)):
            for label in ("no", "yes"):
                total = (labels == label).sum()
                assert (labels[made.rows[name]] == label).sum() == pytest.approx(share * total, abs=1)

    def test_labels_and_groups_are_those_of_the_rows(self, table: Table) -> None:
        made = make_task(table, "label", group="colour")
        columns, task = people(300), made.task
        for name, split in task.splits.items():
            rows = made.rows[name]
            assert [task.class_names[c] for c in split.y.tolist()] == [columns["label"][r] for r in rows]
            groups = [task.group_names[g] for g in task.group(split).tolist()]
            assert groups == [f"{columns['label'][r]}, {columns['colour'][r]}" for r in rows]

    def test_seed(self, table: Table) -> None:
        first, again, other = (make_task(table, "label", seed=seed).rows["test"] for seed in (0, 0, 1))
        assert first.tolist() == again.tolist() != other.tolist()

    def test_files_of_their_own(self, table: Table, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "new.csv", people(40, seed=1))
        made = make_task(table, "label", validation=0.0, test=read_table(path, as_text={"label"}))
        assert made.task.validation is None
        assert len(made.task.train) == 300
        assert made.task.test is not None
        assert len(made.task.test) == 40

    def test_a_class_that_training_lacks(self, table: Table, tmp_path: Path) -> None:
        columns = people(40, seed=1)
        columns["label"][3] = "maybe"
        test = read_table(write_csv(tmp_path / "new.csv", columns), as_text={"label"})
        with pytest.raises(DataError, match="'label' is 'maybe' in row 4; training has 'no', 'yes'"):
            make_task(table, "label", test=test)

    def test_the_model_is_not_shown_target_group_or_ignored(self, table: Table) -> None:
        made = make_task(table, "label", group="colour", ignore=["city"])
        assert set(made.preprocessor.kinds) == {"age", "visits", "job", "note", "joined"}


class TestClasses:
    def test_numbers_are_ordered_by_size(self) -> None:
        made = make_task(one_column(Numbers(np.arange(60) % 12)), "y")
        assert made.task.class_names == tuple(map(str, range(12)))

    def test_rows_without_a_class_are_left_out(self) -> None:
        y = Strings.of(["a", "b", None] * 20)
        with pytest.warns(TableWarning, match="20 of 60 rows have no 'y'"):
            made = make_task(one_column(y), "y")
        assert sum(map(len, made.rows.values())) == 40

    @pytest.mark.parametrize(
        ("y", "why"),
        [
            (Strings.of(["a"] * 60), "is 'a' in all rows"),
            (Strings.of([None] * 60), "has no values"),
            (Strings.of(["a"] * 57 + ["b"] * 3), "'b' has 3"),
            (Numbers(np.linspace(0, 1, 60)), "numbers to estimate"),
            (Strings.of([f"n{k}" for k in range(60)]), "almost a class per row"),
        ],
    )
    def test_faults_are_named(self, y: Any, why: str) -> None:
        with pytest.raises(DataError, match=why):
            make_task(one_column(y), "y")


class TestOptions:
    def test_unknown_columns(self, table: Table) -> None:
        for options in (
            {"target": "labl"},
            {"target": "label", "group": "color"},
            {"target": "label", "ignore": ["x"]},
        ):
            with pytest.raises(UnknownNameError):
                make_task(table, **options)

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"group": "label"}, "both 'label'"),
            ({"ignore": ["label"]}, "cannot be ignored"),
            ({"test": 1.5}, "share in"),
            ({"test": -0.1}, "share in"),
            ({"test": float("nan")}, "share in"),
            ({"test": 0.6, "validation": 0.35}, "at least 10%"),
            ({"group": "note"}, "300 different values"),
        ],
    )
    def test_faults_are_named(self, table: Table, options: dict[str, Any], why: str) -> None:
        with pytest.raises((OptionError, DataError), match=why):
            make_task(table, "label", **options)

    def test_missing_attributes_are_an_attribute(self) -> None:
        group = Strings.of(["m", "f", None] * 20)
        table = Table("t", {**one_column(Numbers(np.arange(60) % 2)).columns, "g": group})
        assert make_task(table, "y", group="g").task.attribute_names == ("(missing)", "f", "m")
