"""gemmlowp's and TFLite's arithmetic against their golden vectors and Python integers."""

import math
from fractions import Fraction

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from qjax.core import wide
from qjax.core.fixedpoint import (
    effective_multiplier,
    effective_multiplier_float32,
    multiply_by_quantized_multiplier,
    multiply_by_quantized_multiplier_16bit,
    multiply_by_quantized_multiplier_single_rounding,
    quantize_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
    saturating_rounding_doubling_high_mul_int16,
)
from tests.core.oracle import golden

MULTIPLIES = pytest.mark.parametrize("multiply", [wide.multiply, wide.multiply_by_halves])
INT32 = st.integers(-(2**31), 2**31 - 1)


def test_golden_quantize_multiplier() -> None:
    cases = golden("quantize_multiplier")["cases"]
    q31, shift = quantize_multiplier([case["m"] for case in cases])
    assert q31.tolist() == [case["q31"] for case in cases]
    assert shift.tolist() == [case["shift"] for case in cases]


def test_golden_effective_multiplier_precision() -> None:
    for case in golden("effective_multiplier_precision")["cases"]:
        scales = case["s_in"], case["s_w"], case["s_out"]
        double, single = effective_multiplier(*scales), effective_multiplier_float32(*scales)
        assert (float(double), float(single)) == (
            case["m_double_product"],
            case["m_float32_product"],
        )
        assert [int(v) for v in quantize_multiplier(double)] == case["q31_shift_double_product"]
        assert [int(v) for v in quantize_multiplier(single)] == case["q31_shift_float32_product"]


@given(real=st.floats(-(2.0**40), 2.0**40))
def test_multiplier_is_within_half_a_unit(real: float) -> None:
    q31, shift = (int(v) for v in quantize_multiplier(real))
    value = Fraction(q31) * Fraction(2) ** (shift - 31)
    if shift or q31:
        assert 2**30 <= abs(q31) < 2**31
        assert abs(value - Fraction(real)) <= Fraction(2) ** (shift - 32)
    else:
        assert abs(real) < 2.0**-31


@pytest.mark.parametrize("real", [math.inf, -math.inf, math.nan])
def test_multiplier_must_be_finite(real: float) -> None:
    with pytest.raises(ValueError, match=r"multipliers must be finite, got .*(inf|nan)"):
        quantize_multiplier([1.0, real])


@MULTIPLIES
def test_golden_srdhm_int32(multiply: wide.Multiply) -> None:
    left, right, expected = zip(*golden("srdhm_int32")["cases"], strict=True)
    result = saturating_rounding_doubling_high_mul(
        jnp.asarray(left, jnp.int32), jnp.asarray(right, jnp.int32), multiply
    )
    assert tuple(result.tolist()) == expected


def test_golden_srdhm_int16() -> None:
    left, right, expected = zip(*golden("srdhm_int16")["cases"], strict=True)
    result = saturating_rounding_doubling_high_mul_int16(
        jnp.asarray(left, jnp.int16), jnp.asarray(right, jnp.int16)
    )
    assert tuple(result.tolist()) == expected


def test_golden_rounding_divide_by_pot() -> None:
    x, exponent, expected = zip(*golden("rounding_divide_by_pot")["cases"], strict=True)
    result = rounding_divide_by_pot(jnp.asarray(x, jnp.int32), jnp.asarray(exponent))
    assert tuple(result.tolist()) == expected


@MULTIPLIES
@pytest.mark.parametrize(
    ("key", "function"),
    [
        ("double_rounding", multiply_by_quantized_multiplier),
        ("single_rounding", multiply_by_quantized_multiplier_single_rounding),
        ("int64_16bit_multiplier", multiply_by_quantized_multiplier_16bit),
    ],
)
def test_golden_multiply_by_quantized_multiplier(key: str, function, multiply) -> None:
    cases = golden("multiply_by_quantized_multiplier")["cases"]
    x = jnp.asarray([case["x"] for case in cases], jnp.int32)
    q31 = np.array([case["q31"] for case in cases])
    shift = np.array([case["shift"] for case in cases])
    expected = [case[key] for case in cases]
    assert function(x, q31, shift, multiply).tolist() == expected
    # One at a time too: scalar multipliers take other paths than one per channel.
    singly = [int(function(x[i], q31[i], shift[i], multiply)) for i in range(len(cases))]
    assert singly == expected


def test_hand_check_of_the_three_roundings() -> None:
    x = jnp.asarray([47, 46, -46])
    assert multiply_by_quantized_multiplier(x, 2**30, -1).tolist() == [12, 12, -12]
    assert multiply_by_quantized_multiplier_single_rounding(x, 2**30, -1).tolist() == [12, 12, -11]


@given(
    x=st.lists(INT32, min_size=4, max_size=4),
    q31=st.integers(2**30, 2**31 - 1),
    shift=st.integers(-31, 0),
)
def test_products_against_big_integers(x: list[int], q31: int, shift: int) -> None:
    array = jnp.asarray(x, jnp.int32)
    high = [(value * q31 + 2**30) >> 31 for value in x]
    double = [
        int(math.copysign(math.floor(abs(Fraction(h, 2**-shift)) + Fraction(1, 2)), h))
        for h in high
    ]
    single = [(value * q31 + 2 ** (30 - shift)) >> (31 - shift) for value in x]
    assert multiply_by_quantized_multiplier(array, q31, shift).tolist() == double
    assert multiply_by_quantized_multiplier_single_rounding(array, q31, shift).tolist() == single


def test_shift_that_leaves_nothing_to_round() -> None:
    with pytest.raises(ValueError, match=r"got a right shift of 0; the scale is too large"):
        multiply_by_quantized_multiplier_single_rounding(jnp.asarray([1]), 2**30, 31)
