"""Constant weights prepared for an integer kernel, shared by convolutions and dense layers.

A layer accumulates sum (x - Z_x) * (w - Z_w) + bias. With f = 1, or f = 2 where some Z_w is a
half, e = f * (w - Z_w) is whole and

    f * sum (x - Z_x) (w - Z_w) = sum x e - Z_x sum e.

The kernel runs on e where that fits int8. Where it does not (asymmetric 8-bit weights) it runs on
w moved into int8, and sum x e = f sum x w - (f Z_w) sum x with the window sums of x. Everything
that does not depend on x joins the bias in one int32 constant.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from qjax.core.fixedpoint import multiply_by_quantized_multiplier_16bit, quantize_multiplier
from qjax.program.arithmetic import TFLITE, land, multiplier, require_int32, rescale
from qjax.program.base import EXACT, Products, Site, require_dtype
from qjax.program.tensor import Tensor


class Weights(NamedTuple):
    """Host integers of one layer; the last axis of every array is the output channel.

    Attributes:
        kernel: int8 operand.
        double: f.
        correction: f * Z_w, (o,), or None where the kernel is e.
        total: sum of e over all but the last axis, (o,).
        positive, negative: sums of the positive and of the negative e, (o,).
    """

    kernel: np.ndarray
    double: int
    correction: np.ndarray | None
    total: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def plan(weight: Tensor) -> Weights:
    """Choose the operand; see the module's equations."""
    shift = 128 if weight.dtype == "uint8" else 0
    codes = weight.constant.astype(np.int64) - shift
    zero = np.broadcast_to(weight.units.zero_point.value - shift, codes.shape[-1:])
    double = 1 if (zero == np.round(zero)).all() else 2
    correction = np.round(double * zero).astype(np.int64)
    effective = double * codes - correction
    axes = tuple(range(codes.ndim - 1))
    fits = effective.min() >= -128 and effective.max() <= 127
    return Weights(
        kernel=(effective if fits else codes).astype(np.int8),
        double=double,
        correction=None if fits else correction,
        total=effective.sum(axes),
        positive=np.maximum(effective, 0).sum(axes),
        negative=np.minimum(effective, 0).sum(axes),
    )


def products(site: Site) -> Products:
    """How the sums of a layer are computed.

    Runtimes that add pairs in int16 do so for signed weights around zero; unsigned ones are widened
    first, and int16 activations are.
    """
    x, weight = site.inputs[:2]
    centred = weight.dtype == "int8" and not np.any(weight.units.zero_point.value)
    return site.products if centred and x.dtype in ("int8", "uint8") else EXACT


def signed(x: Array, tensor: Tensor) -> tuple[Array, int]:
    """Codes and their zero point, unsigned 8-bit ones moved by 128 into int8."""
    zero = tensor.units.zero
    if tensor.dtype == "uint8":
        return (x ^ 128).astype(jnp.int8), zero - 128
    return x, zero


def finish(site: Site, accumulator: Int[Array, "..."], weights: Weights, per_tensor: bool) -> Array:
    """Requantize the whole sum, or hand it on where the output is int32.

    Args:
        site: of the layer.
        accumulator: sum x e over the stored (int8) codes of x, channels last.
        weights: of the layer.
        per_tensor: whether TFLite's kernel computes one multiplier for the layer (`arithmetic`).
    """
    total = finish_sum(site, accumulator, weights)
    if site.output.dtype == "int32":
        return total
    x, weight = site.inputs[0].units, site.inputs[1].units
    scale = multiplier(
        site.policy,
        x.step,
        weight.scale.value / weights.double,
        site.output.units.step,
        per_tensor=per_tensor,
    )
    if site.inputs[0].dtype == "int16" and site.policy in TFLITE:
        # TFLite's int16x8 kernels accumulate in int64 and keep 15 bits of the multiplier.
        scaled = multiply_by_quantized_multiplier_16bit(total, *quantize_multiplier(scale))
        return land(scaled, site.output)
    return rescale(site.policy, total, scale, sum_bounds(site, weights), site.output)


def finish_sum(site: Site, accumulator: Int[Array, "..."], weights: Weights) -> Array:
    """Add what does not depend on x."""
    constant = _constant(site, weights)
    if not constant.any():
        return accumulator
    # The constant may wrap by itself; int32 sums are modular and the whole is inside.
    return accumulator + lanes(constant, accumulator.ndim)


def _constant(site: Site, weights: Weights) -> np.ndarray:
    """bias - Z_x sum e, plus the zero point of a sum that is handed on; int64, (o,)."""
    x = site.inputs[0]
    zero = x.units.zero - (128 if x.dtype == "uint8" else 0)
    constant = -zero * weights.total
    if len(site.inputs) == 3:
        constant = constant + site.inputs[2].constant.astype(np.int64)
    if site.output.dtype == "int32":
        constant = constant + site.output.units.zero_point.value.astype(np.int64)
    return constant


def sum_bounds(site: Site, weights: Weights) -> tuple[int, int]:
    """Least and largest value of the sum with its constant, from the codes that x can hold."""
    x = site.inputs[0]
    shift = 128 if x.dtype == "uint8" else 0
    low, high = (end - shift for end in x.range)
    # Padding reads as the zero point, which the range need not hold.
    zero = x.units.zero - shift
    low, high = min(low, zero), max(high, zero)
    constant = _constant(site, weights)
    least = weights.positive * low + weights.negative * high + constant
    most = weights.positive * high + weights.negative * low + constant
    return int(least.min()), int(most.max())


def check(site: Site, channels: int) -> None:
    """Raise unless weights, bias and sum fit together.

    Args:
        site: of the layer.
        channels: of the output.

    Raises:
        ValueError: naming the tensor and what is wrong.
    """
    x, weight, *bias = site.inputs
    require_dtype(x, "int8", "uint8", "int16")
    require_dtype(weight, "int8", "uint8")
    axis = weight.units.axis
    if axis not in (None, len(weight.shape) - 1):
        raise ValueError(f"{weight} must have its scales along its last axis, got axis {axis}")
    for tensor in bias:
        require_dtype(tensor, "int32")
        if tensor.constant.shape != (channels,):
            raise ValueError(f"{tensor} must have shape ({channels},), got {tensor.shape}")
    require_dtype(site.output, "int8", "uint8", "int16", "int32")
    weights = plan(weight)
    zero = site.output.units.zero_point.value
    if weights.double == 2 and (bias or site.output.dtype != "int32"):
        raise ValueError(
            f"{weight} has a zero point between two codes, which needs an int32 output and no bias"
        )
    if (zero != np.round(zero)).any():
        raise ValueError(f"{site.output} must have whole zero points, got {zero}")
    bounds = require_int32(str(site.output), sum_bounds(site, weights))
    low, high = site.output.range
    if site.output.dtype == "int32" and not low <= bounds[0] <= bounds[1] <= high:
        raise ValueError(
            f"{site.output} must declare the range of its sum, {bounds}, got {(low, high)}"
        )


def lanes(values: np.ndarray, rank: int) -> Int[Array, "..."]:
    """A host constant (o,) as an int32 operand of `rank` axes, channels last."""
    return jnp.asarray(values.astype(np.int32)).reshape((1,) * (rank - 1) + (-1,))
