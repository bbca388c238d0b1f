"""Rounding shifts against rationals and the golden vectors."""

import math
from collections.abc import Callable
from fractions import Fraction

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from qjax.core.shifts import (
    RoundingShift,
    shift_floor,
    shift_half_away,
    shift_half_even,
    shift_half_toward_zero,
    shift_half_up,
)
from tests.core.oracle import golden

HALF = Fraction(1, 2)


def half_away(value: Fraction) -> int:
    return int(math.copysign(math.floor(abs(value) + HALF), value))


def half_toward_zero(value: Fraction) -> int:
    return int(math.copysign(math.ceil(abs(value) - HALF), value))


RULES: dict[str, tuple[RoundingShift, Callable[[Fraction], int]]] = {
    "truncate_floor": (shift_floor, math.floor),
    "half_up": (shift_half_up, lambda value: math.floor(value + HALF)),
    "half_away": (shift_half_away, half_away),
    "half_even": (shift_half_even, round),
    "toward_zero": (shift_half_toward_zero, half_toward_zero),
}
BY_NAME = pytest.mark.parametrize(("function", "rule"), RULES.values(), ids=RULES)


@pytest.mark.parametrize("name", RULES)
def test_golden_shift_rounding(name: str) -> None:
    cases = golden("shift_rounding")["cases"]
    x = jnp.asarray([case["acc"] for case in cases])
    counts = jnp.asarray([case["s"] for case in cases])
    assert RULES[name][0](x, counts).tolist() == [case[name] for case in cases]


def test_golden_pot_rounding_modes() -> None:
    modes = golden("pot_rounding_modes")
    names = {"std_round": "half_away", "half_up": "half_up", "half_even": "half_even"}
    names["half_down"] = "toward_zero"
    # The other values of the list are no ties; as multiples of 1/128 they round the same way.
    x = jnp.asarray(np.rint(np.array(modes["x"]) * 128).astype(np.int32))
    for golden_name, name in names.items():
        assert RULES[name][0](x, 7).tolist() == modes[golden_name], golden_name


def test_golden_pot_integer_dense() -> None:
    case = golden("pot_integer_dense")
    x = jnp.asarray(case["acc_plus_bias"])
    count = case["shift_cut=pos_x+pos_w-pos_out"]
    assert shift_half_up(x, count).tolist() == case["y_half_up"]
    assert shift_half_away(x, count).tolist() == case["y_half_away"]


@BY_NAME
def test_extremes_at_every_count(function: RoundingShift, rule: Callable[[Fraction], int]) -> None:
    values = [-(2**31), -(2**31) + 1, -3, -2, -1, 0, 1, 2, 3, 2**30, 2**31 - 2, 2**31 - 1]
    for count in range(32):
        expected = [rule(Fraction(v, 2**count)) for v in values]
        # 2**31 is no int32; only rounding by zero bits could produce it, and that is exact.
        assert function(jnp.asarray(values, jnp.int32), count).tolist() == expected, count


@BY_NAME
@given(values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=3, max_size=3), data=st.data())
def test_any_value(
    function: RoundingShift, rule: Callable[[Fraction], int], values: list[int], data
) -> None:
    counts = data.draw(st.lists(st.integers(0, 31), min_size=3, max_size=3))
    result = function(jnp.asarray(values, jnp.int32), jnp.asarray(counts))
    expected = [rule(Fraction(v, 2**c)) for v, c in zip(values, counts, strict=True)]
    assert result.tolist() == expected
