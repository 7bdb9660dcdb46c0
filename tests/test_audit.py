"""An audit finds a shortcut that was put there and labels that were changed, and claims none where none is."""

import json
from pathlib import Path

import numpy as np
import pytest

from unrote.audit import audit_table, judge
from unrote.automatic import Agreement, Evidence
from unrote.errors import OptionError
from unrote.metrics import SubsetAccuracy
from unrote.table_runs import Scores
from unrote.tables import Numbers, Strings, Table, make_task


def numbers(n: int = 2000, shortcut: bool = True, seed: int = 0) -> tuple[Table, np.ndarray]:
    """y is the sign of three numbers' sum; `easy` gives it away but in 1 of 20 rows, if there is a shortcut.

    The first ten labels of the class "no" are changed to "yes"; also gives the changed rows.
    """
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 10))
    y = x[:, :3].sum(1) > 0
    agrees = np.where(random.random(n) < 0.95, y, ~y)
    easy = 3 * (2.0 * agrees - 1) + random.normal(size=n) * 0.3 if shortcut else random.normal(size=n)
    changed = np.flatnonzero(~y & (x[:, :3].sum(1) < -2))[:10]
    y = y.copy()
    y[changed] = True
    columns = {f"x{j}": Numbers(x[:, j]) for j in range(10)}
    table = Table(
        "t",
        {
            **columns,
            "easy": Numbers(easy),
            "agrees": Strings.of(np.where(agrees, "bright", "dark").tolist()),
            "y": Strings.of(np.where(y, "yes", "no").tolist()),
        },
    )
    return table, changed


def test_a_shortcut() -> None:
    table, _ = numbers()
    made = make_task(table, "y", group="agrees", test=0.4, validation=0.0)
    audit = audit_table(made, epochs=25, top=15)
    assert audit.verdict.kind == "signs"
    # the rows that break the shortcut, and hardly any others
    share = {one.name: one.minority for one in audit.composition}
    assert min(share["no, bright"], share["yes, dark"]) > 0.7
    assert max(share["no, dark"], share["yes, bright"]) < 0.1
    assert sum(one.part for one in audit.composition) == pytest.approx(1)
    minority = {
        name: scores.inferred[1].accuracy for name, scores in (("erm", audit.erm), ("mat", audit.mat))
    }
    assert minority["mat"] > minority["erm"] + 0.1
    json.dumps(audit.to_dict(), allow_nan=False)


def test_no_shortcut_but_changed_labels() -> None:
    table, changed = numbers(250, shortcut=False)
    made = make_task(table, "y", ignore=["agrees"], test=0.2, validation=0.0)
    audit = audit_table(made, epochs=300, top=15)
    assert audit.verdict.kind != "signs"
    trained_on = set(changed) & set(made.rows["train"].tolist())
    found = {row.row - 1 for row in audit.rote} & trained_on
    assert len(found) >= 0.5 * len(trained_on)  # 0.7 of 8 would be there by chance
    row = audit.rote[0]
    assert row.memorization == pytest.approx(row.p_train - row.p_held_out)
    assert row.label == table["y"].levels[table["y"].codes[row.row - 1]]
    assert float(row.values["x0"]) == table["x0"].values[row.row - 1]
    memorization = audit.by_row["memorization"]
    assert [one.memorization for one in audit.rote] == sorted(memorization, reverse=True)[:15]
    assert len(memorization) == len(made.task.train)
    assert audit.composition == ()


def test_needs_test_rows() -> None:
    with pytest.raises(OptionError, match="leave a test share"):
        audit_table(make_task(numbers(100)[0], "y", test=0.0), epochs=1)


def scores(overall: float, majority: float, minority: float, n: int = 100) -> Scores:
    return Scores(
        SubsetAccuracy("all", 1000, overall, (0, 1)),
        (),
        (SubsetAccuracy("", 900, majority, (0, 1)), SubsetAccuracy("", n, minority, (0, 1))),
        None,
    )


LEARNABLE, NOISE = 1e-3, 0.4  # p-values


@pytest.mark.parametrize(
    ("erm", "mat", "differ", "p", "kind"),
    [
        ((0.962, 0.987, 0.489), (0.954, 0.972, 0.630), 0.0, LEARNABLE, "signs"),
        ((0.962, 0.987, 0.489), (0.954, 0.972, 0.630), 0.05, LEARNABLE, "none"),
        ((0.962, 0.987, 0.489), (0.954, 0.972, 0.630), 0.0, NOISE, "unclear"),
        ((0.896, 0.941, 0.722), (0.886, 0.914, 0.775), 0.0, NOISE, "none"),
        ((0.825, 0.935, 0.283), (0.703, 0.752, 0.465), 0.01, NOISE, "unclear"),
    ],
)
def test_verdict(erm: tuple[float, ...], mat: tuple[float, ...], differ: float, p: float, kind: str) -> None:
    verdict = judge(
        scores(*erm), scores(*mat), Evidence(Agreement(0.95, differ), 0.1, p_value=p), degenerate=False
    )
    assert verdict.kind == kind
    assert f"{mat[2]:.0%}" in verdict.reason


def test_no_verdict_without_rows_to_go_by() -> None:
    good, evidence = (
        (scores(0.96, 0.98, 0.4), scores(0.96, 0.97, 0.7)),
        Evidence(Agreement(1.0, 0.0), 0.1, p_value=LEARNABLE),
    )
    assert judge(*good, evidence, degenerate=False).kind == "signs"
    assert judge(*good, evidence, degenerate=True).kind == "unknown"
    few = scores(0.96, 0.98, 0.4, n=19), scores(0.96, 0.97, 0.7, n=19)
    assert judge(*few, evidence, degenerate=False).kind == "unknown"
    assert "only 19 test rows" in judge(*few, evidence, degenerate=False).reason.lower()


def test_needs_no_group_labels(tmp_path: Path) -> None:
    """The verdict and the rows are the same whether or not groups are there to score by."""
    table, _ = numbers(300)
    with_groups = make_task(table, "y", group="agrees")
    without = make_task(table, "y", ignore=["agrees"])
    one, other = (audit_table(made, epochs=2, top=3) for made in (with_groups, without))
    assert one.verdict == other.verdict
    assert [row.row for row in one.rote] == [row.row for row in other.rote]
