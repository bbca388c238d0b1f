"""Pooling over windows: the largest code, the rounded average, and the plain sum.

Positions outside the image take no part: an average divides by the taps inside it.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from qjax.core.intconv import window_sum
from qjax.core.windows import Padding, Pair, output_size
from qjax.program.arithmetic import require_int32
from qjax.program.base import (
    Operator,
    Site,
    require_dtype,
    require_padding,
    require_pair,
    require_rank,
)
from qjax.program.onnx.rules import BYTES, mean_bounds, real_values
from qjax.program.tensor import DTYPES, Shape, Tensor

_TAPS = 1024
"""Added one by one, in the order of the runtime."""


@dataclasses.dataclass(frozen=True)
class _Pool(Operator):
    """What all pools share.

    Attributes:
        window, strides: (rows, columns).
        padding: ((top, bottom), (left, right)), each below the window's side.
    """

    arity: ClassVar[tuple[int, int]] = (1, 1)

    window: Pair = (1, 1)
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))

    def __post_init__(self) -> None:
        require_pair(self.kind, "window", self.window, 1)
        require_pair(self.kind, "strides", self.strides, 1)
        require_padding(self.kind, self.padding)
        if any(max(pads) >= side for pads, side in zip(self.padding, self.window, strict=True)):
            raise ValueError(
                f"{self.kind}.padding must be below the window {self.window}, got {self.padding}"
            )

    def pooled(self, site: Site) -> Shape:
        """(n, oh, ow, c)."""
        (x,) = site.inputs
        require_rank(x, 4)
        assert x.shape[1] is not None and x.shape[2] is not None
        axes = zip(x.shape[1:3], self.window, self.strides, self.padding, strict=True)
        rows, columns = (output_size(*axis) for axis in axes)  # pyright: ignore[reportArgumentType]
        return (x.shape[0], rows, columns, x.shape[3])


@dataclasses.dataclass(frozen=True)
class MaxPool(_Pool):
    """The code of the largest value in each window: the least code where a scale is negative."""

    kind: ClassVar[str] = "max_pool"

    def infer(self, site: Site) -> Shape:
        """(n, oh, ow, c)."""
        require_dtype(site.inputs[0], site.output.dtype)
        return self.pooled(site)

    def compute(self, site: Site, *values: Array) -> Array:
        """The codes themselves, clamped to the output's range."""
        (x,) = values
        negative = site.inputs[0].units.scale.value < 0
        # Bitwise not reverses order exactly and never overflows, unlike a change of sign.
        flip = jnp.asarray(np.where(negative, -1, 0).astype(DTYPES[site.output.dtype]))
        flip = flip.reshape((1, 1, 1, -1))
        x = x ^ flip if negative.any() else x
        least = jnp.asarray(jnp.iinfo(x.dtype).min, x.dtype)
        window, strides = (1, *self.window, 1), (1, *self.strides, 1)
        padding = ((0, 0), *self.padding, (0, 0))
        pooled = lax.reduce_window(x, least, lax.max, window, strides, padding)
        pooled = pooled ^ flip if negative.any() else pooled
        return jnp.clip(pooled, *site.output.range)


@dataclasses.dataclass(frozen=True)
class AveragePool(_Pool):
    """The average *code* of each window, rounded; input and output share scale and zero point.

    TFLite's rule, whatever the policy but one: a tie goes away from code zero for int8 and int16,
    and upwards for uint8, so that the same network can differ by one between the two types. Bytes
    under `f32_even` may change their grid, and are averaged as real numbers by onnxruntime's
    QLinearAveragePool (`onnx/rules.py`).
    """

    kind: ClassVar[str] = "average_pool"

    def infer(self, site: Site) -> Shape:
        """(n, oh, ow, c)."""
        require_dtype(site.inputs[0], "int8", "uint8", "int16")
        require_dtype(site.output, site.inputs[0].dtype)
        low, high = site.inputs[0].range
        taps = self.window[0] * self.window[1]
        if taps > _TAPS and self._is_real(site):
            raise ValueError(
                f"{self.kind}.window must have at most {_TAPS} taps under {site.policy}, got {taps}"
            )
        require_int32(str(site.output), (2 * taps * min(low, 0), 2 * taps * max(high, 1)))
        return self.pooled(site)

    def compute(self, site: Site, *values: Array) -> Array:
        """The sum of the codes over the number of taps inside the image."""
        (x,) = values
        if self._is_real(site):
            return self._real(site, x)
        sums = window_sum(x, self.window, self.strides, self.padding, groups=x.shape[-1])
        count = jnp.asarray(self._counts(x.shape))
        half = count // 2
        nearest = jnp.where(sums > 0, sums + half, sums - half)
        # C's division, toward zero; uint8 sums are never negative.
        mean = lax.div(nearest, jnp.broadcast_to(count, sums.shape))
        return jnp.clip(mean, *site.output.range).astype(DTYPES[site.output.dtype])

    def _is_real(self, site: Site) -> bool:
        return site.policy == "f32_even" and site.output.dtype in BYTES

    def _real(self, site: Site, x: Array) -> Array:
        """The average in float32, one tap after the other."""
        (tensor,) = site.inputs
        real = jnp.asarray(real_values(tensor))[x.astype(jnp.uint8).astype(jnp.int32)]
        # What is padded adds nothing.
        real = jnp.pad(real, ((0, 0), *self.padding, (0, 0)))
        counts = self._counts(x.shape)
        reach = [(n - 1) * s + 1 for n, s in zip(counts.shape[1:3], self.strides, strict=True)]
        total = jnp.zeros((), jnp.float32)
        for row in range(self.window[0]):
            for column in range(self.window[1]):
                rows, columns = (
                    slice(at, at + size, stride)
                    for at, size, stride in zip((row, column), reach, self.strides, strict=True)
                )
                total = total + real[:, rows, columns]
        return self._landed(site.output, total, counts)

    def _landed(self, output: Tensor, total: Array, counts: np.ndarray) -> Array:
        """Codes of real sums: near the quotient, then where its bounds say."""
        low, high = output.range
        kinds, places = np.unique(counts, return_inverse=True)
        bounds = jnp.asarray(np.concatenate([mean_bounds(int(n), output) for n in kinds]))
        start = jnp.asarray((places.reshape(counts.shape) * (high - low + 2)).astype(np.int32))
        scale = jnp.asarray((1 / (counts * output.units.step)).astype(np.float32))
        near = jnp.clip(jnp.round(total * scale), low - output.units.zero, high - output.units.zero)
        place = near.astype(jnp.int32) + (output.units.zero - low)
        above = (total >= bounds[start + place + 1]).astype(jnp.int32)
        below = (total < bounds[start + place]).astype(jnp.int32)
        return (place + low + above - below).astype(DTYPES[output.dtype])

    def _counts(self, shape: tuple[int, ...]) -> np.ndarray:
        """Taps inside the image, int32 (1, oh, ow, 1)."""
        counts = []
        axes = zip(shape[1:3], self.window, self.strides, self.padding, strict=True)
        for size, window, stride, (before, after) in axes:
            starts = np.arange(output_size(size, window, stride, (before, after))) * stride - before
            counts.append(np.minimum(starts + window, size) - np.maximum(starts, 0))
        return (counts[0][:, None] * counts[1]).astype(np.int32)[None, :, :, None]


@dataclasses.dataclass(frozen=True)
class SumPool(_Pool):
    """The sum of each window's integers, int32: an average whose division waits in the scale."""

    kind: ClassVar[str] = "sum_pool"

    def infer(self, site: Site) -> Shape:
        """(n, oh, ow, c)."""
        require_dtype(site.output, "int32")
        if any(any(pads) for pads in self.padding):
            raise ValueError(f"sum_pool.padding must be zero, got {self.padding}")
        taps = self.window[0] * self.window[1]
        bounds = require_int32(str(site.output), [taps * end for end in site.inputs[0].range])
        low, high = site.output.range
        if not low <= bounds[0] <= bounds[1] <= high:
            raise ValueError(f"{site.output} must declare the range {bounds}, got {(low, high)}")
        return self.pooled(site)

    def compute(self, site: Site, *values: Array) -> Array:
        """The sums."""
        (x,) = values
        return window_sum(x, self.window, self.strides, groups=x.shape[-1])
