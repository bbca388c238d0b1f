"""Batch normalization as a part of a convolution: how it meets the weight quantizer.

Ioffe & Szegedy, arXiv 1502.03167. The strategies share one interface: `__call__` runs the
convolution with the weight slot and, directly on its output, the error slot; `folded` gives the
kernel that is encoded, `after` the affine map that remains behind the integer convolution.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.layers.slots import AnyError, AnySlot

Operation = Callable[[Array, Array], Array]


class BatchNorm(nnx.Module):
    """Separate batch normalization: the float weight is quantized, then BN follows in float (the
    papers' default).

    y = (conv - mean) gamma / sqrt(var + eps) + beta, with batch statistics in training and running
    ones otherwise.

    Args:
        features: channels c, the last axis.
        momentum: weight of the past in the running statistics, in [0, 1).
        epsilon: added to the variance.
    """

    def __init__(self, features: int, momentum: float = 0.9, epsilon: float = 1e-5):
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.mean = nnx.BatchStat(jnp.zeros((features,)))
        self.var = nnx.BatchStat(jnp.ones((features,)))
        self.momentum = momentum
        self.epsilon = epsilon
        self.use_running_average = False

    def __call__(
        self, weight: AnySlot, error: AnyError, op: Operation, x: Array, kernel: Array
    ) -> Array:
        """Convolve with the slot's weight, then normalize."""
        return self.normalize(error(weight.linear(op, x, kernel)))

    def normalize(self, y: Float[Array, "*shape c"]) -> Float[Array, "*shape c"]:
        """Normalize over all axes but the last."""
        axes = tuple(range(y.ndim - 1))
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            wide = y.astype(jnp.float32)
            mean = jnp.mean(wide, axes)
            var = jnp.maximum(jnp.mean(jnp.square(wide), axes) - jnp.square(mean), 0)
            self._observe(mean, var)
        factor = self.scale[...] / jnp.sqrt(var + self.epsilon)
        shape = (1,) * len(axes) + (-1,)
        return (y * factor.reshape(shape) + (self.bias[...] - mean * factor).reshape(shape)).astype(
            y.dtype
        )

    def _observe(self, mean: Array, var: Array) -> None:
        rate = 1 - self.momentum
        self.mean[...] = self.mean[...] + rate * (mean - self.mean[...])
        self.var[...] = self.var[...] + rate * (var - self.var[...])

    def folded(self, kernel: Array) -> Array:
        """The kernel that is quantized: unchanged, since BN stays separate."""
        return kernel

    def after(self) -> tuple[np.ndarray, np.ndarray]:
        """(factor, offset), each (c,) in float64: the convolution's real output times factor plus
        offset.
        """
        scale, bias, mean, var = (
            np.asarray(v[...], np.float64) for v in (self.scale, self.bias, self.mean, self.var)
        )
        factor = scale / np.sqrt(var + self.epsilon)
        return factor, bias - mean * factor
