"""Fixed-point functions of the gemmlowp library, bit for bit, in int32: exp(x), 1 / (1 + x).

Qm.n is an int32 with n fractional bits (m + n = 31). A product of Qa.b and Qc.d is
SRDHM, saturating(round(x * y / 2**31)), read as Q(a+c). From gemmlowp's fixedpoint.h:

*exp on negative values*, Q5.26 to Q0.31: x = a - r with a in [-1/4, 0) and r a multiple of 1/4;
exp(a) is a polynomial about -1/8,

    exp(a) = c (1 + (y + (((y^4 / 4 + y^3) / 3) + y^2) / 2)),  y = a + 1/8,  c = exp(-1/8),

and for each bit k of r, -2 <= k <= 4, the result is multiplied by exp(-2**k).

*1 / (1 + x)* for x in [0, 1], Q0.31: with h = (1 + x) / 2 three Newton steps z += z (1 - h z) from
z = 48/17 - 32/17 h in Q2.29, halved at the end.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int32

from qjax.core.fixedpoint import (
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
)

_ONE = 2**31 - 1
_EXP_MINUS_EIGHTH = 1895147668
_THIRD = 715827883
# exp(-2**k) in Q0.31 for k = -2 to 4.
_EXP_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
_48_OVER_17 = 1515870810
_MINUS_32_OVER_17 = -1010580540


def exp_on_negative_values(x: Int32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """exp(x) in Q0.31 for x <= 0 in Q5.26.

    >>> exp_on_negative_values(jnp.array([0, -(2**26), -(2**31)])).tolist()  # 1, 1/e, exp(-32)
    [2147483647, 790015308, 0]
    """
    quarter = 1 << 24
    within = (x & (quarter - 1)) - quarter
    result = _exp_within_a_quarter(saturating_shift_left(within, 5))
    rest = within - x
    for bit, power in zip(range(24, 31), _EXP_POWERS, strict=True):
        scaled = saturating_rounding_doubling_high_mul(result, power)
        result = jnp.where((rest & (1 << bit)) != 0, scaled, result)
    return jnp.where(x == 0, _ONE, result)


def _exp_within_a_quarter(a: Int32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """exp(a) in Q0.31 for a in [-1/4, 0) in Q0.31."""
    times = saturating_rounding_doubling_high_mul
    y = a + (1 << 28)
    y2 = times(y, y)
    y3, y4 = times(y2, y), times(y2, y2)
    sixths = times(rounding_divide_by_pot(y4, 2) + y3, _THIRD)
    series = y + rounding_divide_by_pot(sixths + y2, 1)
    return _EXP_MINUS_EIGHTH + times(series, _EXP_MINUS_EIGHTH)


def one_over_one_plus_x(x: Int32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """1 / (1 + x) in Q0.31 for x in [0, 1] in Q0.31.

    >>> one_over_one_plus_x(jnp.array([0, 2**30])).tolist()  # 1, 2/3
    [2147483647, 1431655762]
    """
    times = saturating_rounding_doubling_high_mul
    half = (x >> 1) + (1 << 30)
    z = _48_OVER_17 + times(half, _MINUS_32_OVER_17)
    for _ in range(3):
        z = z + saturating_shift_left(times(z, (1 << 29) - times(half, z)), 2)
    return saturating_shift_left(z, 1)


class Reciprocal(NamedTuple):
    """1 / x = scale * 2**-bits, scale in Q0.31."""

    scale: Int32[Array, "..."]
    bits: Int32[Array, "..."]


def reciprocal(x: Int32[Array, "*shape"], integer_bits: int) -> Reciprocal:
    """1 / x of a positive number with so many integer bits (and 31 less those fractional ones)."""
    headroom = lax.clz(x)
    shifted = (x << headroom) ^ jnp.int32(-(2**31))
    return Reciprocal(one_over_one_plus_x(shifted), integer_bits - headroom)


def saturating_shift_left(x: Int32[Array, "*shape"], count: int) -> Int32[Array, "*shape"]:
    """x * 2**count, or the end of int32 that it passes.

    >>> saturating_shift_left(jnp.array([3, 2**30, -(2**30)]), 2).tolist()
    [12, 2147483647, -2147483648]
    """
    limit = (1 << (31 - count)) - 1
    shifted = x << count
    shifted = jnp.where(x > limit, _ONE, shifted)
    return jnp.where(x < -limit, -(2**31), shifted)
