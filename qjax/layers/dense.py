"""Fully connected layer, with and without batch normalization."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.floatconv import dense
from qjax.core.intconv import dense_acc
from qjax.core.requantize import Policy
from qjax.layers.convert import convert_linear
from qjax.layers.layer import Layer, Value
from qjax.layers.linear import Kernels
from qjax.layers.norm import BatchNorm
from qjax.layers.slots import AnyError, FloatSlot, Slot


class Dense(Layer):
    """`y = x W + b`.

    Args:
        in_features, out_features: sizes of the last axis before and after.
        use_bias: add b.
        rngs: source of the initial kernel (LeCun normal).
    """

    kind: ClassVar[str] = "dense"
    slots: ClassVar[tuple[str, ...]] = ("weight", "input", "output", "error")

    weight: FloatSlot | Slot
    input: FloatSlot | Slot
    output: FloatSlot | Slot
    error: AnyError

    def __init__(
        self, in_features: int, out_features: int, use_bias: bool = True, *, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(
            nnx.initializers.lecun_normal()(rngs.params(), (in_features, out_features))
        )
        self.bias = nnx.Param(jnp.zeros((out_features,))) if use_bias else None
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n o"]:
        """Multiply and add, each tensor through its slot."""
        y = self.error(self.weight.linear(dense, self.input(x), self.kernel[...]))
        if self.bias is not None:
            y = (y + self.bias[...].reshape(1, -1)).astype(y.dtype)
        return self.output(y)

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """in_features per output."""
        return int(self.kernel.shape[0] * np.prod(output_shape[1:]))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Integer matrix product; the bias joins the offset."""
        features = self.kernel.shape[-1]
        bias = np.zeros(features) if self.bias is None else np.asarray(self.bias[...], np.float64)
        return _convert(self, inputs, policy, self.kernel[...], (np.ones(features), bias))


class DenseBN(Layer):
    """Dense layer without bias, then batch normalization; one module, as `ConvBN`.

    Weight quantizers that rescale the weights (DoReFa) need the normalization behind them.

    Args:
        in_features, out_features: sizes of the last axis before and after.
        rngs: source of the initial kernel (He normal, fan-in).
    """

    kind: ClassVar[str] = "dense"
    slots: ClassVar[tuple[str, ...]] = ("weight", "input", "output", "error")

    weight: FloatSlot | Slot
    input: FloatSlot | Slot
    output: FloatSlot | Slot
    error: AnyError

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        shape = (in_features, out_features)
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), shape))
        self.norm = BatchNorm(out_features)
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n o"]:
        """Multiply and normalize, each tensor through its slot."""
        kernel = self.kernel[...]
        return self.output(self.norm(self.weight, self.error, dense, self.input(x), kernel))

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """in_features per output."""
        return int(self.kernel.shape[0] * np.prod(output_shape[1:]))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Integer matrix product with BN folded into scale and offset."""
        kernel = self.norm.folded(self.kernel[...])
        return _convert(self, inputs, policy, kernel, self.norm.after())


def _convert(
    layer: Dense | DenseBN,
    inputs: tuple[Value, ...],
    policy: Policy,
    kernel: Array,
    after: tuple[np.ndarray, np.ndarray],
) -> nnx.Module:
    return convert_linear(layer, inputs, policy, kernel, after, lambda shape: _KERNELS)


def _product(x: Array, kernel: Array, pad_value: int) -> Array:
    del pad_value
    return dense_acc(x, kernel)


def _window(x: Array, pad_value: int) -> Array:
    del pad_value
    return jnp.sum(x, axis=-1, keepdims=True, dtype=jnp.int32)


_KERNELS = Kernels(_product, _window)
