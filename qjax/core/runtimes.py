"""Requantization as integer runtimes compute it, each policy the exact rule of a runtime.

All read the same numbers (`Affine`): real multipliers M = scale, and an offset that is split into
the output zero point and a rest. The rest, a bias, enters as runtimes take it: an int32 in units of
the accumulator, bias = rest / M rounded half away from zero, added before the multiplication.
Runtimes know positive multipliers only; a negative M negates the accumulator first, which is what
folding the sign into the weight codes does. Where gamma is so small that the bias leaves int32 the
channel becomes a constant (`accumulate.settled`). What a runtime cannot hold otherwise (a bias or
an accumulator outside int32) is an error that names it, since the runtime would wrap around.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int, Int32

from qjax.core import wide
from qjax.core.accumulate import accumulate, clamp, settled, whole_bias
from qjax.core.affine import INT32_MAX, Affine, HostNumber
from qjax.core.fixedpoint import (
    multiply_by_quantized_multiplier,
    multiply_by_quantized_multiplier_single_rounding,
    quantize_multiplier,
)

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


def _q31(
    terms: Sequence[Int[Array, "*shape"]],
    affine: Affine,
    scale_down: Callable[..., Int32[Array, "*shape"]],
    multiply: wide.Multiply,
) -> Int32[Array, "*shape"]:
    ints = affine.int32(terms)
    if len(ints) == 1:
        affine, sign, unit = _with_units(affine)
        bias = whole_bias(affine, unit)
        total, reach = accumulate(ints, [sign], bias, affine.bounds, "gemmlowp and q31")
        multiplier = _multiplier(unit, reach)
        return clamp(scale_down(total, *multiplier, multiply), affine)
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
        grown, grown_reach = accumulate(
            [term], [factor], -factor * zero, (bounds,), "gemmlowp and q31 (ADD of 8-bit codes)"
        )
        total = total + scale_down(grown, *quantize_multiplier(np.abs(scale) / twice), multiply)
        reach = reach + grown_reach / 2  # the multipliers below 2 * max(M) are at most a half
    return clamp(scale_down(total, *_multiplier(twice / 2**left, reach), multiply), affine)


def _with_units(affine: Affine) -> tuple[Affine, HostNumber, HostNumber]:
    """One term's numbers as a runtime holds them, the term's sign, and the size of its unit.

    A scale of 0, whose code is a constant, has the sign 0 and a unit of 2**-16 for its bias.
    """
    affine = settled(affine)
    (scale,) = affine.scales
    return affine, np.sign(scale), np.where(scale == 0, 2.0**-16, np.abs(scale))


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


def _multiplier(scale: HostNumber, reach: HostNumber) -> tuple[HostNumber, HostNumber]:
    """The quantized multiplier, after checking that its left shift keeps the accumulator whole."""
    multiplier, exponent = quantize_multiplier(scale)
    if (np.ldexp(reach, np.maximum(exponent, 0)) > INT32_MAX).any():
        raise ValueError(
            f"gemmlowp and q31: accumulators up to {np.max(reach):.6g} times a scale of "
            f"{np.max(scale):.6g} leave int32, where the runtime wraps around; use q31_even"
        )
    return multiplier, exponent


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
        affine, sign, unit = _with_units(affine)
        bias = whole_bias(affine, unit)
        ints = [accumulate(ints, [sign], bias, affine.bounds, policy)[0]]
        return [ints[0].astype(jnp.float32) * _float_lanes(unit, rank)]
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
