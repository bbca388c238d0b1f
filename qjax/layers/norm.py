"""Batch normalization as a part of a convolution: how it meets the weight quantizer.

Ioffe & Szegedy, arXiv 1502.03167. Three strategies:

| class | what is quantized | statistics in training |
|---|---|---|
| `BatchNorm` | the weight W; BN follows in float | of the batch |
| `FoldedFrozen` | gamma W / sigma | the running ones, held with gamma and beta |
| `FoldedCorrected` | gamma W / sigma | of the batch, the quantizer not feeling their jitter |

A model is built with the first; `qjax.surgery.fold_batch_norm` puts another in its place, or
`qjax.layers.shift_norm.ShiftNorm`, a separate one for targets that only shift. They
share one interface: `__call__` runs the convolution with the weight slot and, directly on its
output, the error slot; `folded` gives the kernel that is quantized, `after` the affine map that
remains behind the integer convolution; `folds` says whether the kernel that is quantized is
another. Where a layer is held in evaluation mode
(`use_running_average`), training uses the running statistics and keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
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

    folds: ClassVar[bool] = False

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
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = moments(y)
            observe(self, mean, var)
        factor = self.scale[...] / jnp.sqrt(var + self.epsilon)
        return (y * widened(factor, y) + widened(self.bias[...] - mean * factor, y)).astype(y.dtype)

    def folded(self, kernel: Array) -> Array:
        """The kernel that is quantized: unchanged, since BN stays separate."""
        return kernel

    def after(self) -> tuple[np.ndarray, np.ndarray]:
        """(factor, offset), each (c,) in float64: the convolution's real output times factor plus
        offset.
        """
        return _affine(self)


class FoldedFrozen(nnx.Module):
    """BN folded into the weight, all of it held: FQN (Li et al., CVPR 2019), Jacob et al.
    (arXiv 1712.05877, section 3.2) after the freeze.

    y = conv(x, Q(gamma W / sigma)) + beta - gamma mean / sigma, sigma = sqrt(var + eps).

    The optimizer moves W, whose gradient is that of the folded weight times gamma / sigma. For a
    network whose running statistics are trained: fine-tuning, small batches.

    Args:
        norm: the separate normalization to take over.
    """

    folds: ClassVar[bool] = True

    def __init__(self, norm: BatchNorm):
        for name in ("scale", "bias", "mean", "var"):
            setattr(self, name, nnx.BatchStat(getattr(norm, name)[...]))
        self.epsilon = norm.epsilon

    scale: nnx.BatchStat
    bias: nnx.BatchStat
    mean: nnx.BatchStat
    var: nnx.BatchStat

    def __call__(
        self, weight: AnySlot, error: AnyError, op: Operation, x: Array, kernel: Array
    ) -> Array:
        """Convolve with the slot's folded weight and add the folded bias."""
        y = error(weight.linear(op, x, self.folded(kernel)))
        return (y + widened(_folded_bias(self), y)).astype(y.dtype)

    def folded(self, kernel: Float[Array, "*k o"]) -> Float[Array, "*k o"]:
        """gamma W / sigma."""
        return _fold(kernel, self.scale[...], self.var[...], self.epsilon)

    def after(self) -> tuple[np.ndarray, np.ndarray]:
        """(1, folded bias), each (c,) in float64."""
        factor, offset = _affine(self)
        return np.ones_like(factor), offset


class FoldedCorrected(nnx.Module):
    """BN folded into the weight with the correction of batch statistics: Krishnamoorthi (arXiv
    1806.08342, section 3.2.2) and TensorFlow's graph rewriter.

    Let c = sigma_B / sigma with sigma_B of the batch and sigma of the running variance. The
    quantizer sees c gamma W / sigma_B = gamma W / sigma, which does not jitter with the batch:

        y = conv(x, Q(gamma W / sigma)) / c + beta - gamma mean_B / sigma_B

    The batch's statistics are those of conv(x, W) in float, a second convolution in training. With
    the identity for Q this is ordinary batch normalization, its gradient too. Held in evaluation
    mode (`Phase.freeze: [batch_statistics]`) it is `y = conv(x, Q(gamma W / sigma)) + beta - gamma
    mean / sigma`.

    Args:
        norm: the separate normalization to take over.
    """

    folds: ClassVar[bool] = True

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
        """Convolve with the slot's folded weight and correct for the batch."""
        y = error(weight.linear(op, x, self.folded(kernel)))
        if self.use_running_average:
            return (y + widened(_folded_bias(self), y)).astype(y.dtype)
        mean, var = moments(op(x, kernel.astype(x.dtype)))
        y = self.corrected(y, mean, var)
        observe(self, mean, var)
        return y

    def corrected(
        self, y: Float[Array, "*shape c"], mean: Float[Array, " c"], var: Float[Array, " c"]
    ) -> Float[Array, "*shape c"]:
        """y / c + beta - gamma mean / sigma_B for a batch of these statistics."""
        batch = jnp.sqrt(var + self.epsilon)
        ratio = jnp.sqrt(self.var[...] + self.epsilon) / batch
        bias = self.bias[...] - self.scale[...] * mean / batch
        return (y * widened(ratio, y) + widened(bias, y)).astype(y.dtype)

    def folded(self, kernel: Float[Array, "*k o"]) -> Float[Array, "*k o"]:
        """gamma W / sigma."""
        return _fold(kernel, self.scale[...], self.var[...], self.epsilon)

    def after(self) -> tuple[np.ndarray, np.ndarray]:
        """(1, folded bias), each (c,) in float64."""
        factor, offset = _affine(self)
        return np.ones_like(factor), offset


AnyNorm = BatchNorm | FoldedFrozen | FoldedCorrected


@partial(jax.jit, static_argnames="epsilon")
def _fold(
    kernel: Float[Array, "*k o"], scale: Float[Array, " o"], var: Float[Array, " o"], epsilon: float
) -> Float[Array, "*k o"]:
    # Compiled, and a barrier behind every rounding: training and conversion must quantize the same
    # numbers to the last bit.
    sigma = jax.lax.optimization_barrier(jnp.sqrt(var + epsilon))
    factor = jax.lax.optimization_barrier(scale / sigma)
    return jax.lax.optimization_barrier(kernel * widened(factor, kernel))


def widened(numbers: Float[Array, " c"], y: Array) -> Array:
    """Numbers of the channels with the leading axes that `y` has."""
    return numbers.reshape((1,) * (y.ndim - 1) + (-1,))


def moments(y: Float[Array, "*shape c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance over all axes but the last, in float32."""
    axes = tuple(range(y.ndim - 1))
    wide = y.astype(jnp.float32)
    mean = jnp.mean(wide, axes)
    return mean, jnp.maximum(jnp.mean(jnp.square(wide), axes) - jnp.square(mean), 0)


def observe(norm: Any, mean: Array, var: Array) -> None:
    """Move the running statistics of a normalization, in place, towards a batch's."""
    rate = 1 - norm.momentum
    norm.mean[...] = norm.mean[...] + rate * (mean - norm.mean[...])
    norm.var[...] = norm.var[...] + rate * (var - norm.var[...])


def _folded_bias(norm: FoldedFrozen | FoldedCorrected) -> Float[Array, " c"]:
    sigma = jnp.sqrt(norm.var[...] + norm.epsilon)
    return norm.bias[...] - norm.scale[...] * norm.mean[...] / sigma


def _affine(norm: AnyNorm) -> tuple[np.ndarray, np.ndarray]:
    """(gamma / sigma, beta - gamma mean / sigma), each (c,) in float64."""
    scale, bias, mean, var = (
        np.asarray(v[...], np.float64) for v in (norm.scale, norm.bias, norm.mean, norm.var)
    )
    factor = scale / np.sqrt(var + norm.epsilon)
    return factor, bias - mean * factor
