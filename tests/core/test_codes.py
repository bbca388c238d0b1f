"""Codes: a quantized tensor as integers, whose scales are constants of the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from qjax.core.codes import Codes, IntegerTerm, Term, decode_terms, int8_shift
from qjax.core.host import HostArray


def term(
    ints: ArrayLike,
    scale: ArrayLike = 0.5,
    zero: ArrayLike = 0.0,
    low: int = -128,
    high: int = 127,
    dtype: DTypeLike = jnp.int8,
) -> IntegerTerm:
    """A term with usual values."""
    return IntegerTerm(jnp.asarray(ints, dtype), HostArray(scale), HostArray(zero), low, high)


def test_decoding_is_scale_times_distance_from_the_zero_point():
    codes = Codes((term([[1, 2], [3, -4]], scale=[0.5, 0.25], zero=[0.5, -1.0]),))
    np.testing.assert_array_equal(codes.decode(), [[0.25, 0.75], [1.25, -0.75]])


def test_terms_and_offset_add_up():
    codes = Codes((term([1, 2]), term([3, 4], scale=2.0, zero=1.0)), HostArray([10.0, 20.0]))
    np.testing.assert_array_equal(codes.decode(), [14.5, 27.0])
    assert codes.shape == (2,)


@given(st.lists(st.integers(-8, 7), min_size=2, max_size=2), st.integers(-8, 7))
def test_traced_terms_decode_alike(ints: list[int], zero: int):
    traced = Term(jnp.asarray(ints, jnp.float32), jnp.float32(0.25), float(zero), -8.0, 7.0)
    stored = Codes((term(ints, 0.25, zero),))
    np.testing.assert_array_equal(decode_terms((traced,)), stored.decode())
    np.testing.assert_array_equal(decode_terms((traced, traced)), 2 * stored.decode())


def test_only_the_integers_are_leaves():
    codes = Codes((term([1, 2]), term([3, 4], dtype=jnp.int32)), HostArray(1.0))
    leaves = jax.tree.leaves(codes)
    assert [leaf.dtype for leaf in leaves] == [jnp.int8, jnp.int32]


def test_scales_are_part_of_the_program():
    traces = []

    @jax.jit
    def run(codes: Codes) -> Codes:
        traces.append(codes)
        return codes

    first, other = Codes((term([1, 2]),)), Codes((term([1, 2], scale=0.25),))
    assert run(first).terms[0].scale == first.terms[0].scale
    run(Codes((term([5, 6]),)))
    assert len(traces) == 1
    run(other)
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("codes", "plain"),
    [
        (Codes((term([1]),)), True),
        (Codes((term([1], zero=-128, low=-128),)), True),
        (Codes((term([1]), term([1]))), False),
        (Codes((term([1], dtype=jnp.int32),)), False),
        (Codes((term([1], scale=[0.5]),)), False),
        (Codes((term([1], zero=[0.0]),)), False),
        (Codes((term([1], zero=0.5),)), False),
        (Codes((term([1], zero=-7, low=-5),)), False),
        (Codes((term([1], zero=6, high=5),)), False),
        (Codes((term([1]),), HostArray(0.1)), False),
        (Codes((term([1]),), HostArray([0.0])), True),
    ],
)
def test_plain_codes_are_what_an_integer_kernel_takes(codes: Codes, plain: bool):
    assert codes.is_plain() is plain


@pytest.mark.parametrize(
    ("low", "high", "shift"),
    [(0, 1, 0), (0, 127, 0), (0, 128, 128), (0, 255, 128), (-128, 127, 0), (-1, 1, 0)],
)
def test_unsigned_bytes_are_shifted_into_int8(low: int, high: int, shift: int):
    assert int8_shift(low, high) == shift
    assert -128 <= low - shift and high - shift <= 127


@pytest.mark.parametrize(("low", "high"), [(0, 256), (-1, 128), (-129, 0), (-128, 255)])
def test_ranges_wider_than_a_byte_are_refused(low: int, high: int):
    with pytest.raises(ValueError) as caught:
        int8_shift(low, high)
    for part in (f"[{low}, {high}]", "at most 8 bits", "[-128, 127] or [0, 255]"):
        assert part in str(caught.value)
