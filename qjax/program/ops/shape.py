"""Operators that only move codes: reshape, pad, slice, join."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from qjax.core.tables import round_half_away
from qjax.program.base import (
    MAX_SIDE,
    Operator,
    Site,
    require_dtype,
    require_same_units,
    require_whole,
)
from qjax.program.onnx.rules import BYTES, requantize_table
from qjax.program.tensor import DTYPES, MAX_RANK, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class Reshape(Operator):
    """The same codes in the output's shape, the last axis varying fastest."""

    kind: ClassVar[str] = "reshape"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, site: Site) -> Shape:
        """The output's own shape, where it holds as many elements."""
        (x,), output = site.inputs, site.output
        require_dtype(output, x.dtype)
        batches = [tensor.shape[:1] == (None,) for tensor in (x, output)]
        if x.elements != output.elements or batches[0] != batches[1]:
            raise ValueError(f"{x} of shape {x.shape} does not reshape to {output.shape}")
        return output.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """The reshaped codes."""
        (x,) = values
        return x.reshape([x.shape[0] if size is None else size for size in site.output.shape])


@dataclasses.dataclass(frozen=True)
class Pad(Operator):
    """Codes around the tensor.

    Attributes:
        widths: (before, after) for every axis, the batch's (0, 0).
        value: the code to put there; None for that of real zero.
    """

    kind: ClassVar[str] = "pad"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    widths: tuple[tuple[int, int], ...] = ()
    value: int | None = None

    def __post_init__(self) -> None:
        require_whole("pad", "widths", self.widths, 0, MAX_SIDE)
        if not isinstance(self.widths, tuple) or any(
            not isinstance(pair, tuple) or len(pair) != 2 for pair in self.widths
        ):
            raise ValueError(f"pad.widths must be (before, after) per axis, got {self.widths!r}")
        if self.value is not None:
            require_whole("pad", "value", self.value, -(2**31), 2**31 - 1)

    def infer(self, site: Site) -> Shape:
        """Each size with what is put around it."""
        (x,) = site.inputs
        require_dtype(site.output, x.dtype)
        if len(self.widths) != len(x.shape):
            raise ValueError(
                f"pad.widths must have a pair for each axis of {x} of shape {x.shape}, got "
                f"{self.widths}"
            )
        sizes = []
        for size, widths in zip(x.shape, self.widths, strict=True):
            if size is None and any(widths):
                raise ValueError(f"pad.widths must leave the batch alone, got {self.widths}")
            sizes.append(None if size is None else size + sum(widths))
        low, high = site.output.range
        if not low <= self.code(x) <= high:
            raise ValueError(f"{site.output} of range {low} to {high} cannot hold {self.code(x)}")
        return tuple(sizes)

    def code(self, x: Tensor) -> int:
        """What stands around."""
        return x.units.zero if self.value is None else self.value

    def compute(self, site: Site, *values: Array) -> Array:
        """The padded codes."""
        (x,) = values
        edges = [(*widths, 0) for widths in self.widths]
        return lax.pad(x, jnp.asarray(self.code(site.inputs[0]), x.dtype), edges)


@dataclasses.dataclass(frozen=True)
class Slice(Operator):
    """Every stride-th code from `start` on, `size` of them, along each axis but the batch.

    Attributes:
        start, stride: one for every axis; 0 and 1 for the batch.
    """

    kind: ClassVar[str] = "slice"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    start: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_whole("slice", "start", self.start, 0, 2**31 - 1)
        require_whole("slice", "stride", self.stride, 1, MAX_SIDE)

    def infer(self, site: Site) -> Shape:
        """The output's own shape, where all of it lies inside the input."""
        (x,), output = site.inputs, site.output
        require_dtype(output, x.dtype)
        if not len(self.start) == len(self.stride) == len(x.shape) == len(output.shape):
            raise ValueError(
                f"slice.start and .stride must have a number for each axis of {x} of shape "
                f"{x.shape}, got {self.start} and {self.stride}"
            )
        rows = zip(x.shape, output.shape, self.start, self.stride, strict=True)
        for size, taken, start, stride in rows:
            if size is None or taken is None:
                fits = size is None and taken is None and (start, stride) == (0, 1)
            else:
                fits = start + (taken - 1) * stride < size
            if not fits:
                raise ValueError(
                    f"slice from {self.start} by {self.stride} of {x} of shape {x.shape} does not "
                    f"give {output.shape}"
                )
        return output.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """The codes taken."""
        (x,) = values
        rows = zip(site.output.shape, self.start, self.stride, strict=True)
        ends = [
            x.shape[0] if size is None else start + (size - 1) * stride + 1
            for size, start, stride in rows
        ]
        return lax.slice(x, self.start, ends, self.stride)


@dataclasses.dataclass(frozen=True)
class Concat(Operator):
    """Tensors side by side along one axis.

    int8 and int16 tensors must be on the output's grid already, or the output has a scale for each
    channel along the axis and every channel keeps its own. A uint8 one on another grid passes
    through a table of its 256 codes, which TFLite's kernel computes in float32 as
    round(q * s + (-Z * s)) + Z_y with s = S_x * (1 / S_y), ties away from zero. Bytes under
    `f32_even` come onto the output's grid as in onnxruntime's QLinearConcat. int32 sums on
    different scales stand side by side under a scale for each channel.

    Attributes:
        axis: which one, from 0; not the batch.
    """

    kind: ClassVar[str] = "concat"
    arity: ClassVar[tuple[int, int]] = (1, 1024)

    axis: int = 1

    def __post_init__(self) -> None:
        require_whole("concat", "axis", self.axis, 0, MAX_RANK - 1)

    def infer(self, site: Site) -> Shape:
        """The shape of the first input with the sizes along the axis added up."""
        first = site.inputs[0].shape
        if self.axis >= len(first):
            raise ValueError(f"concat.axis must be below {len(first)}, got {self.axis}")
        total = 0
        for tensor in site.inputs:
            require_dtype(tensor, site.output.dtype)
            size = tensor.shape[self.axis] if len(tensor.shape) == len(first) else None
            others = tensor.shape[: self.axis] + tensor.shape[self.axis + 1 :]
            if size is None or others != first[: self.axis] + first[self.axis + 1 :]:
                raise ValueError(
                    f"concat: {tensor} of shape {tensor.shape} does not stand beside {first} along "
                    f"axis {self.axis}"
                )
            if tensor.dtype in ("int8", "int16") and not self._regrids(site, tensor):
                self._check_units(tensor, site.output, total)
            total += size
        return (*first[: self.axis], total, *first[self.axis + 1 :])

    def _regrids(self, site: Site, tensor: Tensor) -> bool:
        """Whether codes come onto another grid by onnxruntime's rule."""
        units, whole = tensor.quantization, site.output.quantization
        if site.policy != "f32_even" or tensor.dtype not in BYTES or not (units and whole):
            return False
        return units != whole and units.axis is None and whole.axis is None

    def _check_units(self, tensor: Tensor, output: Tensor, start: int) -> None:
        """Raise unless codes may pass unchanged to where they stand in the output."""
        axis = output.quantization.axis if output.quantization else None
        if axis is None or axis != self.axis or tensor.units.axis not in (None, axis):
            return require_same_units(tensor, output)
        size, every = tensor.shape[axis], output.shape[axis]
        assert size is not None and every is not None
        for field in ("scale", "zero_point"):
            own, whole = (getattr(t.units, field).value for t in (tensor, output))
            part = np.broadcast_to(whole, (every,))[start : start + size]
            if not np.array_equal(np.broadcast_to(own, (size,)), part):
                raise ValueError(
                    f"{tensor} must have the {field} of its channels of {output}, got {own} for "
                    f"{part}"
                )

    def compute(self, site: Site, *values: Array) -> Array:
        """The codes side by side, clamped to the output's range."""
        parts = []
        for value, tensor in zip(values, site.inputs, strict=True):
            if self._regrids(site, tensor):
                table = jnp.asarray(requantize_table(tensor, site.output))
                value = table[value.astype(jnp.uint8).astype(jnp.int32)]
            elif tensor.dtype == "uint8" and tensor.quantization != site.output.quantization:
                table = jnp.asarray(rescaling_table(tensor, site.output))
                value = table[value.astype(jnp.int32)]
            parts.append(value)
        joined = jnp.concatenate(parts, self.axis)
        if site.output.dtype == "int32":
            return joined
        return jnp.clip(joined, *site.output.range)


def rescaling_table(x: Tensor, output: Tensor) -> np.ndarray:
    """What each of 256 codes of `x` becomes on the output's grid; see `Concat`."""
    one = np.float32(1)
    scale = np.float32(x.units.step) * (one / np.float32(output.units.step))
    bias = np.float32(-x.units.zero) * scale
    codes = round_half_away(np.arange(256).astype(np.float32) * scale + bias) + output.units.zero
    return np.clip(codes, 0, 255).astype(DTYPES["uint8"])
