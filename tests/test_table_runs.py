"""Training on a table: what is shown to whom, and scores that a hand count confirms."""

from typing import Any

import numpy as np
import pytest
import torch
from table_files import people, write_csv

from unrote.errors import OptionError, UnknownNameError
from unrote.table_runs import default_recipe, fit_table, method_for_tables, open_session, score
from unrote.tables import Table, make_task, read_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    path = write_csv(tmp_path_factory.mktemp("runs") / "people.csv", people(300))
    return read_table(path, as_text={"label", "colour"})


def test_scores_by_hand(table: Table) -> None:
    made = make_task(table, "label", group="colour", test=0.3)
    test = made.task.test
    assert test is not None
    random = np.random.default_rng(0)
    predictions, minority = random.integers(0, 2, len(test)), random.random(len(test)) < 0.3
    scores = score(made, torch.from_numpy(predictions), torch.from_numpy(minority))
    columns, rows = people(300), made.rows["test"]
    labels, colours = (np.array(columns[name])[rows] for name in ("label", "colour"))
    right = np.array(["no", "yes"])[predictions] == labels
    assert scores.overall.accuracy == right.mean()
    assert [one.accuracy for one in scores.classes] == [right[labels == c].mean() for c in ("no", "yes")]
    assert [one.accuracy for one in scores.inferred] == [right[minority == m].mean() for m in (False, True)]
    by_group = {f"{c}, {a}": (labels == c) & (colours == a) for c in ("no", "yes") for a in ("blue", "red")}
    assert scores.groups is not None
    assert {one.name: one.accuracy for one in scores.groups.groups} == {
        name: right[member].mean() for name, member in by_group.items()
    }
    assert scores.groups.worst_group.accuracy == min(right[member].mean() for member in by_group.values())


def test_it_learns(table: Table) -> None:
    """Who is over 40 is told from age, to within the noise that was put there."""
    made = make_task(table, "label", test=0.3)
    result = fit_table(made, method_for_tables("erm"), epochs=30)
    assert result.scores is not None
    assert result.scores.overall.accuracy > 0.75


def test_inferred_groups_stand_in_for_missing_ones(table: Table) -> None:
    with_groups = make_task(table, "label", group="colour")
    without = make_task(table, "label")
    rwg = method_for_tables("rwg")
    assert open_session(with_groups, rwg).groups == "true"
    assert open_session(with_groups, rwg).task.train.has_attribute
    assert open_session(without, rwg).groups == "xrm"
    assert not open_session(with_groups, method_for_tables("mat")).task.train.has_attribute


def test_no_test_rows(table: Table) -> None:
    result = fit_table(make_task(table, "label", test=0.0), method_for_tables("erm"), epochs=1)
    assert result.scores is None


@pytest.mark.parametrize("n", [10, 1_000, 30_000, 1_000_000])
def test_recipe(n: int) -> None:
    recipe = default_recipe(n)
    assert recipe.epochs is not None
    assert recipe.batch_size is not None
    assert 5 <= recipe.epochs <= 60
    steps = recipe.epochs * -(-n // recipe.batch_size)
    assert recipe.epochs == 60 or steps >= 600
    assert default_recipe(n, epochs=3).epochs == 3


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("mta", {}, UnknownNameError),
        ("mat", {"temprature": 1.0}, OptionError),
        ("mat", {"temperature": "warm"}, OptionError),
        ("mat", {"temperature": True}, OptionError),
        ("mat", {"held_out": 3}, OptionError),
        ("mat", {"strength": "most"}, OptionError),
        ("jtt", {"upweight": "auto"}, OptionError),
    ],
)
def test_settings_are_checked(name: str, settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        method_for_tables(name, settings)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.1}, {"temperature": "auto"}, {"temperature": 2, "strength": "auto"}]
)
def test_a_number_or_automatic(settings: dict[str, Any]) -> None:
    assert settings.items() <= method_for_tables("mat", settings).settings().items()
