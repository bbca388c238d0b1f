"""Batch normalization whose factor is a power of two, so that integers only shift.

Courbariaux, Hubara et al., "Binarized neural networks", arXiv 1602.02830, section 1.4, replace the
multiplications of batch normalization by shifts with AP2(x) = sign(x) 2^round(log2 |x|). Here the
factor of the whole normalization is rounded, once. With f = gamma / sqrt(var + eps) of the running
variance and P the power of two beside it,

    evaluation   y = (conv - mean) P + beta
    training     y = (conv - mean_B) gamma / sqrt(var_B + eps) r + beta,   r = P / f held constant

P is kept while f lies within 2^(3/4) of it, on either side, and is AP2(f) anew beyond. The rounding
alone would halve and double a channel near its switch again and again, as the variance trembles,
and a test between two steps would meet another network than training. A target whose requantization
is a shift (`target=shift`) puts this in the place of `BatchNorm`.
"""

from __future__ import annotations

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

INERTIA = 2.0**0.75
"""How far a factor may move from its power before another is taken; sqrt(2) would be none."""


class ShiftNorm(nnx.Module):
    """Separate batch normalization by a power of two in each channel.

    Args:
        norm: the separate normalization to take over.

    Differences from the paper: the variance is computed exactly, gamma / sigma is rounded as one
    number with the inertia above, and the rounding's gradient goes straight through.
    """

    folds: ClassVar[bool] = False

    def __init__(self, norm: BatchNorm):
        self.scale = nnx.Param(norm.scale[...])
        self.bias = nnx.Param(norm.bias[...])
        self.mean = nnx.BatchStat(norm.mean[...])
        self.var = nnx.BatchStat(norm.var[...])
        self.momentum = norm.momentum
        self.epsilon = norm.epsilon
        self.power = nnx.BatchStat(nearest_power(jnp.abs(self._running())))
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
            self.power[...] = kept_power(self.power[...], jax.lax.stop_gradient(self._running()))
        running = jax.lax.stop_gradient(self._running())
        power = jnp.sign(running) * self.power[...]
        ratio = jnp.where(running == 0, 1, power / running)
        factor = self.scale[...] / jnp.sqrt(var + self.epsilon) * ratio
        # In evaluation the product is the power but for its last bit.
        factor = straight_through(factor, power) if held else factor
        return (y * widened(factor, y) + widened(self.bias[...] - mean * factor, y)).astype(y.dtype)

    def folded(self, kernel: Array) -> Array:
        """The kernel that is quantized: unchanged, since the factor follows behind."""
        return kernel

    def after(self) -> tuple[np.ndarray, np.ndarray]:
        """(factor, offset), each (c,) in float64; the factors are powers of two, either sign."""
        power, scale, bias, mean = (
            np.asarray(value[...], np.float64)
            for value in (self.power, self.scale, self.bias, self.mean)
        )
        factor = np.sign(scale) * power
        return factor, bias - mean * factor

    def _running(self) -> Float[Array, " c"]:
        return self.scale[...] / jnp.sqrt(self.var[...] + self.epsilon)


def kept_power(power: Float[Array, " c"], factor: Float[Array, " c"]) -> Float[Array, " c"]:
    """`power` where |factor| lies within 2^(3/4) of it, the nearest one elsewhere.

    Example:
        >>> kept_power(jnp.array([1.0, 1.0, 1.0]), jnp.array([0.6, 0.59, -1.7])).tolist()
        [1.0, 0.5, 2.0]
    """
    size = jnp.abs(factor)
    near = (size >= power * INERTIA**-1) & (size <= power * INERTIA)
    return jnp.where(near, power, nearest_power(size))
