"""`shift`: requantization without a multiplier, for scales that are powers of two."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Int, Int32

from qjax.core import wide
from qjax.core.accumulate import accumulate, clamp, settled, whole_bias
from qjax.core.affine import Affine, HostNumber
from qjax.core.shifts import RoundingShift, shift_half_even


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
        >>> import jax.numpy as jnp
        >>> affine = Affine((np.float64(2**-3),), np.float64(0), ((-99, 99),), low=-8, high=7)
        >>> shift([jnp.array([-12, -4, 4, 12, 20])], affine).tolist()
        [-2, 0, 0, 2, 2]
    """
    affine = settled(affine)
    halvings = [_halvings(scale, index) for index, scale in enumerate(affine.scales)]
    depth = np.maximum(np.max(np.broadcast_arrays(*halvings), axis=0), 0)
    depth = depth + _spare(affine, depth)
    pairs = zip(affine.scales, halvings, strict=True)
    factors = [np.ldexp(np.sign(scale), depth - count) for scale, count in pairs]
    bias = whole_bias(affine, np.ldexp(1.0, -depth))
    total, _ = accumulate(affine.int32(terms), factors, bias, affine.bounds, "shift")
    return clamp(rounding(total, wide.lanes(depth, total.ndim)), affine)


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
            "give input, weights and output power-of-two scales and averages power-of-two counts, "
            "or use q31_even"
        )
    return np.where(scale == 0, 0, count)
