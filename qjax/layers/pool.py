"""Pooling. In integers maxima are taken of codes and averages are sums whose division joins the
scale.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import Policy
from qjax.core.windows import Padding, explicit
from qjax.layers.join import Then
from qjax.layers.layer import FloatBoundary, Layer, Value, any_float, landing
from qjax.layers.slots import FloatSlot, Slot


def _windows(window: int, stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (1, window, window, 1), (1, stride, stride, 1)


class MaxPool(Layer):
    """Maximum over windows; what is padded is below every number and never the maximum.

    Args:
        window: side of the window.
        stride: step; the window's side by default.
        padding: "VALID" (none), "SAME" (as TensorFlow), a number for every side, or ((top, bottom),
            (left, right)); each below `window`.

    Raises:
        ValueError: a padding as wide as the window, which would leave windows without a pixel.
    """

    kind: ClassVar[str] = "pool"
    slots: ClassVar[tuple[str, ...]] = ("output",)
    pending: ClassVar[bool] = False

    output: FloatSlot | Slot

    def __init__(
        self, window: int = 2, stride: int | None = None, padding: str | int | Padding = "VALID"
    ):
        self.window = window
        self.stride = window if stride is None else stride
        self.padding = padding
        widths = explicit(padding, (window, window), (window, window), (1, 1))
        if max(max(pair) for pair in widths) >= window:
            raise ValueError(
                f"MaxPool.padding must be below the window of {window}, got {padding!r}"
            )
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q c"]:
        """The pooled tensor, through the slot."""
        shape, strides = _windows(self.window, self.stride)
        pads = ((0, 0), *self.pads(x.shape), (0, 0))
        least = np.asarray(-np.inf, x.dtype)
        return self.output(jax.lax.reduce_window(x, least, jax.lax.max, shape, strides, pads))

    def pads(self, shape: tuple[int, ...]) -> Padding:
        """Explicit ((top, bottom), (left, right)) for an input of this shape."""
        sides = (self.window, self.window), (self.stride, self.stride)
        return explicit(self.padding, (shape[1], shape[2]), *sides)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Maximum of the integers; minimum where a channel's scale is negative."""
        if any_float(inputs):
            return FloatBoundary(self)
        (x,) = inputs
        assert isinstance(x, Codes)
        if len(x.terms) != 1:
            raise ValueError(
                "its input is a pending residual sum, whose maximum is not that of its terms; "
                "pool after "
                "a quantized activation"
            )
        pooling = _IntegerMax(self.window, self.stride, self.pads(x.shape))
        return Then(pooling, landing(self.output, x, policy))


class _IntegerMax(nnx.Module):
    def __init__(self, window: int, stride: int, pads: Padding):
        self.window = window
        self.stride = stride
        self.pads = pads

    def __call__(self, x: Codes) -> Codes:
        (term,) = x.terms
        ints = term.ints
        negative = np.broadcast_to(term.scale.value < 0, ints.shape[-1:])
        # Bitwise not reverses order exactly and never overflows, unlike a change of sign.
        flip = jnp.asarray(np.where(negative, -1, 0).reshape(1, 1, 1, -1), ints.dtype)
        flipped = ints ^ flip if negative.any() else ints
        least = jnp.asarray(jnp.iinfo(ints.dtype).min, ints.dtype)
        shape, strides = _windows(self.window, self.stride)
        pads = ((0, 0), *self.pads, (0, 0))
        pooled = jax.lax.reduce_window(flipped, least, jax.lax.max, shape, strides, pads)
        pooled = pooled ^ flip if negative.any() else pooled
        return Codes((dataclasses.replace(term, ints=pooled),), x.offset)


class AvgPool(Layer):
    """Average over windows, no padding. `window` and `stride` as for `MaxPool`."""

    kind: ClassVar[str] = "pool"
    slots: ClassVar[tuple[str, ...]] = ("output",)

    output: FloatSlot | Slot

    def __init__(self, window: int = 2, stride: int | None = None):
        self.window = window
        self.stride = window if stride is None else stride
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q c"]:
        """The pooled tensor, through the slot."""
        return self.output(nnx.avg_pool(x, (self.window,) * 2, (self.stride,) * 2))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Window sums; 1/n joins the scale."""
        if any_float(inputs):
            return FloatBoundary(self)
        return Then(_IntegerSum(self.window, self.stride), landing(self.output, inputs[0], policy))


class _IntegerSum(nnx.Module):
    def __init__(self, window: int, stride: int):
        self.window = window
        self.stride = stride

    def __call__(self, x: Codes) -> Codes:
        shape, strides = _windows(self.window, self.stride)

        def total(ints: Array) -> Array:
            wide = ints.astype(jnp.int32)
            return jax.lax.reduce_window(wide, jnp.int32(0), jax.lax.add, shape, strides, "VALID")

        return sum_terms(x, total, self.window**2)


def sum_terms(x: Codes, total, count: int) -> Codes:
    """Codes of an average: each term summed by `total` over `count` elements, scale divided by
    `count`.

    Raises:
        ValueError: when a sum could leave int32.
    """
    terms = []
    for term in x.terms:
        low, high = term.low * count, term.high * count
        if max(high, -low) >= 2**31:
            raise ValueError(
                f"a sum of {count} elements could leave int32; quantize before the pooling"
            )
        scale, zero = HostArray(term.scale.value / count), HostArray(term.zero_point.value * count)
        terms.append(IntegerTerm(total(term.ints), scale, zero, low, high))
    return Codes(tuple(terms), x.offset)


class GlobalAvgPool(Layer):
    """Mean over height and width: (n, h, w, c) -> (n, c)."""

    kind: ClassVar[str] = "pool"
    slots: ClassVar[tuple[str, ...]] = ("output",)

    output: FloatSlot | Slot

    def __init__(self) -> None:
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
        """The mean, through the slot."""
        return self.output(jnp.mean(x, axis=(1, 2)))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Sums over the image; 1/(h w) joins the scale."""
        if any_float(inputs):
            return FloatBoundary(self)
        return Then(_IntegerMean(), landing(self.output, inputs[0], policy))


class _IntegerMean(nnx.Module):
    def __call__(self, x: Codes) -> Codes:
        return sum_terms(
            x, lambda ints: jnp.sum(ints, (1, 2), dtype=jnp.int32), x.shape[1] * x.shape[2]
        )
