"""Fully connected layer."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.codes import Codes
from qjax.core.floatconv import dense
from qjax.core.intconv import dense_acc
from qjax.core.requantize import Policy
from qjax.layers.conv import require_plain
from qjax.layers.layer import FloatBoundary, Layer, Value, landing
from qjax.layers.linear import IntegerLinear, Kernels
from qjax.layers.slots import FloatSlot, Slot


class Dense(Layer):
    """`y = x W + b`.

    Args:
        in_features, out_features: sizes of the last axis before and after.
        use_bias: add b.
        rngs: source of the initial kernel (LeCun normal).
    """

    kind: ClassVar[str] = "dense"
    slots: ClassVar[tuple[str, ...]] = ("weight", "input", "output")

    weight: FloatSlot | Slot
    input: FloatSlot | Slot
    output: FloatSlot | Slot

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
        y = self.weight.linear(dense, self.input(x), self.kernel[...])
        y = y if self.bias is None else y + self.bias[...].reshape(1, -1)
        return self.output(y)

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """in_features per output."""
        return int(self.kernel.shape[0] * np.prod(output_shape[1:]))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Integer matrix product; the bias joins the offset."""
        (x,) = inputs
        if not isinstance(self.weight, Slot):
            return FloatBoundary(self)
        entry = landing(self.input, x, policy)
        if entry is None and not isinstance(x, Codes):
            return FloatBoundary(self)
        fed = jax.eval_shape(entry, x) if entry is not None else x
        require_plain(fed)
        features = self.kernel.shape[-1]
        bias = np.zeros(features) if self.bias is None else np.asarray(self.bias[...], np.float64)
        weight = self.weight.encode(self.kernel[...])
        twin = IntegerLinear(weight, fed, _KERNELS, (np.ones(features), bias), entry)
        twin.exit = landing(self.output, fed, policy)  # pyright: ignore[reportAttributeAccessIssue]
        return twin


def _product(x: Array, kernel: Array, pad_value: int) -> Array:
    del pad_value
    return dense_acc(x, kernel)


def _window(x: Array, pad_value: int) -> Array:
    del pad_value
    return jnp.sum(x, axis=-1, keepdims=True, dtype=jnp.int32)


_KERNELS = Kernels(_product, _window)
