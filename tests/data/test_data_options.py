import math
from typing import Any

import numpy as np
import pytest

from unrote.data.options import check_count, check_number
from unrote.errors import OptionError


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_numbers(value: Any) -> None:
    got = check_number("share", value, 0.0, 1.0)
    assert type(got) is float
    assert got == value


@pytest.mark.parametrize("value", [-1e-9, 1.5, math.nan, math.inf, "0.5", None, True, [0.5]])
def test_no_numbers(value: Any) -> None:
    with pytest.raises(OptionError, match=r"share=.*a (finite )?number \[0, 1\] is wanted"):
        check_number("share", value, 0.0, 1.0)


def test_unbounded_numbers() -> None:
    assert check_number("scale", 1e30, 0.0) == 1e30
    with pytest.raises(OptionError, match="of at least 0"):
        check_number("scale", math.inf, 0.0)


@pytest.mark.parametrize("value", [2, 5, np.int64(3)])
def test_counts(value: Any) -> None:
    got = check_count("size", value, 2, 5)
    assert type(got) is int
    assert got == value


@pytest.mark.parametrize("value", [1, 6, 3.0, "3", None, True])
def test_no_counts(value: Any) -> None:
    with pytest.raises(
        OptionError, match=r"size=.*a whole number of at least 2 and at most 5 is wanted; why"
    ):
        check_count("size", value, 2, 5, why="; why")
