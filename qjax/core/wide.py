"""64-bit integers as two 32-bit words, for programs in which int64 does not exist.

A requantization multiplies a 32-bit accumulator by a 32-bit multiplier and rounds the 64-bit
product. With x64 off, JAX turns a request for int64 into int32 without a word, so the product is
held here as

    V = high * 2**32 + low,    high: int32 (carries the sign),    low: uint32.

`low` is unsigned because addition needs its carry, and the carry out of `low + c` is
`low + c < c` in unsigned arithmetic. All functions are elementwise; constants live on the host.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, Shaped, UInt32
from numpy.typing import ArrayLike


class Wide(NamedTuple):
    """A 64-bit integer per element, `high * 2**32 + low`."""

    high: Int32[Array, "*shape"]
    low: UInt32[Array, "*shape"]


Multiply = Callable[[Int32[Array, "..."], Int32[Array, "..."]], Wide]


def lanes(
    values: ArrayLike,
    rank: int,
    dtype: type[np.int32 | np.uint32 | np.bool_ | np.float32] = np.int32,
) -> Shaped[Array, "..."]:
    """A host constant as an operand: () or (c,) becomes () or (1, ..., 1, c) of `rank` axes.

    Channels that all agree collapse to a scalar, since a shift by an immediate is cheaper than a
    shift by a vector. Values that `dtype` cannot hold are a bug of the caller.

    >>> lanes(np.array([1, 2]), rank=3).shape, lanes(np.array([5, 5]), rank=3).shape
    ((1, 1, 2), ())
    """
    array = np.asarray(values)
    if array.size and (array == array.flat[0]).all():
        array = array.reshape(-1)[0]
    constant = np.asarray(array).astype(dtype)
    assert (constant == array).all(), (array, dtype)
    return jnp.asarray(constant.reshape((1,) * (rank - 1) + (-1,)) if array.ndim else constant)


def multiply(left: Int32[Array, "..."], right: Int32[Array, "..."]) -> Wide:
    """The exact product of two int32 arrays, the high word by `jax.lax.mulhi`.

    The fastest form on one device. `mulhi` does not compile under sharding (jax 0.11 and 0.12):
    there use `multiply_by_halves`.

    >>> product = multiply(jnp.int32(-3), jnp.int32(2**31 - 1))
    >>> int(product.high) * 2**32 + int(product.low) == -3 * (2**31 - 1)
    True
    """
    return Wide(lax.mulhi(left, right), _unsigned(left * right))


def multiply_by_halves(left: Int32[Array, "..."], right: Int32[Array, "..."]) -> Wide:
    """The exact product of two int32 arrays from 16-bit halves; compiles under any sharding.

    With a = a1 * 2**16 + a0 and b = b1 * 2**16 + b0 (a0, b0 unsigned, a1, b1 signed):

        a * b = a1*b1 * 2**32 + (a1*b0 + a0*b1) * 2**16 + a0*b0.

    Each of the sums below stays inside int32, since |a1 * b0| <= 2**15 * (2**16 - 1) leaves room
    for a carry of 16 bits.

    >>> product = multiply_by_halves(jnp.int32(-3), jnp.int32(2**31 - 1))
    >>> int(product.high) * 2**32 + int(product.low) == -3 * (2**31 - 1)
    True
    """
    left_low, left_high = left & 0xFFFF, left >> 16
    right_low, right_high = right & 0xFFFF, right >> 16
    carry = _signed(_unsigned(left_low * right_low) >> 16)
    middle = left_high * right_low + carry
    other = left_low * right_high + (middle & 0xFFFF)
    high = left_high * right_high + (middle >> 16) + (other >> 16)
    return Wide(high, _unsigned(left * right))


def add(left: Wide, right: Wide) -> Wide:
    """The sum; the caller guarantees that it stays inside 64 bits."""
    low = left.low + right.low
    return Wide(left.high + right.high + (low < right.low).astype(jnp.int32), low)


def add_constant(value: Wide, constant: ArrayLike) -> Wide:
    """The sum with a host constant, scalar or per channel, of up to 64 bits.

    A constant that is a multiple of 2**32 costs one addition, any other one four operations.
    """
    constant = np.asarray(constant, np.int64)
    rank = value.high.ndim
    high = value.high + lanes(constant >> 32, rank)
    low = constant & 0xFFFFFFFF
    if not low.any():
        return Wide(high, value.low)
    addend = lanes(low, rank, np.uint32)
    total = value.low + addend
    return Wide(high + (total < addend).astype(jnp.int32), total)


def shift_right(value: Wide, count: ArrayLike) -> Int32[Array, "*shape"]:
    """The low 32 bits of `floor(V / 2**count)`; count on the host, 0 to 63, () or (c,).

    From 32 on the low word drops out, and XLA never computes it.

    >>> int(shift_right(multiply(jnp.int32(-5), jnp.int32(2**30)), 31))  # floor(-2.5)
    -3
    """
    count = np.asarray(count)
    assert ((count >= 0) & (count <= 63)).all(), count
    rank = value.high.ndim
    from_high = value.high >> lanes(np.clip(count - 32, 0, 31), rank)
    if (count >= 32).all():
        return from_high
    inside = np.clip(count, 0, 31)
    # `high << (32 - count)` in two steps: a shift by 32 is undefined.
    upper = (value.high << 1) << lanes(31 - inside, rank)
    from_both = upper | _signed(value.low >> lanes(inside, rank, np.uint32))
    return jnp.where(lanes(count >= 32, rank, np.bool_), from_high, from_both)


def shift_left_saturating(value: Wide, count: ArrayLike) -> Wide:
    """`V * 2**count`, count on the host in [0, 30]; exact while it fits in 64 bits.

    A value that does not fit keeps its sign and ends within 2**count of the extreme in its high
    word, enough for a clamp to any range inside +-(2**31 - 2**count) that follows.
    """
    count = np.asarray(count)
    assert ((count >= 0) & (count <= 30)).all(), count
    rank = value.high.ndim
    limit = np.left_shift(np.int64(1), 31 - count)
    clipped = jnp.clip(value.high, lanes(-limit, rank), lanes(limit - 1, rank))
    carried = _signed((value.low >> 1) >> lanes(31 - count, rank, np.uint32))
    high = (clipped << lanes(count, rank)) | carried
    return Wide(high, value.low << lanes(count, rank, np.uint32))


def _unsigned(value: Int32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    return lax.bitcast_convert_type(value, jnp.uint32)


def _signed(value: UInt32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    return lax.bitcast_convert_type(value, jnp.int32)
