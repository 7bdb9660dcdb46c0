"""Accuracy by group: for every member of a stack while it trains, and as a report with intervals for one.

An average hides the group that a shortcut fails, so the field scores a classifier by its worst group. Three
things often go wrong there, and are settled here: a group without examples has no accuracy (it is not 0, and
never the worst); a small group's accuracy is a rough number, so it comes with its exact interval; and an
"average" is one of three different things in the literature, so each has a name of its own.

Groups are indices (n,), or a membership matrix (n, G) of bool where an example can be in several groups or in
none, as in CivilComments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its special functions load when they are first used
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.errors import DataError, OptionError


def group_accuracy(
    correct: Bool[Tensor, "*S n"], group: Int[Tensor, " m"] | Bool[Tensor, "m g"], n_groups: int
) -> Float[Tensor, "*S {n_groups}"]:
    """Accuracy of each member on each group.

    Args:
        correct: whether each prediction is right, (S, n) for S members or (n,) for one.
        group: (n,) group indices, or (n, G) membership.
        n_groups: G.

    Returns:
        (S, G), or (G,) for one member, on the device of `correct`; NaN for a group without examples.

    Raises:
        DataError: if there is not one group per example, or a group lies outside 0 to G - 1.
    """
    if correct.shape[-1] != len(group):
        raise DataError(
            f"group has {len(group)} rows for {correct.shape[-1]} predictions: one per example is wanted"
        )
    if group.ndim == 2:
        if group.shape[1] != n_groups:
            raise DataError(
                f"membership has {group.shape[1]} columns for {n_groups} groups: they must be equal"
            )
        # sums of 0 and 1 are exact in 32 bits up to 2^24 examples
        member = group.to(torch.get_default_dtype())
        return correct.to(member.dtype) @ member / member.sum(0)
    if len(group) and not 0 <= int(group.min()) <= int(group.max()) < n_groups:
        raise DataError(
            f"group indices run from {int(group.min())} to {int(group.max())}: "
            f"0 to {n_groups - 1} are wanted for {n_groups} groups"
        )
    hits = correct.new_zeros((*correct.shape[:-1], n_groups), dtype=torch.long)
    hits.index_add_(-1, group, correct.long())
    return hits / torch.bincount(group, minlength=n_groups)


def worst_group_accuracy(
    correct: Bool[Tensor, "*S n"], group: Int[Tensor, " m"] | Bool[Tensor, "m g"], n_groups: int
) -> Float[Tensor, "*S"]:
    """The lowest accuracy of each member over the groups that have examples.

    Args:
        correct: (S, n) or (n,), as for `group_accuracy`.
        group: (n,) indices or (n, G) membership.
        n_groups: G.

    Returns:
        (S,), or a scalar for one member; NaN if no group has examples.

    Raises:
        DataError: as `group_accuracy`.
    """
    accuracy = group_accuracy(correct, group, n_groups)
    empty = accuracy.isnan()
    return torch.where(empty.all(-1), torch.nan, accuracy.masked_fill(empty, torch.inf).amin(-1))


def clopper_pearson(
    successes: Any, n: Any, level: float = 0.95
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """The exact interval of a proportion: covers the truth at least as often as `level` says, for every n.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934). Unlike intervals from the normal distribution it has a width for 0 and n successes
    too, and stays within 0 and 1.

    Args:
        successes: how many of the trials succeeded, any shape.
        n: number of trials, of a shape that broadcasts with it.
        level: between 0 and 1.

    Returns:
        Lower and upper ends, of the broadcast shape; 0 and 1 where there were no trials.

    Raises:
        DataError: if successes are not between 0 and n.
        OptionError: if the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise OptionError(f"level {level}: a number between 0 and 1 is wanted, 0.95 is usual")
    k, trials = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    wrong = ~((k >= 0) & (k <= trials))
    if wrong.any():
        raise DataError(f"{k[wrong][0]:g} successes in {trials[wrong][0]:g} trials: 0 to n of n are wanted")
    tail = (1 - level) / 2
    # max() only keeps the unused branch of where() inside the function's domain
    low = np.where(k > 0, scipy.special.betaincinv(np.maximum(k, 1), trials - k + 1, tail), 0.0)
    high = np.where(k < trials, scipy.special.betaincinv(k + 1, np.maximum(trials - k, 1), 1 - tail), 1.0)
    return low, high


@dataclass(frozen=True)
class SubsetAccuracy:
    """Accuracy on a subset of the examples: a group or a class.

    Args:
        name: of the subset.
        n: examples in it.
        accuracy: share predicted right; None if n is 0.
        interval: exact interval of the accuracy; None if n is 0.
    """

    name: str
    n: int
    accuracy: float | None
    interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; what is missing is null."""
        interval = None if self.interval is None else list(self.interval)
        return {"name": self.name, "n": self.n, "accuracy": self.accuracy, "interval": interval}


@dataclass(frozen=True)
class GroupReport:
    """How one classifier does on each group and class of a split.

    The three averages answer different questions. Papers call each of them "average accuracy", so say which.

    Args:
        n: examples.
        level: of the intervals.
        groups: in the order of group indices, empty ones included.
        worst_group: the group of lowest accuracy among those with examples, the first of equals. Its interval
            treats the group as if chosen beforehand: the lowest of many small groups is low partly by chance.
        average: share of the examples predicted right, the split as it is.
        reweighted_average: mean over groups weighted by their shares of the training set, which undoes a test
            set with other shares. Groups that the split does not have are left out, and the weights of the
            others sum to 1. None if training counts were not given, or no group of the split was trained on.
        group_mean: mean over the groups that have examples, all weighing the same.
        class_accuracy: in the order of class indices; a class's accuracy is its recall.
    """

    n: int
    level: float
    groups: tuple[SubsetAccuracy, ...]
    worst_group: SubsetAccuracy
    average: float
    reweighted_average: float | None
    group_mean: float
    class_accuracy: tuple[SubsetAccuracy, ...]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; what is missing is null, never NaN."""
        return {
            "n": self.n,
            "level": self.level,
            "groups": [group.to_dict() for group in self.groups],
            "worst_group": self.worst_group.to_dict(),
            "average": self.average,
            "reweighted_average": self.reweighted_average,
            "group_mean": self.group_mean,
            "class_accuracy": [one.to_dict() for one in self.class_accuracy],
        }


def group_report(
    y: Any,
    predictions: Any,
    group: Any,
    group_names: Sequence[str],
    train_group_counts: Any = None,
    level: float = 0.95,
    class_names: Sequence[str] | None = None,
) -> GroupReport:
    """Score predictions by group and class.

    Args:
        y: (n,) true classes; this and the rest: tensor, array or sequence.
        predictions: (n,) predicted classes.
        group: (n,) group indices, or (n, G) membership of bool. An example in no group counts in `average`
            and its class only.
        group_names: G names.
        train_group_counts: (G,) training examples in each group, for `reweighted_average`.
        level: of the intervals, between 0 and 1.
        class_names: C names; default "0", "1", ... up to the largest true class.

    Returns:
        The report; see there for what each number means.

    Raises:
        DataError: if lengths differ, there are no examples, none is in a group, values are not class or group
            indices with a name, or training counts are not G numbers of at least 0.
        OptionError: if the level is not between 0 and 1.
    """
    truth = _indices(y, "y")
    right = truth == _indices(predictions, "predictions", len(truth))
    groups = _subsets(right, _groups(group, len(truth), group_names), group_names, level)
    accuracy = np.array([np.nan if one.accuracy is None else one.accuracy for one in groups])
    if np.isnan(accuracy).all():
        raise DataError(
            "no example is in any group: at least one row of the membership matrix must have a True"
        )
    if class_names is None:
        class_names = tuple(map(str, range(int(truth.max()) + 1)))
    _check_range(truth, class_names, "y", "class")
    return GroupReport(
        n=len(truth),
        level=level,
        groups=groups,
        worst_group=groups[int(np.nanargmin(accuracy))],
        average=float(right.mean()),
        reweighted_average=_reweighted_average(accuracy, train_group_counts),
        group_mean=float(np.nanmean(accuracy)),
        class_accuracy=_subsets(right, truth, class_names, level),
    )


def _subsets(
    right: Bool[np.ndarray, " n"],
    subset: Int[np.ndarray, " n"] | Bool[np.ndarray, "n G"],
    names: Sequence[str],
    level: float,
) -> tuple[SubsetAccuracy, ...]:
    if subset.ndim == 2:
        hits, sizes = subset[right].sum(0), subset.sum(0)
    else:
        hits, sizes = (np.bincount(of, minlength=len(names)) for of in (subset[right], subset))
    low, high = clopper_pearson(hits, sizes, level)
    return tuple(
        SubsetAccuracy(name, int(n), float(k / n), (float(a), float(b)))
        if n
        else SubsetAccuracy(name, 0, None, None)
        for name, n, k, a, b in zip(names, sizes, hits, low, high, strict=True)
    )


def _reweighted_average(accuracy: Float[np.ndarray, " G"], train_group_counts: Any) -> float | None:
    if train_group_counts is None:
        return None
    counts = _array(train_group_counts)
    numbers = counts.shape == accuracy.shape and counts.dtype.kind in "fiu"
    if not numbers or not ((counts >= 0) & (counts < np.inf)).all():
        raise DataError(
            f"train_group_counts is {counts.tolist()}: {len(accuracy)} numbers of at least 0 are wanted, the "
            "number of training examples in each group"
        )
    present = ~np.isnan(accuracy)
    weight = counts[present]
    return float(weight @ accuracy[present] / weight.sum()) if weight.any() else None


def _groups(values: Any, n: int, names: Sequence[str]) -> Int[np.ndarray, " n"] | Bool[np.ndarray, "n G"]:
    array = _array(values)
    if array.ndim != 2:
        index = _indices(array, "group", n)
        _check_range(index, names, "group", "group")
        return index
    if array.dtype.kind != "b":
        raise DataError(
            f"group has type {array.dtype}: a membership matrix of bool is wanted; use group.astype(bool)"
        )
    if array.shape != (n, len(names)):
        raise DataError(
            f"group has shape {array.shape}: a membership matrix of {n} examples by {len(names)} named "
            "groups is wanted"
        )
    return array


def _indices(values: Any, name: str, n: int | None = None) -> Int[np.ndarray, " n"]:
    array = _array(values)
    if array.ndim != 1:
        hint = "; take the argmax of scores first" if array.ndim == 2 else ""
        raise DataError(f"{name} has shape {array.shape}: a vector (n,) of indices is wanted{hint}")
    if array.dtype.kind not in "iub":
        raise DataError(f"{name} has type {array.dtype}: integers 0, 1, ... are wanted; encode them first")
    if n is not None and len(array) != n:
        raise DataError(f"{name} has {len(array)} entries, y has {n}: one entry per example is wanted")
    if not len(array):
        raise DataError(f"{name} is empty: at least one example is wanted")
    return array.astype(np.int64)


def _check_range(index: Int[np.ndarray, " n"], names: Sequence[str], name: str, kind: str) -> None:
    wrong = (index < 0) | (index >= len(names))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{name} has {index[row]} in row {row}, but there are {len(names)} {kind} names "
            f"({', '.join(names)}): 0 to {len(names) - 1} are wanted"
        )


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
