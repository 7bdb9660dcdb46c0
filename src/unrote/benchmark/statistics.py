"""Means over a few seeds, and how sure they are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from unrote.errors import DataError

EXACT_SEEDS = 16
"""Up to so many pairs every pattern of signs is tried; 2^16 of them take a moment."""


@dataclass(frozen=True)
class Spread:
    """A mean over seeds.

    Args:
        mean: of the values.
        deviation: their standard deviation (n - 1); None for one value.
        interval: 95% t interval of the mean; None for one value.
        n: values.
    """

    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    n: int


def spread(values: Sequence[float]) -> Spread | None:
    """Mean, deviation and 95% t interval of values; None of none.

    Args:
        values: one per seed.
    """
    if not values:
        return None
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return Spread(mean, None, None, 1)
    from scipy.stats import t

    deviation = float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Spread(mean, deviation, (mean - half, mean + half), n)


def sign_flip_test(differences: Sequence[float]) -> float:
    """Two-sided p of paired differences: the share of all patterns of signs whose mean is as far from 0.

    Exact for up to 16 differences whatever their distribution, if it is symmetric around 0 under the null
    hypothesis (Fisher, "The design of experiments", 1935). Beyond that the paired t test, which agrees by then.
    With n differences no p can be below 2^(1-n).

    Args:
        differences: one per pair.

    Raises:
        DataError: if there are none.
    """
    if not differences:
        raise DataError("no pairs to compare: both sides need results at the same seeds")
    values = np.asarray(differences, float)
    n = len(values)
    if n > EXACT_SEEDS:
        from scipy.stats import ttest_1samp

        if not values.std():
            return 0.0 if values[0] else 1.0
        return float(ttest_1samp(values, 0.0).pvalue)
    signs = np.array(list(product((1.0, -1.0), repeat=n)))
    reached = np.abs(signs @ values)
    # sums of the same numbers in another order differ in their last digits
    return float(np.mean(reached >= abs(values.sum()) - 1e-12))
