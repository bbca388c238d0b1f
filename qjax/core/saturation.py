"""Integer products as CPUs without VNNI compute them: pairs added in int16, with saturation.

VPMADDUBSW multiplies unsigned bytes u with signed bytes w, adds neighbours, and keeps 16 bits:

    acc = sum_j clip(u[2j] w[2j] + u[2j+1] w[2j+1], -2**15, 2**15 - 1).

Two products of full range reach 2 * 255 * 128, twice what fits; with weights inside [-64, 64] none
is lost, and the sum is exact. Runtimes multiply an unsigned activation and a signed weight so
(onnxruntime, oneDNN, FBGEMM), over the windows in the order kernel row, kernel column, channel.
Codes here are int8: u = x + 128, and 128 times the sum of the weights is taken off again, so that
these accumulators stand where `intconv`'s do. Depthwise kernels widen their products, and are
exact.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int8, Int32

from qjax.core import windows
from qjax.core.intconv import conv_acc
from qjax.core.windows import Padding, Pair

INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1
# Pairs that one pass adds up, so that the accumulator is read and written as many times less.
_PAIRS_A_PASS = 16


def saturating_dense_acc(x: Int8[Array, "n c"], weight: Int8[Array, "c o"]) -> Int32[Array, "n o"]:
    """The accumulators of a dense layer, `intconv.dense_acc` but for saturated pairs.

    >>> x, weight = jnp.full((1, 2), 127, jnp.int8), jnp.full((2, 1), 127, jnp.int8)
    >>> int(saturating_dense_acc(x, weight)[0, 0])  # 2 * 255 * 127 = 64770 becomes 32767
    255
    """
    sums = _pairs(x, weight)
    return sums - 128 * jnp.sum(weight, 0, dtype=jnp.int32, keepdims=True)


def saturating_conv_acc(
    x: Int8[Array, "n h w c"],
    kernel: Int8[Array, "kh kw k o"],
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    groups: int = 1,
    dilation: Pair = (1, 1),
    pad_value: int = 0,
) -> Int32[Array, "n oh ow o"]:
    """The accumulators of a convolution, `intconv.conv_acc` but for saturated pairs.

    Arguments as there. Pairs do not reach from one group into another.
    """
    kh, kw, ci, o = kernel.shape
    if ci == 1 < groups:
        return conv_acc(x, kernel, strides, padding, groups, dilation, pad_value)
    seen = windows.taps(windows.pad(x, padding, pad_value), (kh, kw), strides, dilation)
    gathered = jnp.stack(seen, -2)
    *places, taps, c = gathered.shape
    parts = jnp.split(gathered.reshape(-1, taps, c), groups, -1)
    kernels = jnp.split(kernel.reshape(-1, ci, o), groups, -1)
    sums = [
        saturating_dense_acc(part.reshape(-1, taps * ci), weight.reshape(taps * ci, -1))
        for part, weight in zip(parts, kernels, strict=True)
    ]
    return jnp.concatenate(sums, -1).reshape(*places, o)


def _pairs(x: Int8[Array, "n c"], weight: Int8[Array, "c o"]) -> Int32[Array, "n o"]:
    """The sum of saturated pairs of (x + 128) * weight."""
    n, o = x.shape[0], weight.shape[1]
    block = 2 * _PAIRS_A_PASS
    spare = -x.shape[1] % block
    # Zero weights: what they are multiplied by does not count.
    wide = jnp.pad(x.astype(jnp.int32) + 128, ((0, 0), (0, spare)))
    columns = wide.T.reshape(-1, block, n)
    rows = jnp.pad(weight.astype(jnp.int32), ((0, spare), (0, 0))).reshape(-1, block, o)

    def add(place: Array, total: Array) -> Array:
        u, w = columns[place], rows[place]
        for j in range(0, block, 2):
            pair = u[j, :, None] * w[j, None] + u[j + 1, :, None] * w[j + 1, None]
            total = total + jnp.clip(pair, INT16_MIN, INT16_MAX)
        return total

    return lax.fori_loop(0, len(rows), add, jnp.zeros((n, o), jnp.int32))
