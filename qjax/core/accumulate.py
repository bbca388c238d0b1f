"""What integer requantizations share: a bias in whole units, a sum inside int32, a clamp.

`settled` makes of an `Affine` one that such arithmetic can hold where that moves no code: a trained
network has channels whose gamma has decayed to nothing and whose bias is not nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from qjax.core import wide
from qjax.core.affine import INT32_MAX, INT32_MIN, Affine, HostNumber

SILENT = 2.0**-8
"""Output steps: a sum that stays below may be left out where its bias would not fit otherwise."""


def settled(affine: Affine) -> Affine:
    """The same codes, from numbers that fit.

    An offset where every code saturates is pulled in to where they still do. Of one term, a channel
    whose scale is so small that its bias, in units of the term, leaves int32 (or that no shift of
    an int32 makes it) gets a scale of 0, if its sum stays below `SILENT`: a constant.

    Example:
        >>> numbers = Affine((np.array([0.5, 1e-12]),), np.array([3.0, 3.0]), ((-99, 99),), -8, 7)
        >>> settled(numbers).scales[0].tolist()
        [0.5, 0.0]
    """
    (scale, *others), reach = affine.scales, affine.reach[0]
    if others:
        return affine
    edge = affine.span + 1
    offset = np.clip(affine.offset, affine.low - edge, affine.high + edge)
    size = np.abs(scale)
    fits = np.abs(offset - affine.zero_point) <= size * (INT32_MAX - reach)
    silent = (size * reach < SILENT) & (~fits | (size < 2.0**-31))
    return replace(affine, scales=(np.where(silent, 0, scale),), offset=np.asarray(offset))


def whole_bias(affine: Affine, unit: HostNumber) -> HostNumber:
    """The offset without the zero point, in whole units (above zero), half away from zero."""
    units = (affine.offset - affine.zero_point) / unit
    return np.copysign(np.floor(np.abs(units) + 0.5), units)


def accumulate(
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


def clamp(codes: Int32[Array, "*shape"], affine: Affine) -> Int32[Array, "*shape"]:
    """Add the zero point and clamp, in the order that cannot overflow."""
    zero = affine.zero_point
    return jnp.clip(codes, affine.low - zero, affine.high - zero) + zero
