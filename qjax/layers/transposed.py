"""Transposed convolution, with and without batch normalization: the way up in a decoder."""

from __future__ import annotations

from functools import partial

import jax
from flax import nnx
from jaxtyping import Array

from qjax.core.transposed import ones_acc, transposed, transposed_acc
from qjax.core.windows import transposed_size
from qjax.layers.conv import (
    BiasedConvolution,
    NormalizedConvolution,
    Pair,
    Window,
    check_positive,
    initial_kernel,
    pair,
)
from qjax.layers.linear import Kernels
from qjax.layers.norm import BatchNorm


class _Upward(Window):
    """A transposed convolution's geometry."""

    def __init__(self, kernel_size: Pair, strides: Pair, padding: str):
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding

    def ends(self, shape: tuple[int, ...]) -> tuple[Pair, Pair]:
        """(cut, size) for an input of this shape, each (rows, columns)."""
        axes = zip(shape[1:3], self.kernel_size, self.strides, strict=True)
        rows, columns = (transposed_size(*axis, self.padding) for axis in axes)
        return (rows[0], columns[0]), (rows[1], columns[1])

    def apply(self, x: Array, kernel: Array) -> Array:
        """The float transposed convolution."""
        return transposed(x, kernel, self.strides, *self.ends(x.shape))

    def places(self, output_shape: tuple[int, ...]) -> int:
        """One for each input pixel."""
        count = 1
        for size, kernel, stride in zip(
            output_shape[1:3], self.kernel_size, self.strides, strict=True
        ):
            spare = max(kernel - stride, 0) if self.padding == "VALID" else 0
            count *= (size - spare) // stride
        return count

    def kernels(self, shape: tuple[int, ...]) -> Kernels:
        """The integer operations for inputs of this shape."""
        numbers = self.strides, *self.ends(shape)
        return Kernels(
            product=partial(product, *numbers),
            window=partial(_window, self.kernel_size, *numbers),
        )


def product(strides, cut, size, x, kernel, pad_value):
    """The accumulators; its first arguments are what a program's operator is made of."""
    return transposed_acc(x, kernel, strides, cut, size, pad_value)


def _window(kernel_size, strides, cut, size, x, pad_value):
    return ones_acc(x, kernel_size, strides, cut, size, pad_value)


class ConvTransposeBN(NormalizedConvolution):
    """Transposed convolution without bias, then batch normalization.

    Args:
        in_features, out_features: channels.
        kernel_size: (kh, kw), or one number for both.
        strides: distance of the places that neighbouring pixels add to.
        padding: "SAME" (size times stride) or "VALID" (all that some pixel reaches), as TensorFlow.
        rngs: source of the initial kernel (He normal, fan-in).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Pair = 2,
        strides: int | Pair = 2,
        padding: str = "SAME",
        *,
        rngs: nnx.Rngs,
    ):
        self.geometry = _upward(in_features, out_features, kernel_size, strides, padding)
        self.kernel = nnx.Param(initial_kernel(rngs, kernel_size, in_features, out_features))
        self.norm = BatchNorm(out_features)
        self.bind_float_slots()


class ConvTranspose(BiasedConvolution):
    """Transposed convolution with a bias. Arguments as `ConvTransposeBN`, and `use_bias`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Pair = 2,
        strides: int | Pair = 2,
        padding: str = "SAME",
        use_bias: bool = True,
        *,
        rngs: nnx.Rngs,
    ):
        self.geometry = _upward(in_features, out_features, kernel_size, strides, padding)
        self.kernel = nnx.Param(initial_kernel(rngs, kernel_size, in_features, out_features))
        self.bias = nnx.Param(jax.numpy.zeros((out_features,))) if use_bias else None
        self.bind_float_slots()


def _upward(in_features, out_features, kernel_size, strides, padding) -> _Upward:
    check_positive("ConvTranspose", in_features=in_features, out_features=out_features)
    check_positive("ConvTranspose", kernel_size=min(pair(kernel_size)), strides=min(pair(strides)))
    transposed_size(1, 1, 1, padding)
    return _Upward(pair(kernel_size), pair(strides), padding)
