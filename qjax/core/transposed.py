"""Transposed convolutions, exact in int32 and in float: one convolution, its outputs interleaved.

    acc[n, a*sh + i - t, b*sw + j - l, o] += x[n, a, b, c] * kernel[i, j, c, o]

over all pixels (a, b) and taps (i, j). `windows.phases` turns it into a plain convolution with
sh*sw times the outputs, which takes that convolution's fast form: a 2x2 kernel with stride 2 is one
matrix product. It multiplies ceil(kh/sh) * sh * ceil(kw/sw) * sw times a pixel and channel, where a
convolution over the spread-out input takes kh * kw * sh * sw.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Integer

from qjax.core.floatconv import conv
from qjax.core.intconv import conv_acc
from qjax.core.windows import Pair, interleave, phase_padding, phases


def transposed_acc(
    x: Integer[Array, "n h w c"],
    kernel: Integer[Array, "kh kw c o"],
    strides: Pair,
    cut: Pair,
    size: Pair,
    pad_value: int = 0,
    platform: str | None = None,
) -> Int32[Array, "n oh ow o"]:
    """The accumulators of an integer transposed convolution.

    As for a convolution, every output sums over all kh * kw taps, and a tap that no pixel reaches
    reads `pad_value`: acc - pad_value * sum(kernel) is then the sum over x - pad_value everywhere.

    Args:
        x: int8 codes; int16 and int32 ones too.
        kernel: int8 codes.
        strides: (rows, columns) between the places that neighbouring pixels add to.
        cut: (t, l), rows and columns before the output begins.
        size: (rows, columns) of the output.
        pad_value: the code of real zero.
        platform: where it will run, as in `conv_acc`.

    >>> x, kernel = jnp.array([[[[1], [2]]]], jnp.int8), jnp.array([[[[3]], [[5]]]], jnp.int8)
    >>> transposed_acc(x, kernel, (1, 2), (0, 0), (1, 4))[0, 0, :, 0].tolist()
    [3, 5, 6, 10]
    >>> transposed_acc(x, kernel, (1, 2), (0, 0), (1, 4), pad_value=1)[0, 0, :, 0].tolist()
    [8, 8, 11, 13]
    """
    merged = phases(kernel, strides)
    edges = phase_padding(x.shape, merged.shape, strides, cut, size)
    y = conv_acc(x, merged, padding=edges, pad_value=pad_value, platform=platform)
    if pad_value:
        reached = jnp.sum(merged, (0, 1, 2), dtype=jnp.int32).reshape(-1, kernel.shape[-1])
        every = jnp.sum(kernel, (0, 1, 2), dtype=jnp.int32).reshape(1, -1)
        y = y + (pad_value * (every - reached)).reshape(1, 1, 1, -1)
    return interleave(y, strides, cut, size)


def transposed(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c o"],
    strides: Pair,
    cut: Pair,
    size: Pair,
) -> Float[Array, "n oh ow o"]:
    """A transposed convolution in float, with `floatconv.conv`'s precision and gradients.

    >>> x, kernel = jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1))
    >>> transposed(x, kernel, (2, 2), (0, 0), (5, 5))[0, 2, :, 0].tolist()
    [2.0, 2.0, 4.0, 2.0, 2.0]
    """
    merged = phases(kernel, strides)
    edges = phase_padding(x.shape, merged.shape, strides, cut, size)
    return interleave(conv(x, merged, padding=edges), strides, cut, size)


def ones_acc(
    x: Integer[Array, "n h w c"],
    window: Pair,
    strides: Pair,
    cut: Pair,
    size: Pair,
    pad_value: int = 0,
) -> Int32[Array, "n oh ow 1"]:
    """What a kernel of ones accumulates: the sums that a weight's zero point is multiplied by."""
    ones = jnp.ones((*window, x.shape[-1], 1), jnp.int8)
    return transposed_acc(x, ones, strides, cut, size, pad_value)
