"""Batch normalization whose factor is a power of two, so that integers only shift.

Courbariaux, Hubara et al., "Binarized neural networks", arXiv 1602.02830, section 1.4, replace the
multiplications of batch normalization by shifts with AP2(x) = sign(x) 2^round(log2 |x|). Here the
factor of the whole normalization is rounded, once. With f = gamma / sqrt(var + eps) of the running
variance:

    evaluation   y = (conv - mean) AP2(f) + beta
    training     y = (conv - mean_B) gamma / sqrt(var_B + eps) r + beta,   r = AP2(f) / f constant

A factor of the batch's own variance would jump between two powers from step to step, and training
would see another network than evaluation. A target whose requantization is a shift (`target=shift`)
puts it in the place of `BatchNorm`.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.gradients import straight_through
from qjax.core.powers import nearest_power
from qjax.layers.norm import BatchNorm, Operation, moments, observe, widened
from qjax.layers.slots import AnyError, AnySlot


class ShiftNorm(nnx.Module):
    """Separate batch normalization by a power of two in each channel.

    Args:
        norm: the separate normalization to take over.

    Differences from the paper: the variance is computed exactly, gamma / sigma is rounded as one
    number, and the rounding's gradient goes straight through.
    """

    folds: ClassVar[bool] = False

    def __init__(self, norm: BatchNorm):
        self.scale = nnx.Param(norm.scale[...])
        self.bias = nnx.Param(norm.bias[...])
        self.mean = nnx.BatchStat(norm.mean[...])
        self.var = nnx.BatchStat(norm.var[...])
        self.momentum = norm.momentum
        self.epsilon = norm.epsilon
        self.use_running_average = False

    def __call__(
        self, weight: AnySlot, error: AnyError, op: Operation, x: Array, kernel: Array
    ) -> Array:
        """Convolve with the slot's weight, then normalize."""
        return self.normalize(error(weight.linear(op, x, kernel)))

    def normalize(self, y: Float[Array, "*shape c"]) -> Float[Array, "*shape c"]:
        """Normalize over all axes but the last."""
        held, mean, var = self.use_running_average, self.mean[...], self.var[...]
        if not held:
            mean, var = moments(y)
            observe(self, mean, var)
        power = self._power()
        running = self.scale[...] / jnp.sqrt(self.var[...] + self.epsilon)
        ratio = jax.lax.stop_gradient(jnp.where(running == 0, 1, power / running))
        factor = self.scale[...] / jnp.sqrt(var + self.epsilon) * ratio
        # In evaluation the product is the power but for its last bit.
        factor = straight_through(factor, power) if held else factor
        return (y * widened(factor, y) + widened(self.bias[...] - mean * factor, y)).astype(y.dtype)

    def folded(self, kernel: Array) -> Array:
        """The kernel that is quantized: unchanged, since the factor follows behind."""
        return kernel

    def after(self) -> tuple[np.ndarray, np.ndarray]:
        """(factor, offset), each (c,) in float64; the factors are powers of two, either sign."""
        factor, bias, mean = (
            np.asarray(value, np.float64)
            for value in (self._power(), self.bias[...], self.mean[...])
        )
        return factor, bias - mean * factor

    def _power(self) -> Float[Array, " c"]:
        still = (jax.lax.stop_gradient(v[...]) for v in (self.scale, self.var))
        return power_factor(*still, self.epsilon)


# Compiled, and a barrier behind every rounding: training and conversion must find the same power.
@partial(jax.jit, static_argnames="epsilon")
def power_factor(
    scale: Float[Array, " c"], var: Float[Array, " c"], epsilon: float
) -> Float[Array, " c"]:
    """AP2(scale / sqrt(var + epsilon)); zero stays zero.

    Example:
        >>> power_factor(jnp.array([1.0, -3.0, 0.0]), jnp.array([4.0, 1.0, 1.0]), 0.0).tolist()
        [0.5, -4.0, 0.0]
    """
    sigma = jax.lax.optimization_barrier(jnp.sqrt(var + epsilon))
    factor = jax.lax.optimization_barrier(scale / sigma)
    return jnp.sign(factor) * nearest_power(jnp.abs(factor))
