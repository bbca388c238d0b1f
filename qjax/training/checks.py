"""Checks of configuration numbers, shared by schedules and optimizers.

Configurations arrive from YAML, where `1` means `1.0` and lists stand for tuples. The checks return
the value in its one Python type, so that equal configurations are equal and hash equally.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real


def number(name: str, value: object, interval: str) -> float:
    """The value as a float, checked against an interval.

    Args:
        name: what the message calls it, `Class.field`.
        value: any real number but a bool.
        interval: in the usual notation, e.g. `[0, 1)` or `(0, inf)`; infinity is never inside.

    Returns:
        `float(value)`.

    Raises:
        TypeError: not a real number.
        ValueError: outside the interval, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in {interval}, got {value!r}")
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    result = float(value)
    above = result > low if interval[0] == "(" else result >= low
    below = result < high if interval[-1] == ")" else result <= high
    if not (math.isfinite(result) and above and below):
        raise ValueError(f"{name} must be a finite number in {interval}, got {value!r}")
    return result


def whole(name: str, value: object, least: int) -> int:
    """The value as an int, checked against a least value.

    Args:
        name: what the message calls it.
        value: any integer but a bool.
        least: smallest value allowed.

    Returns:
        `int(value)`.

    Raises:
        TypeError: not an integer.
        ValueError: below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def numbers(name: str, values: object, interval: str) -> tuple[float, ...]:
    """A list of numbers as a tuple, each checked by `number`.

    Args:
        name: what the message calls it.
        values: an iterable of numbers (a list from YAML, a tuple).
        interval: as in `number`.

    Returns:
        The tuple of floats, maybe empty.

    Raises:
        TypeError: not a list, or an element is not a number.
        ValueError: an element lies outside the interval.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of numbers in {interval}, got {values!r}")
    return tuple(number(f"{name}[{i}]", v, interval) for i, v in enumerate(values))


def boolean(name: str, value: object) -> bool:
    """The value itself, checked to be true or false.

    Args:
        name: what the message calls it.
        value: a bool.

    Raises:
        TypeError: anything else (0, 1 and "false" included, which YAML slips make).
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {value!r}")
    return value
