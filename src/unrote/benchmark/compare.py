"""Two methods against each other, seed by seed."""

from dataclasses import dataclass

from unrote.benchmark.statistics import Spread, sign_flip_test, spread
from unrote.benchmark.tables import METRICS, Row, Table
from unrote.errors import DataError, OptionError, UnknownNameError


@dataclass(frozen=True)
class Comparison:
    """A against B on one task, paired over seeds.

    Args:
        task: label.
        metric: what is compared, on the test split.
        a: one side's row.
        b: the other's.
        seeds: at which both have a value.
        a_mean: of these.
        b_mean: of these.
        difference: A less B: mean, deviation and 95% interval of the paired differences.
        p: two-sided, of the exact sign-flip test (the paired t test beyond 16 seeds).
    """

    task: str
    metric: str
    a: Row
    b: Row
    seeds: tuple[int, ...]
    a_mean: float
    b_mean: float
    difference: Spread
    p: float

    @property
    def smallest_p(self) -> float:
        """The smallest p that so few seeds could show."""
        return float(2.0 ** (1 - len(self.seeds)))


def compare(table: Table, a: str, b: str, metric: str = "worst_group") -> list[Comparison]:
    """Compare two rows on every task that has both.

    Args:
        table: of a benchmark.
        a: METHOD, METHOD:REGIME or METHOD:REGIME:CRITERION; what is left out is the table's first.
        b: likewise.
        metric: one of `METRICS`.

    Raises:
        UnknownNameError: if there is no such method or metric.
        OptionError: if a method has no such regime or criterion, or both sides are the same row.
        DataError: if no task has results of both at the same seeds.
    """
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    found = []
    for task in table.tasks:
        one, other = find_row(task.rows, a), find_row(task.rows, b)
        if one == other:
            raise OptionError(f"{a!r} and {b!r} are the same row of the table: two different ones are wanted")
        pairs = [
            (seed, x, y)
            for seed, x, y in zip(one.seeds, one.values[metric], other.values[metric], strict=False)
            if x is not None and y is not None
        ]
        if not pairs:
            continue
        differences = [x - y for _, x, y in pairs]
        difference = spread(differences)
        assert difference is not None
        found.append(
            Comparison(
                task=task.info.label,
                metric=metric,
                a=one,
                b=other,
                seeds=tuple(seed for seed, _, _ in pairs),
                a_mean=sum(x for _, x, _ in pairs) / len(pairs),
                b_mean=sum(y for _, _, y in pairs) / len(pairs),
                difference=difference,
                p=sign_flip_test(differences),
            )
        )
    if not found:
        raise DataError(
            f"no task has {METRICS[metric]} of both {a!r} and {b!r} at the same seeds: "
            "see `unrote bench status` for what is still to come"
        )
    return found


def find_row(rows: tuple[Row, ...], wanted: str) -> Row:
    """The row that METHOD[:REGIME[:CRITERION]] names, the first that fits.

    Raises:
        UnknownNameError: if there is no such method.
        OptionError: if the method has no such regime or criterion.
    """
    method, *rest = wanted.split(":")
    own = [row for row in rows if row.method == method.strip()]
    if not own:
        raise UnknownNameError("method in this table", method, {row.method for row in rows})
    for row in own:
        if [row.regime, row.criterion][: len(rest)] == [part.strip() for part in rest]:
            return row
    known = ", ".join(f"{row.method}:{row.regime}:{row.criterion}" for row in own)
    raise OptionError(f"no row {wanted!r}: the table has {known}")
