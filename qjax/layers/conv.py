"""Convolution, with and without batch normalization. NHWC activations, HWIO kernels."""

from __future__ import annotations

import abc
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
from qjax.layers.norm import AnyNorm, BatchNorm
from qjax.layers.slots import AnyError, FloatSlot, Slot

Pair = tuple[int, int]
Padding = str | int | tuple[Pair, Pair]


def pair(value: int | Pair) -> Pair:
    """(rows, columns), from one number for both."""
    return (value, value) if isinstance(value, int) else value


class Window(abc.ABC, nnx.Module):
    """What a convolution is apart from its weights; hashable parts only."""

    @abc.abstractmethod
    def apply(self, x: Array, kernel: Array) -> Array:
        """The float convolution."""

    @abc.abstractmethod
    def kernels(self, shape: tuple[int, ...]) -> Kernels:
        """The integer operations for inputs of this shape."""

    @abc.abstractmethod
    def places(self, output_shape: tuple[int, ...]) -> int:
        """How many places the kernel is laid on, given the output's shape (n, p, q, o)."""


class _Geometry(Window):
    """A plain convolution's."""

    def __init__(
        self,
        kernel_size: Pair,
        strides: Pair,
        padding: Padding,
        groups: int,
        dilation: Pair,
    ):
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding
        self.groups = groups
        self.dilation = dilation

    def pads(self, shape: tuple[int, ...]) -> tuple[Pair, Pair]:
        """Explicit ((top, bottom), (left, right)) for an input of this shape."""
        image = shape[1], shape[2]
        return explicit(self.padding, image, self.kernel_size, self.strides, self.dilation)

    def apply(self, x: Array, kernel: Array) -> Array:
        """The float convolution."""
        return conv(x, kernel, self.strides, self.pads(x.shape), self.groups, self.dilation)

    def places(self, output_shape: tuple[int, ...]) -> int:
        """One for each output pixel."""
        return output_shape[1] * output_shape[2]

    def kernels(self, shape: tuple[int, ...]) -> Kernels:
        """The integer operations for inputs of this shape."""
        numbers = self.strides, self.pads(shape), self.groups, self.dilation
        return Kernels(
            product=partial(product, *numbers),
            window=partial(_window, self.kernel_size, *numbers),
        )


def product(strides, pads, groups, dilation, x, kernel, pad_value):
    """The accumulators; its first arguments are what a program's operator is made of."""
    return conv_acc(x, kernel, strides, pads, groups, dilation, pad_value)


def _window(kernel_size, strides, pads, groups, dilation, x, pad_value):
    return window_sum(x, kernel_size, strides, pads, pad_value, groups, dilation)


def check_positive(owner: str, **fields: int) -> None:
    """Raise unless each field is at least 1."""
    for name, value in fields.items():
        if value < 1:
            raise ValueError(f"{owner}.{name} must be at least 1, got {value}")


class NormalizedConvolution(Layer):
    """What convolutions with batch normalization share, plain and transposed."""

    kind: ClassVar[str] = "conv"
    slots: ClassVar[tuple[str, ...]] = ("weight", "input", "output", "error")

    geometry: Window
    kernel: nnx.Param
    norm: AnyNorm
    weight: FloatSlot | Slot
    input: FloatSlot | Slot
    output: FloatSlot | Slot
    error: AnyError

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q o"]:
        """Convolve and normalize, each tensor through its slot."""
        operation, kernel = self.geometry.apply, self.kernel[...]
        return self.output(self.norm(self.weight, self.error, operation, self.input(x), kernel))

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """The kernel's numbers at every place that it is laid on."""
        return self.kernel.size * self.geometry.places(output_shape)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Integer convolution with BN folded into scale and offset."""
        kernel, after = self.norm.folded(self.kernel[...]), self.norm.after()
        return convert_linear(self, inputs, policy, kernel, after, self.geometry.kernels)


class BiasedConvolution(Layer):
    """What convolutions without normalization share, plain and transposed."""

    kind: ClassVar[str] = "conv"
    slots: ClassVar[tuple[str, ...]] = ("weight", "input", "output", "error")

    geometry: Window
    kernel: nnx.Param
    bias: nnx.Param | None
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
        """The kernel's numbers at every place that it is laid on."""
        return self.kernel.size * self.geometry.places(output_shape)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Integer convolution; the bias joins the offset."""
        features = self.kernel.shape[-1]
        bias = np.zeros(features) if self.bias is None else np.asarray(self.bias[...], np.float64)
        after = (np.ones(features), bias)
        kernels = self.geometry.kernels
        return convert_linear(self, inputs, policy, self.kernel[...], after, kernels)


class ConvBN(NormalizedConvolution):
    """Convolution without bias, then batch normalization; one module, so that both are replaced
    together.

    Args:
        in_features, out_features: channels.
        kernel_size: (kh, kw), or one number for both.
        strides: steps of the window.
        padding: "SAME" (as TensorFlow), "VALID", a number for every side, or ((top, bottom), (left,
            right)).
        groups: feature groups; `in_features` for a depthwise convolution.
        dilation: distance of neighbouring taps.
        rngs: source of the initial kernel (He normal, fan-in).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Pair = 3,
        strides: int | Pair = 1,
        padding: Padding = "SAME",
        groups: int = 1,
        dilation: int | Pair = 1,
        *,
        rngs: nnx.Rngs,
    ):
        self.geometry = _geometry(
            in_features, out_features, kernel_size, strides, padding, groups, dilation
        )
        self.kernel = nnx.Param(
            initial_kernel(rngs, kernel_size, in_features // groups, out_features)
        )
        self.norm = BatchNorm(out_features)
        self.bind_float_slots()


class Conv(BiasedConvolution):
    """Convolution with a bias and no normalization. Arguments as `ConvBN`, and `use_bias`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Pair = 3,
        strides: int | Pair = 1,
        padding: Padding = "SAME",
        groups: int = 1,
        use_bias: bool = True,
        dilation: int | Pair = 1,
        *,
        rngs: nnx.Rngs,
    ):
        self.geometry = _geometry(
            in_features, out_features, kernel_size, strides, padding, groups, dilation
        )
        self.kernel = nnx.Param(
            initial_kernel(rngs, kernel_size, in_features // groups, out_features)
        )
        self.bias = nnx.Param(jax.numpy.zeros((out_features,))) if use_bias else None
        self.bind_float_slots()


def _geometry(
    in_features, out_features, kernel_size, strides, padding, groups, dilation
) -> _Geometry:
    check_positive("ConvBN", in_features=in_features, out_features=out_features, groups=groups)
    check_positive("ConvBN", strides=min(pair(strides)), dilation=min(pair(dilation)))
    if in_features % groups or out_features % groups:
        raise ValueError(
            f"groups must divide {in_features} and {out_features} channels, got groups={groups}"
        )
    return _Geometry(pair(kernel_size), pair(strides), padding, groups, pair(dilation))


def initial_kernel(
    rngs: nnx.Rngs, kernel_size: int | Pair, in_features: int, out_features: int
) -> Array:
    """He normal (fan-in) numbers, (kh, kw, c, o)."""
    shape = (*pair(kernel_size), in_features, out_features)
    # The same numbers as in the kernel's own shape, whose draws XLA takes seconds to compile.
    rows = math.prod(shape[:-1]), out_features
    return nnx.initializers.he_normal()(rngs.params(), rows).reshape(shape)
