"""Reductions over whole axes: the mean, the plain sum, and the index of the largest."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qjax.core.fixedpoint import (
    multiply_by_quantized_multiplier,
    multiply_by_quantized_multiplier_single_rounding,
    quantize_multiplier,
)
from qjax.program.arithmetic import (
    TFLITE,
    centred_bounds,
    land,
    multiplier,
    require_int32,
    rescale,
)
from qjax.program.base import Operator, Site, require_dtype, require_whole
from qjax.program.onnx.rules import mean_scale
from qjax.program.tensor import MAX_RANK, Shape


@dataclasses.dataclass(frozen=True)
class _Reduction(Operator):
    """What all reductions share.

    Attributes:
        axes: which ones, from 0, increasing; not the batch.
        keep: whether they stay, with size 1.
    """

    arity: ClassVar[tuple[int, int]] = (1, 1)

    axes: tuple[int, ...] = ()
    keep: bool = False

    def __post_init__(self) -> None:
        require_whole(self.kind, "axes", self.axes, 0, MAX_RANK - 1)
        if not isinstance(self.axes, tuple) or list(self.axes) != sorted(set(self.axes)):
            raise ValueError(f"{self.kind}.axes must increase, got {self.axes}")
        if not isinstance(self.keep, bool):
            raise ValueError(f"{self.kind}.keep must be true or false, got {self.keep!r}")

    def reduced(self, site: Site) -> Shape:
        """The shape without the axes, or with 1 in their place."""
        (x,) = site.inputs
        for axis in self.axes:
            if axis >= len(x.shape) or x.shape[axis] is None:
                raise ValueError(
                    f"{self.kind}.axes must be axes of {x} of shape {x.shape} other than the "
                    f"batch, got {self.axes}"
                )
        kept = [1 if axis in self.axes else size for axis, size in enumerate(x.shape)]
        if not self.keep:
            kept = [size for axis, size in enumerate(x.shape) if axis not in self.axes]
        return tuple(kept)

    def count(self, site: Site) -> int:
        """How many elements make one of the output."""
        sizes = [site.inputs[0].shape[axis] for axis in self.axes]
        return math.prod(size for size in sizes if size is not None)

    def total(self, value: Array) -> Array:
        """Their sum, int32."""
        return jnp.sum(value, self.axes, dtype=jnp.int32, keepdims=self.keep)


@dataclasses.dataclass(frozen=True)
class Mean(_Reduction):
    """The mean, requantized to the output's scale.

    Under `gemmlowp` and `q31`, as TFLite has it, the division by the n elements joins the integer
    multiplier q * 2**(shift - 31) of S_x / S_y: with k = min(floor(log2 n), 32, 31 + shift) it
    becomes ((q << k) // n) * 2**(shift - k - 31).
    """

    kind: ClassVar[str] = "mean"

    def infer(self, site: Site) -> Shape:
        """The reduced shape."""
        require_dtype(site.inputs[0], "int8", "uint8", "int16")
        require_dtype(site.output, site.inputs[0].dtype)
        shape = self.reduced(site)
        require_int32(str(site.output), self._bounds(site))
        return shape

    def compute(self, site: Site, *values: Array) -> Array:
        """The sum of the codes less their zero points, scaled down."""
        (tensor,), n = site.inputs, self.count(site)
        total = self.total(values[0]) - n * tensor.units.zero
        scales = tensor.units.step, site.output.units.step
        if site.policy not in TFLITE:
            scale = multiplier(site.policy, scales[0], 1.0, scales[1], per_tensor=False) / n
            if site.policy == "f32_even":
                scale = mean_scale(tensor, site.output, n)
            return rescale(site.policy, total, scale, self._bounds(site), site.output)
        q31, shift = (int(number) for number in quantize_multiplier(scales[0] / scales[1]))
        k = min(n.bit_length() - 1, 32, 31 + shift)
        scale_down = (
            multiply_by_quantized_multiplier
            if site.policy == "gemmlowp"
            else multiply_by_quantized_multiplier_single_rounding
        )
        return land(scale_down(total, np.int64((q31 << k) // n), np.int64(shift - k)), site.output)

    def _bounds(self, site: Site) -> tuple[int, int]:
        low, high = centred_bounds(site.inputs[0])
        return self.count(site) * min(low, 0), self.count(site) * max(high, 0)


@dataclasses.dataclass(frozen=True)
class Sum(_Reduction):
    """The sum of the integers, int32: a mean whose division waits in the scale."""

    kind: ClassVar[str] = "sum"

    def infer(self, site: Site) -> Shape:
        """The reduced shape."""
        require_dtype(site.output, "int32")
        shape = self.reduced(site)
        ends = [self.count(site) * end for end in site.inputs[0].range]
        bounds = require_int32(str(site.output), ends)
        low, high = site.output.range
        if not low <= bounds[0] <= bounds[1] <= high:
            raise ValueError(f"{site.output} must declare the range {bounds}, got {(low, high)}")
        return shape

    def compute(self, site: Site, *values: Array) -> Array:
        """The sums."""
        return self.total(values[0])


@dataclasses.dataclass(frozen=True)
class ArgMax(Operator):
    """The index of the largest integer along the last axis, int32; the first of equal ones."""

    kind: ClassVar[str] = "argmax"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, site: Site) -> Shape:
        """The shape without its last axis."""
        (x,) = site.inputs
        require_dtype(x, "int8", "uint8", "int16", "int32")
        require_dtype(site.output, "int32")
        if not x.shape or x.shape[-1] is None:
            raise ValueError(f"argmax: {x} needs an axis beside the batch, got shape {x.shape}")
        return x.shape[:-1]

    def compute(self, site: Site, *values: Array) -> Array:
        """Indices from 0."""
        del site
        return jnp.argmax(values[0], axis=-1).astype(jnp.int32)
