"""A layer's sum and the requantization behind it as one operator: int8 weights, an int32 bias.

The network computes code = M_c * sum (x - Z_x) e + r_c steps from real zero, M_c of any sign and
size (batch normalization's gamma is in it). A runtime computes S_x S_w,c / S_y * (sum + bias_c)
with a positive scale in float32. What is done about the rest, channel by channel:

| case | remedy |
|---|---|
| M_c below zero | the sign goes into the weight codes |
| narrow codes | they and 1 / S_w are multiplied by a power of two: the bias has a finer unit |
| r_c / M_c beyond int32 | r_c is cut to where the code saturates anyway; |
| still beyond int32 | S_w is raised and the codes rounded (such sums move a code by fractions) |
| the sum moves no code | weight codes of zero, the code in the bias |
| a weight of -128 turned over | 127 |

The last but two and the last change weights; `Fused.changed` counts such channels.
"""

from typing import NamedTuple

import numpy as np

from qjax.core.affine import HostNumber
from qjax.program.base import NotExpressible

_LIMIT = 2.0**30
"""Magnitude that sum and bias may have together: a bit of int32 is left."""
_SILENT = 2.0**-16
"""Output steps: a sum that stays below is left out."""


class Grid(NamedTuple):
    """Where codes of one activation live: scale, zero point, least and largest code."""

    scale: float
    zero: int
    low: int
    high: int


class Fused(NamedTuple):
    """Constants of one operator; the last axis is the output channel.

    Attributes:
        codes: int8 weights.
        scale: float32 values, (o,).
        bias: int32, (o,).
        changed: channels whose weights could not be kept exactly.
    """

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    changed: int


def fuse(
    effective: np.ndarray, factor: HostNumber, rest: HostNumber, x: Grid, y: Grid, widest: int
) -> Fused:
    """Fold sign, offset and width into the constants of a layer.

    Args:
        effective: e, whole numbers (..., o).
        factor: M, () or (o,): output steps a unit of the sum.
        rest: r, () or (o,): output steps.
        x, y: input and output grids, in the runtime's codes.
        widest: largest magnitude that narrow codes are multiplied to.

    Raises:
        NotExpressible: codes beyond int8, or a bias that no remedy brings into int32.
    """
    channels = effective.shape[-1]
    factor, rest = (np.broadcast_to(v, channels).astype(np.float64) for v in (factor, rest))
    codes = effective * np.where(factor < 0, -1, 1)
    multiplier = np.abs(factor)
    turned = (codes == 128) & (effective == -128)
    codes = np.where(turned, 127, codes)
    dead = multiplier * _reach(codes, x) < _SILENT
    codes = np.where(dead, 0, codes)
    multiplier = np.where(dead, _SILENT, multiplier)
    rest = _cut(rest, codes, multiplier, x, y)
    codes, multiplier, raised = _raise(codes, multiplier, rest, x)
    codes, multiplier = _widen(codes, multiplier, rest, x, widest)
    if codes.min() < -128 or codes.max() > 127:
        raise NotExpressible(
            f"weight codes from {codes.min()} to {codes.max()} do not fit int8 without a zero "
            "point; choose symmetric weights, or format=program or stablehlo, which hold any"
        )
    scale = (multiplier * y.scale / x.scale).astype(np.float32).astype(np.float64)
    unit = x.scale * scale / y.scale
    bias = rest / unit
    bias = np.copysign(np.floor(np.abs(bias) + 0.5), bias)
    if not (np.abs(bias) + _reach(codes, x) < 2.0**31).all():
        raise NotExpressible(
            f"a bias of {np.max(np.abs(bias)):.3g} units leaves int32; choose format=program or "
            "stablehlo, which add the offset after the multiplication"
        )
    changed = raised | turned.any(tuple(range(codes.ndim - 1)))
    return Fused(codes.astype(np.int8), scale, bias.astype(np.int32), int(changed.sum()))


def _reach(codes: np.ndarray, x: Grid) -> np.ndarray:
    """Largest magnitude of the sum, (o,)."""
    low, high = min(x.low - x.zero, 0), max(x.high - x.zero, 0)
    axes = tuple(range(codes.ndim - 1))
    positive = np.maximum(codes, 0).sum(axes).astype(np.float64)
    negative = np.minimum(codes, 0).sum(axes).astype(np.float64)
    least, most = positive * low + negative * high, positive * high + negative * low
    return np.maximum(-least, most)


def _cut(
    rest: np.ndarray, codes: np.ndarray, multiplier: np.ndarray, x: Grid, y: Grid
) -> np.ndarray:
    """The offset, no farther out than where every code saturates; the same codes exactly."""
    moved = multiplier * _reach(codes, x)
    return np.clip(rest, y.low - y.zero - moved - 2, y.high - y.zero + moved + 2)


def _raise(
    codes: np.ndarray, multiplier: np.ndarray, rest: np.ndarray, x: Grid
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes and multipliers whose bias fits; which channels were changed, (o,)."""
    room = _LIMIT - _reach(codes, x)
    with np.errstate(divide="ignore"):
        needed = np.where(rest == 0, 0.0, np.abs(rest) / room)
    raised = needed > multiplier
    target = np.where(raised, needed, multiplier)
    codes = np.where(raised, np.round(codes * (multiplier / target)), codes).astype(np.int64)
    return codes, target, raised


def _widen(
    codes: np.ndarray, multiplier: np.ndarray, rest: np.ndarray, x: Grid, widest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes times a power of two, the multiplier over it."""
    axes = tuple(range(codes.ndim - 1))
    largest = np.maximum(np.abs(codes).max(axes), 1)
    total = _reach(codes, x) + np.abs(rest) / multiplier
    room = np.minimum(widest / largest, _LIMIT / np.maximum(total, 1))
    doublings = np.floor(np.log2(np.maximum(room, 1))).astype(np.int64)
    return codes << doublings, np.ldexp(multiplier, -doublings)
