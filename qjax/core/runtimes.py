"""Requantization as integer runtimes compute it, each policy the exact rule of a runtime.

All read the same numbers (`Affine`): real multipliers M = scale, and an offset that is split into
the output zero point and a rest. The rest, a bias, enters as runtimes take it: an int32 in units of
the accumulator, bias = rest / M rounded half away from zero, added before the multiplication
(`shift`, which is no single runtime's, keeps its fraction). Runtimes know positive multipliers only;
a negative M negates the accumulator first, as folding the sign into the weight codes does. What a
runtime cannot hold (bias or accumulator outside int32) is an error, since it would wrap around.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int, Int32

from qjax.core import wide
from qjax.core.affine import INT32_MAX, INT32_MIN, Affine, HostNumber
from qjax.core.fixedpoint import (
    multiply_by_quantized_multiplier,
    multiply_by_quantized_multiplier_single_rounding,
    quantize_multiplier,
)
from qjax.core.shifts import RoundingShift, shift_half_even

_FLOAT32_EXACT = 2**24


def gemmlowp(
    terms: Sequence[Int[Array, "*shape"]],
    affine: Affine,
    multiply: wide.Multiply = wide.multiply,
) -> Int32[Array, "*shape"]:
    """TFLite's reference kernels: Q31 multiplier, double rounding, then zero point and clamp.

    Two terms follow TFLite's ADD of two 8-bit (or 16-bit) tensors: with t = 2 * max(M1, M2),

        a = MBQM((q1 - Z1) << 20, M1 / t),  b likewise,  y = MBQM(a + b, t / 2**20) + Z

    (a left shift of 15 where the output has more than 256 codes).

    Raises:
        ValueError: a bias or an accumulator outside int32; more than two terms; two terms with a
            bias or wider than their left shift allows.

    Example:
        >>> affine = Affine((np.float64(0.25),), np.float64(0), ((-99, 99),), low=-128, high=127)
        >>> gemmlowp([jnp.array([46, -46])], affine).tolist()  # 11.5 -> 23/2 -> 12, -11.5 -> -12
        [12, -12]
    """
    return _q31(terms, affine, multiply_by_quantized_multiplier, multiply)


def q31(
    terms: Sequence[Int[Array, "*shape"]],
    affine: Affine,
    multiply: wide.Multiply = wide.multiply_by_halves,
) -> Int32[Array, "*shape"]:
    """ruy and TFLite's single-rounding builds: as `gemmlowp`, with one rounding, half up.

    Example:
        >>> affine = Affine((np.float64(0.25),), np.float64(0), ((-99, 99),), low=-128, high=127)
        >>> q31([jnp.array([46, -46])], affine).tolist()
        [12, -11]
    """
    return _q31(terms, affine, multiply_by_quantized_multiplier_single_rounding, multiply)


def f32_even(terms: Sequence[Int[Array, "*shape"]], affine: Affine) -> Int32[Array, "*shape"]:
    """onnxruntime, fbgemm, qnnpack, XNNPACK: rhe(float32(acc) * float32(M)), then the zero point.

    Floating point, to be equal to those runtimes. Several terms: the sum of their float32 products
    in order, plus float32(rest).

    Raises:
        ValueError: a bias or an accumulator outside int32; codes beyond 2**24.

    Example:
        >>> affine = Affine((np.float64(0.5),), np.float64(1), ((-9, 9),), -9, 9, zero_point=1)
        >>> f32_even([jnp.array([1, 3, -1])], affine).tolist()  # rhe(0.5), rhe(1.5), rhe(-0.5), + 1
        [1, 3, 1]
    """
    zero = affine.zero_point
    value = _float_sum(_float_parts(terms, affine, "f32_even"))
    codes = jnp.clip(jnp.round(value), affine.low - zero, affine.high - zero)
    return codes.astype(jnp.int32) + zero


def f32_zp_even(terms: Sequence[Int[Array, "*shape"]], affine: Affine) -> Int32[Array, "*shape"]:
    """OpenVINO, oneDNN: rhe(float32(acc) * float32(M) + zero point). As `f32_even` otherwise.

    Example:
        >>> affine = Affine((np.float64(0.5),), np.float64(1), ((-9, 9),), -9, 9, zero_point=1)
        >>> f32_zp_even([jnp.array([1, 3, -1])], affine).tolist()  # rhe(1.5), rhe(2.5), rhe(0.5)
        [2, 2, 0]
    """
    zero = affine.zero_point
    value = _float_sum(_float_parts(terms, affine, "f32_zp_even"))
    # Clamped before the sum: as good as after, and it keeps XLA from fusing product and sum into
    # one rounding.
    inside = jnp.clip(value, affine.low - zero, affine.high - zero)
    return jnp.round(inside + zero).astype(jnp.int32)


def shift(
    terms: Sequence[Int[Array, "*shape"]],
    affine: Affine,
    rounding: RoundingShift = shift_half_even,
) -> Int32[Array, "*shape"]:
    """A rounding right shift, for scales +-2**-k: WAGE, and hardware such as the DPU.

    Several terms shift left onto the finest of their grids, exactly, and round once. A bias between
    two steps of that grid is kept to as many bits as int32 has to spare: all shift left by them.

    Args:
        terms: int8 or int32 arrays of one shape, channels on the last axis.
        affine: what to compute; every scale a power of two from 2**-31 up, or its negative.
        rounding: the rule for ties, one of `core/shifts.py`.

    Raises:
        ValueError: a scale that is no such power of two, or a sum that can leave int32.

    Example:
        >>> affine = Affine((np.float64(2**-3),), np.float64(0), ((-99, 99),), low=-8, high=7)
        >>> shift([jnp.array([-12, -4, 4, 12, 20])], affine).tolist()
        [-2, 0, 0, 2, 2]
    """
    halvings = [_halvings(scale, index) for index, scale in enumerate(affine.scales)]
    depth = np.maximum(np.max(np.broadcast_arrays(*halvings), axis=0), 0)
    depth = depth + _spare(affine, depth)
    pairs = zip(affine.scales, halvings, strict=True)
    factors = [np.ldexp(np.sign(scale), depth - count) for scale, count in pairs]
    bias = _bias(affine, np.ldexp(1.0, -depth), "shift")
    total, _ = _accumulate(affine.int32(terms), factors, bias, affine.bounds, "shift")
    return _clamp(rounding(total, wide.lanes(depth, total.ndim)), affine)


def _spare(affine: Affine, depth: HostNumber) -> HostNumber:
    """By how many bits the terms may shift left for the sake of a bias that is not whole."""
    rest = affine.offset - affine.zero_point
    reach = np.frexp(np.ldexp(affine.span + np.abs(rest) + 1, depth))[1]
    spare = np.maximum(np.minimum(30 - reach, 31 - depth), 0)
    return np.where(np.ldexp(rest, depth) % 1 != 0, spare, 0)


def _halvings(scale: HostNumber, index: int) -> HostNumber:
    """k of +-2**-k, at most 31; a scale of zero needs none."""
    mantissa, exponent = np.frexp(np.abs(scale))
    count = 1 - exponent.astype(np.int64)
    wrong = (scale != 0) & ((mantissa != 0.5) | (count > 31))
    if wrong.any():
        raise ValueError(
            f"shift: scales[{index}] must be +-2**-k with k <= 31, got {scale[wrong].flat[0]}; "
            "give the input, the weights and the output power-of-two scales, or use q31_even"
        )
    return np.where(scale == 0, 0, count)


def _q31(
    terms: Sequence[Int[Array, "*shape"]],
    affine: Affine,
    scale_down: Callable[..., Int32[Array, "*shape"]],
    multiply: wide.Multiply,
) -> Int32[Array, "*shape"]:
    ints = affine.int32(terms)
    if len(ints) == 1:
        (scale,) = affine.scales
        bias = _bias(affine, np.abs(scale), "gemmlowp and q31")
        sign = np.where(scale < 0, -1.0, 1.0)
        total, reach = _accumulate(ints, [sign], bias, affine.bounds, "gemmlowp and q31")
        multiplier = _multiplier(np.abs(scale), reach)
        return _clamp(scale_down(total, *multiplier, multiply), affine)
    if len(ints) > 2:
        raise ValueError(
            f"gemmlowp and q31: TFLite adds two tensors at a time, got {len(ints)} terms; "
            "requantize each sum of two, or use q31_even"
        )
    left = 20 if affine.high - affine.low < 256 else 15
    twice = 2 * np.maximum(*(np.abs(scale) for scale in affine.scales))
    twice = np.where(twice == 0, 1.0, twice)
    _check_centred(affine)
    total, reach = jnp.zeros_like(ints[0]), np.zeros(())
    rows = zip(ints, affine.scales, affine.zeros, affine.bounds, strict=True)
    for term, scale, zero, bounds in rows:
        factor = np.where(scale < 0, -1.0, 1.0) * 2**left
        grown, grown_reach = _accumulate(
            [term], [factor], -factor * zero, (bounds,), "gemmlowp and q31 (ADD of 8-bit codes)"
        )
        total = total + scale_down(grown, *quantize_multiplier(np.abs(scale) / twice), multiply)
        reach = reach + grown_reach / 2  # the multipliers below 2 * max(M) are at most a half
    return _clamp(scale_down(total, *_multiplier(twice / 2**left, reach), multiply), affine)


def _check_centred(affine: Affine) -> None:
    """TFLite's ADD knows zero points and no bias: the offset must be made of them alone."""
    centre = sum(s * z for s, z in zip(affine.scales, affine.zeros, strict=True))
    rest = affine.offset - affine.zero_point + centre
    if (np.abs(rest) > 1e-9 * (1 + np.abs(affine.offset))).any():
        raise ValueError(
            f"gemmlowp and q31: TFLite's ADD has no bias, but Affine.offset holds one of "
            f"{rest.flat[np.argmax(np.abs(rest))]:.6g} output steps beside the zero points; name "
            "the terms' zero points in Affine.zeros, requantize each term first, or use q31_even"
        )


def _bias(affine: Affine, step: HostNumber, policy: str) -> HostNumber:
    """The offset without the zero point, in whole units of `step`, half away from zero."""
    rest, step = np.broadcast_arrays(affine.offset - affine.zero_point, step)
    if ((step == 0) & (rest != 0)).any():
        raise ValueError(
            f"{policy}: a channel with a scale of 0 cannot carry a bias, got an offset of "
            f"{rest[(step == 0) & (rest != 0)].flat[0]:.6g} output steps; use q31_even"
        )
    with np.errstate(over="ignore"):
        units = np.divide(rest, step, out=np.zeros(rest.shape), where=step != 0)
    return np.copysign(np.floor(np.abs(units) + 0.5), units)


def _accumulate(
    terms: Sequence[Int32[Array, "*shape"]],
    factors: Sequence[HostNumber],
    bias: HostNumber,
    bounds: Sequence[tuple[int, int]],
    policy: str,
) -> tuple[Int32[Array, "*shape"], HostNumber]:
    """sum_i factor_i * term_i + bias, and how large it can get; factors are whole numbers."""
    pairs = zip(factors, bounds, strict=True)
    ends = [np.sort([factor * low, factor * high], axis=0) for factor, (low, high) in pairs]
    least, most = sum(end[0] for end in ends) + bias, sum(end[1] for end in ends) + bias
    largest = max(np.max(np.abs(factor)) for factor in factors)
    if (least < INT32_MIN).any() or (most > INT32_MAX).any() or largest > INT32_MAX:
        raise ValueError(
            f"{policy}: the accumulator with its bias must stay inside int32, but it can reach "
            f"{np.min(least):.6g} to {np.max(most):.6g} (bias up to {np.max(np.abs(bias)):.6g}); "
            "narrow the terms, raise the scale, or use q31_even, which adds the offset afterwards"
        )
    rank = terms[0].ndim
    total = None
    for term, factor in zip(terms, factors, strict=True):
        part = term if (factor == 1).all() else term * wide.lanes(factor, rank)
        total = part if total is None else total + part
    assert total is not None
    total = total + wide.lanes(bias, rank) if bias.any() else total
    return total, np.maximum(-least, most)


def _multiplier(scale: HostNumber, reach: HostNumber) -> tuple[HostNumber, HostNumber]:
    """The quantized multiplier, after checking that its left shift keeps the accumulator whole."""
    multiplier, exponent = quantize_multiplier(scale)
    if (np.ldexp(reach, np.maximum(exponent, 0)) > INT32_MAX).any():
        raise ValueError(
            f"gemmlowp and q31: accumulators up to {np.max(reach):.6g} times a scale of "
            f"{np.max(scale):.6g} leave int32, where the runtime wraps around; use q31_even"
        )
    return multiplier, exponent


def _clamp(codes: Int32[Array, "*shape"], affine: Affine) -> Int32[Array, "*shape"]:
    """Add the zero point and clamp, in the order that cannot overflow."""
    zero = affine.zero_point
    return jnp.clip(codes, affine.low - zero, affine.high - zero) + zero


def _float_parts(
    terms: Sequence[Int[Array, "*shape"]], affine: Affine, policy: str
) -> list[Float32[Array, "..."]]:
    """The float32 numbers whose sum is rounded: one product, or products and the rest."""
    zero = affine.zero_point
    if max(abs(affine.low - zero), abs(affine.high - zero), abs(zero)) > _FLOAT32_EXACT:
        raise ValueError(
            f"{policy}: codes must be exact in float32, inside +-2**24 of the zero point {zero}, "
            f"got [{affine.low}, {affine.high}]; use q31_even"
        )
    ints = affine.int32(terms)
    rank = ints[0].ndim
    if len(ints) == 1:
        (scale,) = affine.scales
        sign = np.where(scale < 0, -1.0, 1.0)
        bias = _bias(affine, np.abs(scale), policy)
        ints = [_accumulate(ints, [sign], bias, affine.bounds, policy)[0]]
        return [ints[0].astype(jnp.float32) * _float_lanes(np.abs(scale), rank)]
    products = [
        term.astype(jnp.float32) * _float_lanes(scale, rank)
        for term, scale in zip(ints, affine.scales, strict=True)
    ]
    return [*products, _float_lanes(affine.offset - zero, rank)]


def _float_lanes(values: HostNumber, rank: int) -> Float32[Array, "..."]:
    return wide.lanes(values.astype(np.float32), rank, np.float32)


def _float_sum(parts: Sequence[Float32[Array, "..."]]) -> Float32[Array, "..."]:
    """The sum in order. The barrier keeps XLA from fusing a product and a sum into one rounding."""
    first, *others = lax.optimization_barrier(list(parts)) if len(parts) > 1 else parts
    for other in others:
        first = first + other
    return first
