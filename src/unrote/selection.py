"""Which of the configurations tried is taken, at which step, and by what right.

A criterion reads one table of counts (how many examples of each subset are predicted right) and gives one number;
the configuration and the step with the largest are taken together. A criterion that reads group labels is refused
in an annotation regime that does not have them: worst-group numbers of papers differ by 10 points and more by this
choice alone, so every number is reported with the criterion and the regime behind it.

    worst_group           lowest accuracy over the true groups of the validation split        regimes val, train
    worst_group_inferred  lowest accuracy over its groups as inferred by XRM's twins          any
    worst_class           lowest accuracy over its classes                                    any
    average               its accuracy                                                        any
    flip_rate             share of training labels that XRM's twins flipped; chooses twins    any
    oracle                lowest accuracy over the true groups of the TEST split              none: a yardstick

The oracle looks at the answers. What it gets is an upper mark, against which the cost of having no group labels
to choose with is measured; it is no result.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from unrote.data import Regime
from unrote.errors import DataError, OptionError, UnknownNameError

ORACLE = "oracle"
"""Name of the criterion that looks at the test split's group labels."""

FLIP_RATE = "flip_rate"
"""Name of XRM's own criterion, which chooses twins and not classifiers."""


@dataclass(frozen=True)
class Counts:
    """How many examples of each subset of a split are predicted right.

    Args:
        right: per subset, at least 0.
        n: examples per subset; a subset without any has no accuracy, it is not 0.
    """

    right: tuple[int, ...]
    n: tuple[int, ...]

    @property
    def accuracy(self) -> tuple[float | None, ...]:
        """Accuracy of each subset, None where it has no examples."""
        return tuple(k / n if n else None for k, n in zip(self.right, self.n, strict=True))

    @cached_property
    def worst(self) -> float | None:
        """Lowest accuracy over the subsets that have examples; None if none has."""
        present = [value for value in self.accuracy if value is not None]
        return min(present) if present else None

    @cached_property
    def total(self) -> float | None:
        """Share of all examples, where the subsets partition them; None if there are none."""
        return sum(self.right) / sum(self.n) if sum(self.n) else None


Look = Mapping[str, Counts]
"""One evaluation of one classifier: counts by name of the subsets, such as "validation.groups"."""


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Args:
        looks: its evaluations in the order of training.
        diverged: whether its loss left the finite numbers; it is then never taken.
    """

    looks: Sequence[Look]
    diverged: bool = False


@dataclass(frozen=True)
class Criterion:
    """How configurations and steps are compared.

    Args:
        name: as users give it.
        needs: the weakest annotation regime it may be used in; None for the oracle, which no regime allows.
        subsets: the table of counts it reads; empty for a criterion of twins.
        over: the lowest accuracy of the subsets, or that of all examples.
        description: a few words for tables.
    """

    name: str
    needs: Regime | None
    subsets: str
    over: Literal["worst", "total"]
    description: str

    def score(self, look: Look) -> float | None:
        """The number to be made large; None where no subset has examples, or the table is not there."""
        counts = look.get(self.subsets)
        if counts is None:
            return None
        return counts.worst if self.over == "worst" else counts.total


CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion(
            "worst_group", "val", "validation.groups", "worst", "worst validation group, true group labels"
        ),
        Criterion(
            "worst_group_inferred",
            "none",
            "validation.inferred",
            "worst",
            "worst validation group as inferred by XRM",
        ),
        Criterion("worst_class", "none", "validation.classes", "worst", "worst validation class"),
        Criterion("average", "none", "validation.classes", "total", "validation accuracy"),
        Criterion(FLIP_RATE, "none", "", "worst", "share of labels that XRM's twins flipped"),
        Criterion(ORACLE, None, "test.groups", "worst", "worst TEST group: looks at the answers"),
    )
}
"""By name."""

_REGIMES: tuple[Regime, ...] = get_args(Regime)


def allows(regime: Regime, needs: Regime) -> bool:
    """Whether an annotation regime has the group labels that something needs."""
    return _REGIMES.index(regime) >= _REGIMES.index(needs)


def check_criterion(name: str, regime: str) -> Criterion:
    """The criterion of a name, if a regime allows it to choose a classifier.

    Raises:
        UnknownNameError: if there is no such criterion.
        OptionError: if there is no such regime, or the criterion needs group labels that it does not have.
    """
    if name not in CRITERIA:
        raise UnknownNameError("criterion", name, CRITERIA)
    if regime not in _REGIMES:
        raise OptionError(f"annotation regime {regime!r}: 'none', 'val' or 'train' is wanted")
    criterion = CRITERIA[name]
    if name == FLIP_RATE:
        raise OptionError(
            "criterion 'flip_rate' chooses XRM's twins, always, and cannot choose a classifier: take "
            "'worst_group_inferred' or 'worst_class'"
        )
    if criterion.needs is None:
        raise OptionError(
            "criterion 'oracle' looks at the test split's group labels, which no regime allows: set oracle = true "
            "to have it reported beside the others, as a yardstick"
        )
    if not allows(regime, criterion.needs):
        raise OptionError(
            f"criterion {name!r} needs group labels of the validation split, which the regime {regime!r} does "
            "not have: take 'worst_group_inferred', 'worst_class' or 'average', or the regime 'val'"
        )
    return criterion


@dataclass(frozen=True)
class Chosen:
    """What a criterion takes.

    Args:
        trial: index of the configuration.
        look: index of its evaluation.
        score: the criterion's value there.
    """

    trial: int
    look: int
    score: float


def choose(trials: Sequence[Trial], criterion: Criterion) -> Chosen | None:
    """The configuration and step at which a criterion is largest; None if no trial can be scored.

    Small validation groups make ties common. Of equals, the one with the larger validation accuracy is taken
    (the oracle settles ties on the test split, like all it does), then the earlier configuration and step.

    Args:
        trials: in the order they were drawn.
        criterion: see `check_criterion` for what a regime allows.

    Raises:
        DataError: if the criterion chooses twins.
    """
    if not criterion.subsets:
        raise DataError(f"criterion {criterion.name!r} chooses twins: take `choose_twins`")
    settle = "test.classes" if criterion.needs is None else "validation.classes"
    best: tuple[float, float] = (-math.inf, -math.inf)
    chosen = None
    for t, trial in enumerate(trials):
        if trial.diverged:
            continue
        for k, look in enumerate(trial.looks):
            score = criterion.score(look)
            if score is None:
                continue
            tie = look[settle].total if settle in look else None
            rank = (score, -math.inf if tie is None else tie)
            if rank > best:
                best, chosen = rank, Chosen(t, k, score)
    return chosen


def choose_twins(flip_rates: Sequence[float | None]) -> int | None:
    """The twins that flipped the largest share of labels, the first of equals; None if there are none.

    Args:
        flip_rates: one per configuration; None where it failed or diverged, 0 where its groups are degenerate.
    """
    present = [(rate, -k) for k, rate in enumerate(flip_rates) if rate is not None and not math.isnan(rate)]
    return -max(present)[1] if present else None
