"""Checks of the options that task sources share, so that each refuses nonsense in the same words."""

import math
from numbers import Integral, Real

from unrote.errors import OptionError


def check_number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """A finite number within [low, high].

    Raises:
        OptionError: if `value` is not a number, not finite or outside.
    """
    wanted = f"[{low:g}, {high:g}]" if math.isfinite(high) else f"of at least {low:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise OptionError(f"{name}={value!r} is a {type(value).__name__}: a number {wanted} is wanted")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        raise OptionError(f"{name}={value!r}: a finite number {wanted} is wanted")
    return number


def check_count(name: str, value: object, low: int, high: int | None = None, why: str = "") -> int:
    """A whole number within [low, high].

    Args:
        name: of the option.
        value: as the user gave it.
        low: smallest valid value.
        high: largest valid value, or None.
        why: where the bounds come from, appended to the message.

    Raises:
        OptionError: if `value` is not a whole number or outside.
    """
    wanted = f"a whole number of at least {low}" + ("" if high is None else f" and at most {high}")
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise OptionError(f"{name}={value!r} is a {type(value).__name__}: {wanted} is wanted{why}")
    number = int(value)
    if number < low or (high is not None and number > high):
        raise OptionError(f"{name}={number}: {wanted} is wanted{why}")
    return number
