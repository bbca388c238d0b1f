"""Convolution, with and without batch normalization. NHWC activations, HWIO kernels."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.floatconv import conv, explicit
from qjax.core.intconv import conv_acc, window_sum
from qjax.core.requantize import Policy
from qjax.layers.convert import convert_linear
from qjax.layers.layer import Layer, Value
from qjax.layers.linear import Kernels
from qjax.layers.norm import BatchNorm
from qjax.layers.slots import AnyError, FloatSlot, Slot

Padding = str | int | tuple[tuple[int, int], tuple[int, int]]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class _Geometry(nnx.Module):
    """What a convolution is apart from its weights; hashable parts only."""

    def __init__(
        self, kernel_size: tuple[int, int], strides: tuple[int, int], padding: Padding, groups: int
    ):
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding
        self.groups = groups

    def pads(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Explicit ((top, bottom), (left, right)) for an input of this shape."""
        return explicit(self.padding, (shape[1], shape[2]), self.kernel_size, self.strides)

    def apply(self, x: Array, kernel: Array) -> Array:
        """The float convolution."""
        return conv(x, kernel, self.strides, self.pads(x.shape), self.groups)

    def kernels(self, shape: tuple[int, ...]) -> Kernels:
        """The integer operations for inputs of this shape."""
        pads = self.pads(shape)
        return Kernels(
            product=partial(_product, self.strides, pads, self.groups),
            window=partial(_window, self.kernel_size, self.strides, pads, self.groups),
        )


def _product(strides, pads, groups, x, kernel, pad_value):
    return conv_acc(x, kernel, strides, pads, groups, pad_value=pad_value)


def _window(kernel_size, strides, pads, groups, x, pad_value):
    return window_sum(x, kernel_size, strides, pads, pad_value, groups)


def _check(owner: str, **fields: int) -> None:
    for name, value in fields.items():
        if value < 1:
            raise ValueError(f"{owner}.{name} must be at least 1, got {value}")


class ConvBN(Layer):
    """Convolution without bias, then batch normalization; one module, so that both are replaced
    together.

    Args:
        in_features, out_features: channels.
        kernel_size: (kh, kw), or one number for both.
        strides: steps of the window.
        padding: "SAME" (as TensorFlow), "VALID", a number for every side, or ((top, bottom), (left,
            right)).
        groups: feature groups; `in_features` for a depthwise convolution.
        rngs: source of the initial kernel (He normal, fan-in).
    """

    kind: ClassVar[str] = "conv"
    slots: ClassVar[tuple[str, ...]] = ("weight", "input", "output", "error")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int] = 3,
        strides: int | tuple[int, int] = 1,
        padding: Padding = "SAME",
        groups: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        self.geometry = _geometry(in_features, out_features, kernel_size, strides, padding, groups)
        self.kernel = nnx.Param(_initial(rngs, self.geometry, in_features, out_features))
        self.norm = BatchNorm(out_features)
        self.bind_float_slots()

    weight: FloatSlot | Slot
    input: FloatSlot | Slot
    output: FloatSlot | Slot
    error: AnyError

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q o"]:
        """Convolve and normalize, each tensor through its slot."""
        operation, kernel = self.geometry.apply, self.kernel[...]
        return self.output(self.norm(self.weight, self.error, operation, self.input(x), kernel))

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """kh kw c/groups per output element."""
        return int(np.prod(self.kernel.shape[:-1]) * np.prod(output_shape[1:]))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Integer convolution with BN folded into scale and offset."""
        kernel, after = self.norm.folded(self.kernel[...]), self.norm.after()
        return convert_linear(self, inputs, policy, kernel, after, self.geometry.kernels)


class Conv(Layer):
    """Convolution with a bias and no normalization. Arguments as `ConvBN`, and `use_bias`."""

    kind: ClassVar[str] = "conv"
    slots: ClassVar[tuple[str, ...]] = ("weight", "input", "output", "error")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int] = 3,
        strides: int | tuple[int, int] = 1,
        padding: Padding = "SAME",
        groups: int = 1,
        use_bias: bool = True,
        *,
        rngs: nnx.Rngs,
    ):
        self.geometry = _geometry(in_features, out_features, kernel_size, strides, padding, groups)
        self.kernel = nnx.Param(_initial(rngs, self.geometry, in_features, out_features))
        self.bias = nnx.Param(jax.numpy.zeros((out_features,))) if use_bias else None
        self.bind_float_slots()

    weight: FloatSlot | Slot
    input: FloatSlot | Slot
    output: FloatSlot | Slot
    error: AnyError

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q o"]:
        """Convolve and add the bias."""
        y = self.weight.linear(self.geometry.apply, self.input(x), self.kernel[...])
        y = self.error(y)
        if self.bias is not None:
            y = (y + self.bias[...].reshape(1, 1, 1, -1)).astype(y.dtype)
        return self.output(y)

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """kh kw c/groups per output element."""
        return int(np.prod(self.kernel.shape[:-1]) * np.prod(output_shape[1:]))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Integer convolution; the bias joins the offset."""
        features = self.kernel.shape[-1]
        bias = np.zeros(features) if self.bias is None else np.asarray(self.bias[...], np.float64)
        after = (np.ones(features), bias)
        kernels = self.geometry.kernels
        return convert_linear(self, inputs, policy, self.kernel[...], after, kernels)


def _geometry(in_features, out_features, kernel_size, strides, padding, groups) -> _Geometry:
    _check("ConvBN", in_features=in_features, out_features=out_features, groups=groups)
    if in_features % groups or out_features % groups:
        raise ValueError(
            f"groups must divide {in_features} and {out_features} channels, got groups={groups}"
        )
    return _Geometry(_pair(kernel_size), _pair(strides), padding, groups)


def _initial(rngs: nnx.Rngs, geometry: _Geometry, in_features: int, out_features: int) -> Array:
    shape = (*geometry.kernel_size, in_features // geometry.groups, out_features)
    # The same numbers as in the kernel's own shape, whose draws XLA takes seconds to compile.
    rows = math.prod(shape[:-1]), out_features
    return nnx.initializers.he_normal()(rngs.params(), rows).reshape(shape)
