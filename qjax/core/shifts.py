"""Rounding right shifts of int32: x / 2**n to the nearest integer, one function per rule for ties.

With the floor f = x >> n (arithmetic), the half bit h = (x >> (n-1)) & 1 and the sticky flag
k = [the n-1 bits below h are not all zero], the fraction x / 2**n - f is below a half when h = 0,
a tie when h = 1 and k = 0, and above a half otherwise. So the nearest integer is f + (h & k), plus
one more on a tie if the rule says so:

    floor               f
    half up             f + h
    half away           f + (h & (k | x >= 0))
    half toward zero    f + (h & (k | x < 0))
    half even           f + (h & (k | f odd))

Adding 2**(n-1) first, the usual form of half up, overflows near 2**31 - 1; these forms cannot.
Shift counts are 0 to 31, scalars or arrays that broadcast, on the host or traced.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, Int32

Count = int | Int[Array, "..."]
RoundingShift = Callable[[Int32[Array, "*shape"], Count], Int32[Array, "*shape"]]


def shift_floor(x: Int32[Array, "*shape"], count: Count) -> Int32[Array, "*shape"]:
    """floor(x / 2**count): truncation of the bits below, half a step low on average.

    >>> shift_floor(jnp.array([-12, -4, 4, 12, 20]), 3).tolist()  # -1.5, -0.5, 0.5, 1.5, 2.5
    [-2, -1, 0, 1, 2]
    """
    return x >> jnp.asarray(count, jnp.int32)


def shift_half_up(x: Int32[Array, "*shape"], count: Count) -> Int32[Array, "*shape"]:
    """floor(x / 2**count + 1/2): ties toward plus infinity (the DPU's activations).

    >>> shift_half_up(jnp.array([-12, -4, 4, 12, 20]), 3).tolist()
    [-1, 0, 1, 2, 3]
    """
    parts = _split(x, count)
    return parts.floor + parts.half


def shift_half_away(x: Int32[Array, "*shape"], count: Count) -> Int32[Array, "*shape"]:
    """Ties away from zero, as C's `round` (gemmlowp's RoundingDivideByPOT; the DPU's weights).

    >>> shift_half_away(jnp.array([-12, -4, 4, 12, 20]), 3).tolist()
    [-2, -1, 1, 2, 3]
    """
    parts = _split(x, count)
    return parts.floor + (parts.half & (parts.sticky | ~(x >> 31)))


def shift_half_toward_zero(x: Int32[Array, "*shape"], count: Count) -> Int32[Array, "*shape"]:
    """Ties toward zero on both sides (named "half down" in DPU kernels).

    >>> shift_half_toward_zero(jnp.array([-12, -4, 4, 12, 20]), 3).tolist()
    [-1, 0, 0, 1, 2]
    """
    parts = _split(x, count)
    return parts.floor + (parts.half & (parts.sticky | (x >> 31)))


def shift_half_even(x: Int32[Array, "*shape"], count: Count) -> Int32[Array, "*shape"]:
    """Ties to the even neighbour, without bias; the rule of `jnp.round`.

    >>> shift_half_even(jnp.array([-12, -4, 4, 12, 20]), 3).tolist()
    [-2, 0, 0, 2, 2]
    """
    parts = _split(x, count)
    return parts.floor + (parts.half & (parts.sticky | parts.floor))


class _Parts(NamedTuple):
    """f, h and k of the module's docstring; h and k are 0 or 1."""

    floor: Int32[Array, "..."]
    half: Int32[Array, "..."]
    sticky: Int32[Array, "..."]


def _split(x: Int32[Array, "*shape"], count: Count) -> _Parts:
    count = jnp.asarray(count, jnp.int32)
    below = jnp.maximum(count - 1, 0)
    # A count of zero has no half bit: mask it out.
    half = (x >> below) & (count > 0).astype(jnp.int32)
    sticky = (x & ((1 << below) - 1)) != 0
    return _Parts(x >> count, half, sticky.astype(jnp.int32))
