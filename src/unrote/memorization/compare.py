"""How much of each group several training methods learn by rote: their distributions of one score, side by side.

For every method and group: quantiles and shares per interval; for every method: how far apart the groups are; for
every pair of methods and group: whether the same examples score otherwise, by a signed-rank test, corrected for the
number of tests. And the map of memorization against held-out probability, as one number does not tell noise from a
minority: both are learned by rote, but noise is what a model without the example finds least likely.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy  # its parts load when they are first used: its statistics alone take a second
from jaxtyping import Float, Int

from unrote.errors import DataError, OptionError
from unrote.memorization.score import Score
from unrote.memorization.self_influence import leave_one_out
from unrote.memorization.validation import detection_auc

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

MEMORIZED = 0.25
"""Learned by rote: p(y) falls by more than this without the example (Feldman and Zhang's threshold)."""

UNLIKELY = 0.1
"""What a model without the example gives its label at most where the label may be wrong."""

KINDS = (
    "follows the rule",
    "rare: by rote, label plausible",
    "doubtful: by rote, label unlikely",
    "not learned",
)


@dataclass(frozen=True)
class Kept:
    """One method's scores in one group.

    Args:
        method: its name.
        group: its name.
        n: examples.
        mean: of the score.
        quantiles: at `QUANTILES`.
        shares: of the examples in each interval of the comparison's edges.
        p_value: that the group's examples score higher than all others under this method (Mann-Whitney).
        auc: area under the curve for telling the group's examples from all others by the score.
    """

    method: str
    group: str
    n: int
    mean: float
    quantiles: tuple[float, ...]
    shares: tuple[float, ...]
    auc: float | None
    p_value: float | None


@dataclass(frozen=True)
class Shift:
    """How one group's scores differ between two methods, on the same examples.

    Args:
        first: a method.
        second: another.
        group: a group.
        median_change: of second less first.
        p_value: of no shift, Wilcoxon's signed-rank test with Holm's correction over all of the comparison.
    """

    first: str
    second: str
    group: str
    median_change: float
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Args:
        score: name of the score.
        edges: of the intervals; the outer ones are open.
        kept: every method and group.
        distance: by method, the largest Kolmogorov-Smirnov distance between two groups' distributions.
        shifts: every pair of methods and group.
        maps: by method, how many examples of each group are of each of `KINDS`; empty where the score has no
            held-out probabilities.
        scores: by method.
        groups: (n,) index of each example's group.
    """

    score: str
    edges: tuple[float, ...]
    kept: tuple[Kept, ...]
    distance: Mapping[str, float]
    shifts: tuple[Shift, ...]
    maps: Mapping[str, Mapping[str, tuple[int, ...]]]
    scores: Mapping[str, Score]
    groups: Int[np.ndarray, " n"]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: all but the scores of single examples."""
        return {
            "score": self.score,
            "edges": list(self.edges),
            "kept": [asdict(one) for one in self.kept],
            "distance": dict(self.distance),
            "shifts": [asdict(one) for one in self.shifts],
            "maps": {method: dict(one) for method, one in self.maps.items()},
        }


def compare(
    models: Mapping[str, Any],
    X: Any,
    y: Any,
    groups: Any,
    *,
    score: Callable[..., Score] = leave_one_out,
    group_names: Sequence[str] | None = None,
    edges: Sequence[float] | None = None,
    **options: Any,
) -> Comparison:
    """Compare what several models, trained on the same examples, have memorized of each group.

    Args:
        models: by the name of the method that trained them; or a `Score` made beforehand in a model's place.
        X: n training examples.
        y: (n,) labels.
        groups: (n,) index of each example's group, true or inferred, from 0.
        score: gives the score of a model, such as `leave_one_out` or `self_influence`.
        group_names: one per group.
        edges: between intervals of the score; default by its quantiles over all methods.
        **options: of the score.

    Raises:
        DataError: if groups do not fit the examples.
        OptionError: if there is no model.
    """
    if not models:
        raise OptionError("no models to compare: pass a mapping of names to trained models")
    index = np.asarray(groups)
    found = {
        name: model if isinstance(model, Score) else score(model, X, y, **options)
        for name, model in models.items()
    }
    n = len(next(iter(found.values())))
    if index.shape != (n,) or index.dtype.kind not in "iub" or index.min() < 0:
        raise DataError(
            f"groups of shape {index.shape} for {n} examples: one index from 0 for each is wanted"
        )
    index = index.astype(np.int64)
    names = list(group_names or map(str, range(int(index.max()) + 1)))
    if len(names) <= index.max():
        raise DataError(f"{len(names)} group names for indices up to {int(index.max())}: one each is wanted")
    present = [g for g in range(len(names)) if (index == g).any()]
    everything = np.concatenate([one.values for one in found.values()])
    cuts = tuple(edges or np.unique(np.quantile(everything, (0.5, 0.75, 0.9, 0.99))).tolist())
    return Comparison(
        score=next(iter(found.values())).name,
        edges=cuts,
        kept=tuple(
            _kept(method, names[g], one.values, index == g, cuts)
            for method, one in found.items()
            for g in present
        ),
        distance={
            method: _distance([one.values[index == g] for g in present]) for method, one in found.items()
        },
        shifts=_shifts(found, index, names, present),
        maps={
            method: _map_by_group(one, index, names, present)
            for method, one in found.items()
            if "p_held_out" in one.details
        },
        scores=found,
        groups=index,
    )


def _kept(method: str, group: str, values: np.ndarray, mine: np.ndarray, edges: Sequence[float]) -> Kept:
    own, rest = values[mine], values[~mine]
    counts = np.bincount(np.searchsorted(edges, own, side="right"), minlength=len(edges) + 1)
    auc = detection_auc(values, mine) if len(rest) else None
    p = float(scipy.stats.mannwhitneyu(own, rest, alternative="greater").pvalue) if len(rest) else None
    return Kept(
        method,
        group,
        len(own),
        float(own.mean()),
        tuple(np.quantile(own, QUANTILES).tolist()),
        tuple((counts / len(own)).tolist()),
        auc,
        p,
    )


def _distance(parts: Sequence[np.ndarray]) -> float:
    pairs = [(a, b) for i, a in enumerate(parts) for b in parts[:i]]
    return max((float(scipy.stats.ks_2samp(a, b, method="asymp").statistic) for a, b in pairs), default=0.0)


def _shifts(
    found: Mapping[str, Score], index: np.ndarray, names: Sequence[str], present: Sequence[int]
) -> tuple[Shift, ...]:
    methods, raw = list(found), []
    for i, first in enumerate(methods):
        for second in methods[i + 1 :]:
            for g in present:
                change = (found[second].values - found[first].values)[index == g]
                moved = bool(np.any(change != 0))
                p = float(scipy.stats.wilcoxon(change).pvalue) if moved else 1.0
                raw.append(Shift(first, second, names[g], float(np.median(change)), p))
    order = np.argsort([shift.p_value for shift in raw])
    corrected, largest = [0.0] * len(raw), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, raw[i].p_value * (len(raw) - rank)))
        corrected[i] = largest
    return tuple(Shift(**{**asdict(s), "p_value": p}) for s, p in zip(raw, corrected, strict=True))


def noise_map(
    memorization: Any, p_held_out: Any, *, memorized: float = MEMORIZED, unlikely: float = UNLIKELY
) -> Int[np.ndarray, " n"]:
    """Which of `KINDS` each example is of, (n,): memorization on one axis, held-out probability on the other.

    Of examples learned by rote those whose label a model without them finds `unlikely` are doubtful, the others
    rare; of examples that are not, those that a model without them gives less than a half are not learned at all.

    Args:
        memorization: (n,) p(y) with the example less p(y) without it.
        p_held_out: (n,) p(y) without it.
        memorized: more than this is learned by rote.
        unlikely: less than this is unlikely.
    """
    rote, without = np.asarray(memorization) > memorized, np.asarray(p_held_out)
    doubtful = rote & (without < unlikely)
    lost = ~rote & (without < 0.5)
    return np.where(doubtful, 2, np.where(rote, 1, np.where(lost, 3, 0))).astype(np.int64)


def _map_by_group(
    score: Score, index: np.ndarray, names: Sequence[str], present: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    memorization = score.details["p_train"] - score.details["p_held_out"]
    kind = noise_map(memorization, score.details["p_held_out"])
    return {names[g]: tuple(np.bincount(kind[index == g], minlength=len(KINDS)).tolist()) for g in present}


def map_counts(
    memorization: Float[np.ndarray, " n"], p_held_out: Float[np.ndarray, " n"], bins: int = 10
) -> Int[np.ndarray, "b b"]:
    """How many examples fall in each cell of the map: rows by memorization from -1 to 1, columns by p from 0 to 1.

    Args:
        memorization: of each example.
        p_held_out: of each example.
        bins: along each axis.
    """
    counts, _, _ = np.histogram2d(memorization, p_held_out, bins=bins, range=((-1, 1), (0, 1)))
    result: np.ndarray = counts.astype(np.int64)
    return result
