"""Tables of functions of one code, and the rounding that makes them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjax.core.tables import code_table, logistic, round_half_away, tanh


@given(st.floats(-1e6, 1e6, width=32))
def test_rounding_is_that_of_c(value: float):
    whole, rest = math.floor(abs(value)), abs(value) - math.floor(abs(value))
    expected = math.copysign(whole + (rest >= 0.5), value)
    assert round_half_away(np.array([value], np.float32))[0] == expected


def test_rounding_of_what_a_half_added_would_round_up():
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert np.floor(below + np.float32(0.5)) == 1  # the usual form
    assert round_half_away(np.array([below, -below]))[0] == 0


@pytest.mark.parametrize(
    ("function", "exact", "scale"),
    [(logistic, lambda x: 1 / (1 + math.exp(-x)), 256), (tanh, math.tanh, 128)],
)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_table_holds_the_function(function, exact, scale: int, dtype):
    limits = np.iinfo(dtype)
    zero = limits.min + (128 if scale == 128 else 0)
    table = code_table(function, dtype, (0.03, 5), (1 / scale, zero))
    assert table.dtype == dtype and table.shape == (256,)
    for code, value in zip(range(limits.min, limits.max + 1), table.tolist(), strict=True):
        steps = exact(0.03 * (code - 5)) * scale
        nearest = min(max(zero + round(steps), limits.min), limits.max)
        # float32 leaves it open on which side of a tie a value falls.
        assert value == nearest or abs(abs(steps - math.floor(steps)) - 0.5) < 1e-4
