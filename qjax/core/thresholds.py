"""`thresholds`: a code as the number of integer thresholds that the accumulator has passed.

For a monotone quantizer of v = s * a + o, every code above the lowest is entered at one integer
accumulator. With the boundary b between code j-1 and code j, belonging to j or not (a tie),

    s > 0:  a passes  <=>  a >= ceil((b - o) / s),  or  a >= floor((b - o) / s) + 1 if strict,

and code = low + [how many are passed]. Each threshold is computed on the host over the rationals,
from the float64 numbers themselves, so the code is that of the exact value at every accumulator,
ties included; the program compares and adds int32 and knows no multiplier. For s < 0 the order is
reversed by ~a = -a - 1, which unlike -a maps int32 onto itself.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Int32
from numpy.typing import ArrayLike

from qjax.core import wide
from qjax.core.affine import INT32_MAX, INT32_MIN, Affine

# XLA on CPU fuses all comparisons into one loop; past some 60 thresholds that loop crawls.
_THRESHOLDS_A_PASS = 32


def entry_points(
    scale: ArrayLike,
    offset: ArrayLike,
    boundaries: Sequence[Fraction | float],
    strict: Sequence[bool],
) -> tuple[np.ndarray, np.ndarray]:
    """The least accumulators that pass the boundaries of v = scale * a + offset, exactly.

    Args:
        scale, offset: float64, () or (c,); a negative scale reverses the accumulator.
        boundaries: k increasing values of v.
        strict: per boundary, whether v must exceed it (False: reaching it is enough).

    Returns:
        (least, reverse): int64 of shape (k,) or (k, c) with values in [-2**31, 2**31], where
        -2**31 always passes and 2**31 never does; bool of shape () or (c,), where the thresholds
        speak of ~a in place of a.

    Example:
        >>> least, reverse = entry_points([0.5, -0.5], 0.0, [0.5, 1.5], [True, False])
        >>> least.tolist(), reverse.tolist()  # a/2 > 1/2 from 2, -a/2 > 1/2 from ~a = 1 (a = -2)
        ([[2, 1], [3, 2]], [False, True])
    """
    scale, offset = np.broadcast_arrays(np.asarray(scale, np.float64), np.asarray(offset, float))
    columns = [
        _column(s, o, boundaries, strict)
        for s, o in zip(scale.ravel().tolist(), offset.ravel().tolist(), strict=True)
    ]
    least = np.array(columns, np.int64).T.reshape((len(boundaries), *scale.shape))
    return least, np.asarray(scale < 0)


def count_thresholds(
    accumulator: Int[Array, "*shape"],
    thresholds: ArrayLike,
    strict: bool | Sequence[bool] = False,
    reverse: ArrayLike = False,
) -> Int32[Array, "*shape"]:
    """How many of k thresholds each accumulator has passed: the code of any monotone quantizer.

    Args:
        accumulator: int8 or int32, channels on the last axis.
        thresholds: whole numbers on the host, (k,), or (k, c) per channel; any order.
        strict: whether an accumulator equal to the threshold has not passed it; one for all or one
            per threshold.
        reverse: () or (c,), whether a channel compares ~a in place of a (see `entry_points`).

    Returns:
        Counts from 0 to k.

    Raises:
        ValueError: thresholds that are not of shape (k,) or (k, c) or not whole numbers.

    Example:
        >>> count_thresholds(jnp.array([-1, 0, 5, 6]), [0, 5], strict=[False, True]).tolist()
        [0, 1, 1, 2]
    """
    least = np.asarray(thresholds)
    if least.ndim not in (1, 2) or not np.issubdtype(least.dtype, np.integer):
        raise ValueError(
            "count_thresholds: thresholds must be integers of shape (k,) or (k, channels), got "
            f"{least.dtype} of shape {least.shape}; round real ones with entry_points"
        )
    sides = np.asarray(strict, np.int64).reshape((-1,) + (1,) * (least.ndim - 1))
    failing = least.astype(np.int64) + sides - 1  # the greatest value that has not passed
    # Passed by every int32: no int32 can say so, hence counted here.
    always = failing < INT32_MIN
    failing = np.where(always, INT32_MAX, np.minimum(failing, INT32_MAX))
    rank = accumulator.ndim
    value = accumulator.astype(jnp.int32)
    if np.any(reverse):
        value = value ^ wide.lanes(np.where(reverse, -1, 0), rank)
    total = jnp.zeros_like(value) + wide.lanes(always.sum(0), rank)
    rows = failing.reshape((len(failing),) + (1,) * (rank - least.ndim + 1) + least.shape[1:])
    for start in range(0, len(rows), _THRESHOLDS_A_PASS):
        part = jnp.asarray(rows[start : start + _THRESHOLDS_A_PASS], jnp.int32)
        total = total + (value[None] > part).sum(0, dtype=jnp.int32)
        total = lax.optimization_barrier(total) if start + _THRESHOLDS_A_PASS < len(rows) else total
    return total


def search_thresholds(
    accumulator: Int[Array, "*shape"], least: ArrayLike
) -> Int32[Array, "*shape"]:
    """`count_thresholds` for many of them: a binary search, where comparing with each would crawl.

    Args:
        accumulator: int8 or int32, channels on the last axis.
        least: whole numbers on the host that do not decrease, (k,) or (k, c): from 2**31 on never
            passed, up to -2**31 always.

    Returns:
        Counts from 0 to k.

    Raises:
        ValueError: thresholds that decrease.

    Example:
        >>> search_thresholds(jnp.array([-1, 0, 5, 6]), [0, 5, 2**31]).tolist()
        [0, 1, 2, 2]
    """
    least = np.asarray(least, np.int64)
    if (np.diff(least, axis=0) < 0).any():
        raise ValueError("search_thresholds: thresholds must not decrease; sort them")
    table = jnp.asarray(np.clip(least, INT32_MIN, INT32_MAX).astype(np.int32))
    search = partial(jnp.searchsorted, side="right", method="scan_unrolled")
    channels = jax.vmap(search, (1 if least.ndim == 2 else None, -1), -1)
    found = channels(table, accumulator.astype(jnp.int32))
    # What can never be passed is not counted: no int32 could say so.
    return jnp.minimum(found, wide.lanes((least <= INT32_MAX).sum(0), accumulator.ndim))


def thresholds(terms: Sequence[Int[Array, "*shape"]], affine: Affine) -> Int32[Array, "*shape"]:
    """The exact value of one term, rounded half to even, by counting `high - low` thresholds.

    No multiplier is rounded: the code is clip(rhe(s * a + o - z) + z, low, high) over the rationals
    with the float64 s and o, z the output zero point. As cheap as a multiplication up to 3 bits.

    Raises:
        ValueError: several terms.

    Example:
        >>> affine = Affine((np.float64(-0.5),), np.float64(0), ((-9, 9),), low=-2, high=2)
        >>> thresholds([jnp.array([-9, -5, -3, -1, 1, 3])], affine).tolist()  # 4.5 2.5 1.5 0.5 ...
        [2, 2, 2, 0, 0, -2]
    """
    (term, *others) = affine.int32(terms)
    if others:
        raise ValueError(
            f"thresholds: one term can be compared with thresholds, got {len(terms)}; requantize "
            "each term first, or use q31_even"
        )
    codes = range(affine.low + 1, affine.high + 1)
    least, reverse = entry_points(
        affine.scales[0],
        affine.offset,
        [Fraction(2 * code - 1, 2) for code in codes],
        # A tie belongs to the neighbour at an even distance from the zero point.
        [(code - affine.zero_point) % 2 == 1 for code in codes],
    )
    return affine.low + count_thresholds(term, least, reverse=reverse)


def _column(
    scale: float, offset: float, boundaries: Sequence[Fraction | float], strict: Sequence[bool]
) -> list[int]:
    """The least passing accumulators (~a for a negative scale) of one channel."""
    (slope, slope_unit), (start, start_unit) = scale.as_integer_ratio(), offset.as_integer_ratio()
    least = []
    for boundary, above in zip(boundaries, strict, strict=True):
        # (boundary - offset) / |scale| = gap / unit, without the cost of reducing fractions
        goal, goal_unit = boundary.as_integer_ratio()
        gap = (goal * start_unit - start * goal_unit) * slope_unit
        unit = goal_unit * start_unit * abs(slope)
        if not unit:
            passes = gap < 0 or (gap == 0 and not above)
            least.append(INT32_MIN if passes else INT32_MAX + 1)
            continue
        first = gap // unit + 1 if above else -(-gap // unit)
        first -= slope < 0  # -a >= first  <=>  ~a >= first - 1
        least.append(min(max(first, INT32_MIN), INT32_MAX + 1))
    return least
