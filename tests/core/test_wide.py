"""Two-word arithmetic against Python integers."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from qjax.core import wide

EXTREMES = [-(2**31), -(2**31) + 1, -65537, -65536, -1, 0, 1, 65535, 65536, 2**31 - 1]
WORDS = st.lists(st.integers(-(2**31), 2**31 - 1), min_size=4, max_size=4)
LONGS = st.lists(st.integers(-(2**62), 2**62 - 1), min_size=4, max_size=4)


def words(values: list[int]) -> wide.Wide:
    high = jnp.asarray([v >> 32 for v in values], jnp.int32)
    return wide.Wide(high, jnp.asarray([v % 2**32 for v in values], jnp.uint32))


def integers(value: wide.Wide) -> list[int]:
    highs, lows = np.asarray(value.high).tolist(), np.asarray(value.low).tolist()
    return [(high << 32) + low for high, low in zip(highs, lows, strict=True)]


@pytest.mark.parametrize("multiply", [wide.multiply, wide.multiply_by_halves])
def test_product_of_extremes(multiply: wide.Multiply) -> None:
    left, right = (g.ravel() for g in np.meshgrid(EXTREMES, EXTREMES))
    product = multiply(jnp.asarray(left, jnp.int32), jnp.asarray(right, jnp.int32))
    assert integers(product) == [int(a) * int(b) for a, b in zip(left, right, strict=True)]


@pytest.mark.parametrize("multiply", [wide.multiply, wide.multiply_by_halves])
@given(left=WORDS, right=WORDS)
def test_product(multiply: wide.Multiply, left: list[int], right: list[int]) -> None:
    product = multiply(jnp.asarray(left, jnp.int32), jnp.asarray(right, jnp.int32))
    assert integers(product) == [a * b for a, b in zip(left, right, strict=True)]


@given(left=LONGS, right=LONGS)
def test_sum(left: list[int], right: list[int]) -> None:
    expected = [a + b for a, b in zip(left, right, strict=True)]
    assert integers(wide.add(words(left), words(right))) == expected
    assert integers(wide.add_constant(words(left), np.array(right))) == expected
    aligned = np.array(right) >> 32 << 32
    assert integers(wide.add_constant(words(left), aligned)) == [
        a + b for a, b in zip(left, aligned.tolist(), strict=True)
    ]


@given(values=LONGS, count=st.lists(st.integers(0, 63), min_size=4, max_size=4))
def test_shift_right(values: list[int], count: list[int]) -> None:
    wrapped = [((v >> c) + 2**31) % 2**32 - 2**31 for v, c in zip(values, count, strict=True)]
    assert wide.shift_right(words(values), np.array(count)).tolist() == wrapped
    whole = [((v >> count[0]) + 2**31) % 2**32 - 2**31 for v in values]
    assert wide.shift_right(words(values), count[0]).tolist() == whole


@given(values=LONGS, count=st.lists(st.integers(0, 20), min_size=4, max_size=4))
def test_shift_left_saturating(values: list[int], count: list[int]) -> None:
    shifted = integers(wide.shift_left_saturating(words(values), np.array(count)))
    for value, c, result in zip(values, count, shifted, strict=True):
        if -(2**63) <= value << c < 2**63:
            assert result == value << c
        else:
            assert result >> 32 >= 2**31 - 2**c if value > 0 else result >> 32 < -(2**31) + 2**c


def test_lanes_refuses_what_the_word_cannot_hold() -> None:
    with pytest.raises(AssertionError):
        wide.lanes(np.array([1, 2**31]), rank=1)
