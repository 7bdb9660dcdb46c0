import math

import numpy as np
import pytest
from scipy import stats

from unrote.benchmark.statistics import sign_flip_test, spread
from unrote.errors import DataError


def test_spread_against_scipy() -> None:
    values = [0.5, 0.7, 0.4, 0.9]
    found = spread(values)
    assert found is not None
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.interval == pytest.approx((low, high))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))


def test_one_value_has_no_spread_and_none_is_nothing() -> None:
    found = spread([0.5])
    assert found is not None
    assert (found.mean, found.deviation, found.interval, found.n) == (0.5, None, None, 1)
    assert spread([]) is None


def test_sign_flips_against_scipy() -> None:
    differences = [0.1, -0.2, 0.4, 0.3, 0.25, 0.05]
    reference = stats.permutation_test(
        (np.array(differences), np.zeros(6)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_test(differences) == pytest.approx(reference.pvalue)


def test_few_seeds_cannot_be_significant() -> None:
    assert sign_flip_test([1.0] * 3) == 0.25
    assert sign_flip_test([0.0] * 4) == 1.0


def test_many_pairs_take_the_t_test() -> None:
    differences = list(np.linspace(-0.5, 1.0, 20))
    assert sign_flip_test(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert math.isclose(sign_flip_test([0.0] * 20), 1.0)


def test_no_pairs() -> None:
    with pytest.raises(DataError, match="no pairs"):
        sign_flip_test([])
