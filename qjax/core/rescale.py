"""`q31_even`: the requantization that equals rounding the exact value, half to even, once.

The value of a code before rounding is v = sum_i s_i * t_i + o, with terms t_i (int32), scales s_i
and offset o in output steps. Every number is put on one fixed-point grid of F fractional bits,

    V = sum_i (t_i << l_i) * M_i + O,   M_i = round(s_i * 2**(F - l_i)),   O = round(o * 2**F),

which is summed exactly in 64 bits (`core/wide.py`); then code = clip(rhe(V / 2**F), low, high).
A tie goes to the neighbour at an even distance from the zero point, as it does in the simulation,
which computes round(x / scale) + zero_point.

*The grid.* F is per channel (one for all where the scales are scalars), as large as these allow:

1. the sum fits: |V| < 2**63 for all terms inside their bounds;
2. every multiplier fits an int32: with |s_i| in [2**(e-1), 2**e) that takes l_i >= F - 31 + e, and
   the bounds of t_i say how far it may shift left.

Where rule 2 decides, the multiplier of the largest scale has 31 significant bits, relative error at
most 2**-31, and the others have 31 too or an error below a unit of that grid. Where rule 1 decides,
F leaves only the bits that the 64-bit sum needs: a scale of 1e-12 then keeps fewer significant
bits, but its absolute error, at most |t_i| * 2**(l_i - F - 1), stays below any that could matter.

*The offset* is rounded once at F bits, after the multiplication, so a BN bias over a gamma of 1e-8
cannot overflow. An offset so far out that all codes saturate is pulled in to where they still do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Int32

from qjax.core import wide
from qjax.core.affine import INT32_MAX, INT32_MIN, Affine, HostNumber


@dataclass(frozen=True, eq=False)
class Rescale:
    """The integers of one `q31_even`: V = sum_i (t_i << left_i) * multiplier_i + offset.

    Attributes:
        multipliers: per term, int64 array of shape () or (c,) with values inside int32.
        left_shifts: per term, int64 array, 0 to 31.
        offset: int64 array, () or (c,), in units of 2**-fraction_bits output steps.
        fraction_bits: int64 array, () or (c,), 12 to 61.
        low, high: output code range.
        odd_zero: whether the output zero point is odd, so that ties go to odd codes.
        has_ties: whether some term inside its bounds meets a tie; proven absent where False.
    """

    multipliers: tuple[np.ndarray, ...]
    left_shifts: tuple[np.ndarray, ...]
    offset: np.ndarray
    fraction_bits: np.ndarray
    low: int
    high: int
    odd_zero: bool
    has_ties: bool


def plan_rescale(affine: Affine) -> Rescale:
    """The fixed-point grid for `affine`, on the host.

    Example:
        >>> plan = plan_rescale(Affine((np.float64(0.75),), np.float64(0), ((-8, 7),), -8, 7))
        >>> int(plan.multipliers[0]) / 2**31, int(plan.left_shifts[0]), int(plan.fraction_bits)
        (0.75, 28, 59)
    """
    # A term that is always zero has no say in the grid.
    scales = [s * bool(reach) for s, reach in zip(affine.scales, affine.reach, strict=True)]
    edge = affine.span + 1
    offset = np.clip(affine.offset, affine.low - edge, affine.high + edge)
    # |V| < 2**F * magnitude < 2**62, which leaves a bit for the roundings of M and O.
    fraction = np.asarray(62 - np.frexp(affine.span + np.abs(offset) + 1)[1].astype(np.int64))
    needed = [31 - np.frexp(s)[1].astype(np.int64) for s in scales]  # F - l_i at 31 bits
    for s, bits, bounds in zip(scales, needed, affine.bounds, strict=True):
        fraction = np.where(s != 0, np.minimum(fraction, bits + _spare_bits(*bounds)), fraction)
    if all(s.ndim == 0 for s in scales):
        fraction = np.asarray(fraction.min())
    lefts = [
        np.where(s != 0, np.maximum(fraction - bits, 0), 0)
        for s, bits in zip(scales, needed, strict=True)
    ]
    # A mantissa that rounds up to 2**31 stays at 2**31 - 1: still within 2**-31 of the scale.
    multipliers = [
        np.clip(np.rint(np.ldexp(s, fraction - left)), -INT32_MAX, INT32_MAX).astype(np.int64)
        for s, left in zip(scales, lefts, strict=True)
    ]
    fixed = np.rint(np.ldexp(offset, fraction)).astype(np.int64)
    tie = len(scales) > 1 or _meets_tie(multipliers[0], lefts[0], fixed, fraction, affine.bounds[0])
    return Rescale(
        multipliers=tuple(np.asarray(multiplier) for multiplier in multipliers),
        left_shifts=tuple(lefts),
        offset=np.asarray(fixed),
        fraction_bits=fraction,
        low=affine.low,
        high=affine.high,
        odd_zero=affine.zero_point % 2 == 1,
        has_ties=bool(tie),
    )


def rescale(
    terms: Sequence[Int32[Array, "*shape"]],
    plan: Rescale,
    multiply: wide.Multiply | None = None,
) -> Int32[Array, "*shape"]:
    """`clip(rhe(V / 2**F), low, high)` per element, for terms inside the planned bounds."""
    rank = terms[0].ndim
    half = np.left_shift(np.int64(1), plan.fraction_bits - 1)
    constant = plan.offset + half
    if multiply is None:
        # Where nothing carries into it, `mulhi` keeps LLVM from vectorising the clamp that follows
        # (jaxlib 0.11 and 0.12 on x86): three times slower than the halves.
        carries = len(terms) > 1 or np.any(constant & 0xFFFFFFFF)
        multiply = wide.multiply if carries else wide.multiply_by_halves
    total = None
    for term, multiplier, left in zip(terms, plan.multipliers, plan.left_shifts, strict=True):
        shifted = term << wide.lanes(left, rank) if left.any() else term
        product = multiply(shifted, wide.lanes(multiplier, rank))
        total = product if total is None else wide.add(total, product)
    assert total is not None
    total = wide.add_constant(total, constant)
    # Fewer than 32 fractional bits (spans above 2**29 steps): move the binary point up to a word.
    missing = np.maximum(32 - plan.fraction_bits, 0)
    if missing.any():
        total = wide.shift_left_saturating(total, missing)
    depth = np.maximum(plan.fraction_bits - 32, 0)
    rounded = total.high >> wide.lanes(depth, rank)
    if plan.has_ties:
        # Adding a half rounds ties up and clears the fraction: from the wrong parity, step back.
        below = total.high & wide.lanes((1 << depth) - 1, rank)
        tie = (below | lax.bitcast_convert_type(total.low, jnp.int32)) == 0
        parity = ~rounded if plan.odd_zero else rounded
        rounded = rounded - (parity & tie.astype(jnp.int32))
    return jnp.clip(rounded, plan.low, plan.high)


def q31_even(
    terms: Sequence[Int[Array, "*shape"]],
    affine: Affine,
    multiply: wide.Multiply | None = None,
) -> Int32[Array, "*shape"]:
    """One rounding, half to even, of the exact sum: what `jnp.round` simulates. The default policy.

    For every term inside its bounds the result equals, over the rationals,

        clip(rhe(v - z) + z, low, high),   v = sum_i M_i * 2**(l_i - F) * t_i + O * 2**-F

    with z the output zero point: nothing but the rounding of each scale to its multiplier and of
    the offset to F bits is lost. Against the float64 scales a code differs only where the value
    lies nearer to a rounding boundary than the sum of 2**-31 * |s_i * t_i|, or |t_i| * 2**-(F+1)
    where rule 1 decided F, and 2**-(F+1) for the offset: 2**-20 steps on any 8-bit grid whose terms
    stay below a thousand steps.

    Args:
        terms: int8 or int32 arrays of one shape, channels on the last axis.
        affine: what to compute.
        multiply: how two words are multiplied; by default the faster way on one CPU device. Under
            sharding it must be `wide.multiply_by_halves`. The codes are the same.

    Example:
        >>> affine = Affine((np.float64(0.5),), np.float64(1), ((-8, 7),), low=-2, high=3)
        >>> q31_even([jnp.array([-8, -3, -1, 1, 3, 5])], affine).tolist()  # -0.5, 0.5, 1.5, 2.5 tie
        [-2, 0, 0, 2, 2, 3]
    """
    return rescale(affine.int32(terms), plan_rescale(affine), multiply)


def _spare_bits(low: int, high: int) -> int:
    """How far integers in [low, high] shift left inside int32; at most 31."""
    spare = 31
    while spare and not (INT32_MIN <= low << spare and high << spare <= INT32_MAX):
        spare -= 1
    return spare


def _meets_tie(
    multiplier: HostNumber,
    left: HostNumber,
    offset: HostNumber,
    fraction: HostNumber,
    bounds: tuple[int, int],
) -> bool:
    """Whether (t << left) * multiplier + offset = 2**(F-1) modulo 2**F for some t in bounds.

    A linear congruence t * n = r (mod 2**F). With n = odd * 2**g it has solutions only if 2**g
    divides r, and they are one residue class modulo 2**(F - g).
    """
    low, high = bounds
    for m, shift, o, bits in np.nditer([multiplier, left, offset, fraction]):
        n = (int(m) << int(shift)) % 2 ** int(bits)
        rest = (2 ** (int(bits) - 1) - int(o)) % 2 ** int(bits)
        g = min((n & -n).bit_length() - 1, int(bits)) if n else int(bits)
        if rest % 2**g:
            continue
        modulus = 2 ** (int(bits) - g)
        first = (rest >> g) * pow(n >> g, -1, modulus) % modulus if g < bits else 0
        if low + (first - low) % modulus <= high:
            return True
    return False
