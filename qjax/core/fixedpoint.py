"""Fixed-point arithmetic of gemmlowp and TFLite, bit for bit, in int32 only.

A real multiplier m is held as m = (q31 / 2**31) * 2**shift with q31 an int32 in [2**30, 2**31), and
x * m is computed from x and q31 in one of two ways (B. Jacob et al., *Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR 2018, arXiv 1712.05877,
section 2.2 and appendix B; the rounding rules are those of the shipped kernels):

    double rounding   RDivByPOT(SRDHM(x << max(shift, 0), q31), max(-shift, 0))
    single rounding   (x * q31 + 2**(30 - shift)) >> (31 - shift)

with SRDHM(a, b) = floor(a * b / 2**31 + 1/2), ties up, and RDivByPOT(x, e) = x / 2**e to nearest,
ties *away from zero*. The first rounds twice: 46 * 0.25 = 11.5 becomes 23 * 0.5, then 12; and
-46 * 0.25 becomes -23 * 0.5, then -12, where a single rounding up gives -11.

The 64-bit product x * q31 is held in two words (`core/wide.py`). Multipliers and shifts are host
integers, scalars or one per channel on the last axis of x.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int16, Int32
from numpy.typing import ArrayLike

from qjax.core import wide
from qjax.core.shifts import Count, shift_half_away


def quantize_multiplier(real: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The int32 multiplier and the shift of real multipliers: m = q31 * 2**(shift - 31).

    m = f * 2**shift with |f| in [1/2, 1); q31 = f * 2**31 rounded half away from zero. If that is
    2**31 it is halved and the shift is one more. A shift below -31 flushes to (0, 0), as in TFLite:
    such a product rounds to zero for every int32.

    Args:
        real: finite multipliers of any sign, shape () or (c,).

    Returns:
        (q31, shift): int64 arrays of the same shape; q31 has values inside int32.

    Raises:
        ValueError: a multiplier that is not finite.

    >>> quantize_multiplier(0.75)
    (array(1610612736), array(0))
    >>> quantize_multiplier([1e-12, 3.0])
    (array([         0, 1610612736]), array([0, 2]))
    """
    real = np.asarray(real, np.float64)
    if not np.isfinite(real).all():
        raise ValueError(f"quantize_multiplier: multipliers must be finite, got {real}")
    fraction, shift = np.frexp(real)
    q31 = np.floor(np.ldexp(np.abs(fraction), 31) + 0.5)
    overflow = q31 == 2**31
    q31 = np.copysign(np.where(overflow, 2**30, q31), fraction).astype(np.int64)
    shift = shift.astype(np.int64) + overflow
    flushed = shift < -31
    return np.where(flushed, 0, q31), np.where(flushed, 0, shift)


def effective_multiplier(
    input_scale: ArrayLike, weight_scale: ArrayLike, output_scale: ArrayLike
) -> np.ndarray:
    """S_x * S_w / S_y in float64, as TFLite's per-channel int8 kernels compute it.

    >>> float(effective_multiplier(0.5, 0.25, 0.5))
    0.25
    """
    product = np.asarray(input_scale, np.float64) * np.asarray(weight_scale, np.float64)
    return np.asarray(product / np.asarray(output_scale, np.float64))


def effective_multiplier_float32(
    input_scale: ArrayLike, weight_scale: ArrayLike, output_scale: ArrayLike
) -> np.ndarray:
    """float32(S_x * S_w) / S_y, as TFLite's per-tensor kernels (uint8, dense) compute it.

    The product is rounded to float32 before the division in float64, which moves low bits of q31.

    >>> scales = np.float32(0.02), np.float32(0.007), np.float32(0.05)
    >>> int(quantize_multiplier(effective_multiplier(*scales))[0])
    1539316269
    >>> int(quantize_multiplier(effective_multiplier_float32(*scales))[0])
    1539316297
    """
    product = np.asarray(input_scale, np.float32) * np.asarray(weight_scale, np.float32)
    return np.asarray(product.astype(np.float64) / np.asarray(output_scale, np.float64))


def saturating_rounding_doubling_high_mul(
    left: Int32[Array, "*shape"],
    right: Int32[Array, "..."] | int,
    multiply: wide.Multiply = wide.multiply,
) -> Int32[Array, "*shape"]:
    """SRDHM: floor(a * b / 2**31 + 1/2), except a = b = -2**31, which saturates to 2**31 - 1.

    From the words of a * b = h * 2**32 + l the value is 2h + floor(l / 2**31 + 1/2), and the floor
    is ((l >> 30) + 1) >> 1, so no carry is needed. Ties go up, also for negative products.

    >>> saturating_rounding_doubling_high_mul(jnp.array([3, -3, 4]), 2**29).tolist()  # 3/4, -3/4, 1
    [1, -1, 1]
    >>> saturating_rounding_doubling_high_mul(jnp.array([1, -1]), 2**30).tolist()  # 1/2, -1/2
    [1, 0]
    """
    right = jnp.asarray(right, jnp.int32)
    least = -(2**31)
    both_least = (left == least) & (right == least)
    return jnp.where(both_least, 2**31 - 1, _doubling_high_mul(left, right, multiply))


def saturating_rounding_doubling_high_mul_int16(
    left: Int16[Array, "*shape"], right: Int16[Array, "..."] | int
) -> Int16[Array, "*shape"]:
    """SRDHM of 16-bit numbers: floor(a * b / 2**15 + 1/2), saturating at a = b = -2**15.

    >>> values = jnp.array([1000, -32768], jnp.int16)
    >>> saturating_rounding_doubling_high_mul_int16(values, -32768).tolist()
    [-1000, 32767]
    """
    product = left.astype(jnp.int32) * jnp.asarray(right, jnp.int32)
    return jnp.minimum((product + 2**14) >> 15, 2**15 - 1).astype(jnp.int16)


def rounding_divide_by_pot(x: Int32[Array, "*shape"], exponent: Count) -> Int32[Array, "*shape"]:
    """RDivByPOT: x / 2**exponent to the nearest integer, ties away from zero; exponent 0 to 31.

    >>> rounding_divide_by_pot(jnp.array([-12, 12, 11]), 3).tolist()  # -1.5, 1.5, 1.375
    [-2, 2, 1]
    """
    return shift_half_away(x, exponent)


def multiply_by_quantized_multiplier(
    x: Int32[Array, "*shape"],
    q31: ArrayLike,
    shift: ArrayLike,
    multiply: wide.Multiply = wide.multiply,
) -> Int32[Array, "*shape"]:
    """x * q31 * 2**(shift - 31) rounded twice: TFLite's reference kernels and gemmlowp.

    `x << shift` must fit in int32 where shift is positive (the kernels wrap, and so does this).

    Args:
        x: any shape.
        q31, shift: host integers from `quantize_multiplier`, () or (c,) on the last axis of x.
        multiply: how two words are multiplied.

    >>> multiply_by_quantized_multiplier(jnp.array([46, -46]), 2**30, -1).tolist()  # 11.5, -11.5
    [12, -12]
    """
    q31, shift, rank = np.asarray(q31), np.asarray(shift), x.ndim
    assert (q31 > -(2**31)).all(), q31  # so that the product below needs no saturation
    shifted = x << wide.lanes(np.maximum(shift, 0), rank) if (shift > 0).any() else x
    product = _doubling_high_mul(shifted, wide.lanes(q31, rank), multiply)
    return rounding_divide_by_pot(product, wide.lanes(np.maximum(-shift, 0), rank))


def multiply_by_quantized_multiplier_single_rounding(
    x: Int32[Array, "*shape"],
    q31: ArrayLike,
    shift: ArrayLike,
    multiply: wide.Multiply = wide.multiply,
) -> Int32[Array, "*shape"]:
    """(x * q31 + 2**(30 - shift)) >> (31 - shift): ruy and TFLite's single-rounding builds.

    Shift is at most 30. A result outside int32 wraps. Arguments as for the double rounding.

    >>> multiply_by_quantized_multiplier_single_rounding(jnp.array([46, -46]), 2**30, -1).tolist()
    [12, -11]
    """
    return _multiply_shift_half_up(x, q31, 31 - np.asarray(shift), multiply)


def multiply_by_quantized_multiplier_16bit(
    x: Int32[Array, "*shape"],
    q31: ArrayLike,
    shift: ArrayLike,
    multiply: wide.Multiply = wide.multiply,
) -> Int32[Array, "*shape"]:
    """The rule of TFLite's int16x8 kernels: a multiplier of 15 significant bits, one rounding up.

    r = (q31 + 2**15) >> 16, or 2**15 - 1 from q31 = 0x7FFF0000 on; then
    (x * r + 2**(14 - shift)) >> (15 - shift). Shift is at most 14. There x is an int64; here it is
    an int32, which bounds what may be accumulated.

    >>> multiply_by_quantized_multiplier_16bit(jnp.array([1000, -1000]), 2**31 - 1, -4).tolist()
    [62, -62]
    """
    q31 = np.asarray(q31, np.int64)
    q15 = np.where(q31 >= 0x7FFF0000, 0x7FFF, (q31 + 2**15) >> 16)
    return _multiply_shift_half_up(x, q15, 15 - np.asarray(shift), multiply)


def _multiply_shift_half_up(
    x: Int32[Array, "*shape"], multiplier: ArrayLike, count: ArrayLike, multiply: wide.Multiply
) -> Int32[Array, "*shape"]:
    """(x * multiplier + 2**(count - 1)) >> count from 64 bits; count 1 to 62."""
    count = np.asarray(count, np.int64)
    if (count < 1).any():
        raise ValueError(
            f"multiplier shift must leave a bit to round, got a right shift of {count.min()}; "
            "the scale is too large for this rule"
        )
    product = multiply(x, wide.lanes(multiplier, x.ndim))
    half = np.left_shift(np.int64(1), count - 1)
    return wide.shift_right(wide.add_constant(product, half), count)


def _doubling_high_mul(
    left: Int32[Array, "*shape"], right: Int32[Array, "..."], multiply: wide.Multiply
) -> Int32[Array, "*shape"]:
    product = multiply(left, right)
    carry = ((product.low >> 30) + 1) >> 1
    return (product.high << 1) + carry.astype(jnp.int32)
