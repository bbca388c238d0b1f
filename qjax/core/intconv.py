"""Exact integer accumulators of convolutions and dense layers: int8 codes in, int32 sums out.

    acc[n, a, b, o] = sum_{i, j, c} x[n, a*sh + i*dh - t, b*sw + j*dw - l, c] * kernel[i, j, c, o]

with the stored code of real zero (`pad_value`) outside the image. Sums are exact modulo 2**32, so
exact wherever the true sum fits an int32, whatever the order of the additions. No program here
holds a floating dtype. `intforms.choose` picks the fastest form by shape.

Inputs wider than a byte (int16, int32) are cut into bytes, x = sum_k 256**k * b_k, each shifted to
a signed byte; 2 or 4 int8 accumulators then recombine, exact modulo 2**32.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int32, Integer

from qjax.core import windows
from qjax.core.exactness import require_exact_products
from qjax.core.intforms import FORMS, LANE, Geometry, add, choose
from qjax.core.windows import Padding, Pair


def conv_acc(
    x: Integer[Array, "n h w c"],
    kernel: Integer[Array, "kh kw k o"],
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    groups: int = 1,
    dilation: Pair = (1, 1),
    pad_value: int = 0,
    platform: str | None = None,
) -> Int32[Array, "n oh ow o"]:
    """The accumulators of an integer convolution.

    Args:
        x: int8 codes; int16 and int32 ones too, at 2 and 4 times the cost.
        kernel: int8 codes over k = c / groups input channels.
        strides, dilation: (rows, columns), 1 or more.
        padding: ((top, bottom), (left, right)), see `windows.explicit`.
        groups: channels are cut into this many groups that do not mix.
        pad_value: what stands outside the image, the code of real zero; in the range of x's dtype.
        platform: "cpu", "gpu", "tpu": where it will run; the default backend where None.

    Raises:
        TypeError: a dtype that has no exact form here.
        ValueError: channels that do not fit the groups, or a pad value outside the range.
        RuntimeError: on a GPU whose inexact kernels are on, see `exactness`.

    >>> x, kernel = jnp.full((1, 2, 2, 1), -128, jnp.int8), jnp.full((2, 2, 1, 1), -128, jnp.int8)
    >>> conv_acc(x, kernel, padding=((1, 0), (0, 0)), pad_value=3)[0, :, 0, 0].tolist()
    [32000, 65536]
    """
    _check(x, kernel, groups, pad_value)
    require_exact_products(platform or jax.default_backend())
    geometry = Geometry(strides, padding, groups, dilation, pad_value, platform)
    form = choose(x.shape, kernel.shape, geometry)
    # Without the barrier XLA fuses the producer, a requantization, into the gathering or padding
    # below and evaluates it once per tap, more than twice the time for a chain of thin layers.
    x = lax.optimization_barrier(x)
    if x.dtype == jnp.int8 or form == "shifted":
        return FORMS[form](x, kernel, geometry)
    inner = geometry._replace(padding=((0, 0), (0, 0)), pad_value=0)
    parts = [
        conv_acc(part, kernel, **inner._asdict())
        for part in _signed_bytes(windows.pad(x, padding, pad_value))
    ]
    return _join_bytes(parts, jnp.sum(kernel, (0, 1, 2), dtype=jnp.int32))


def dense_acc(x: Integer[Array, "n c"], weight: Integer[Array, "c o"]) -> Int32[Array, "n o"]:
    """The accumulators of an integer dense layer: x @ weight.

    A single row is padded to four: from 512 inputs on, XLA's matrix-vector product takes 2 to 4
    times as long as the product of four rows.

    Args:
        x: int8 codes; int16 and int32 ones too, at 2 and 4 times the cost.
        weight: int8 codes.

    Raises:
        TypeError: a dtype that has no exact form here.
        RuntimeError: on a GPU whose inexact kernels are on, see `exactness`.

    >>> dense_acc(jnp.array([[1, -128]], jnp.int8), jnp.array([[3], [-128]], jnp.int8)).tolist()
    [[16387]]
    """
    _check_dtypes(x, weight)
    require_exact_products(jax.default_backend())
    if x.dtype != jnp.int8:
        parts = [dense_acc(part, weight) for part in _signed_bytes(x)]
        return _join_bytes(parts, jnp.sum(weight, 0, dtype=jnp.int32))
    rows = x.shape[0]
    if rows == 1:
        x = jnp.pad(x, ((0, LANE - 1), (0, 0)))
    return lax.dot(x, weight, preferred_element_type=jnp.int32)[:rows]


def window_sum(
    x: Integer[Array, "n h w c"],
    window: Pair,
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    pad_value: int = 0,
    groups: int = 1,
    dilation: Pair = (1, 1),
) -> Int32[Array, "n oh ow {groups}"]:
    """Sum of the inputs under each window and group: what a kernel of ones accumulates.

    A kernel with zero point z accumulates sum x*(k - z) = conv_acc(x, k) - z * window_sum(x); with
    groups = c it is the sum of an average pool. Arguments as in `conv_acc`.

    >>> window_sum(jnp.arange(4, dtype=jnp.int8).reshape(1, 2, 2, 1), (2, 2)).item()
    6
    """
    c = x.shape[-1]
    _check_groups(c, groups)
    x = lax.optimization_barrier(windows.pad(x, padding, pad_value))
    x = x.reshape(*x.shape[:3], groups, c // groups)
    x = lax.optimization_barrier(jnp.sum(x, -1, dtype=jnp.int32))
    # Rows, then columns: kh + kw additions where one pass over the window takes kh * kw.
    x = add(windows.taps(x, (window[0], 1), (strides[0], 1), (dilation[0], 1)))
    return add(windows.taps(x, (1, window[1]), (1, strides[1]), (1, dilation[1])))


def _signed_bytes(x: Array) -> list[Array]:
    """x = 256**(k-1) * last + sum_{i<k-1} 256**i * (part_i + 128), every part an int8."""
    low = range(0, x.dtype.itemsize * 8 - 8, 8)
    return [((x >> s & 255) - 128).astype(jnp.int8) for s in low] + [
        (x >> low.stop).astype(jnp.int8)
    ]


def _join_bytes(parts: list[Array], kernel_sum: Int32[Array, " o"]) -> Array:
    """Undoes `_signed_bytes` on accumulators; exact modulo 2**32."""
    offset = 128 * sum(256**i for i in range(len(parts) - 1))
    total = add([part << 8 * i for i, part in enumerate(parts)])
    return total + (kernel_sum * jnp.int32(offset)).reshape((1,) * (total.ndim - 1) + (-1,))


def _check(x: Array, kernel: Array, groups: int, pad_value: int) -> None:
    _check_dtypes(x, kernel)
    _check_groups(x.shape[-1], groups)
    if kernel.shape[2] * groups != x.shape[-1] or kernel.shape[3] % groups:
        raise ValueError(
            f"a kernel of shape {kernel.shape} (kh, kw, in / groups, out) does not fit an input of "
            f"{x.shape[-1]} channels in {groups} groups: in / groups must be "
            f"{x.shape[-1] // groups} and out a multiple of {groups}"
        )
    info = jnp.iinfo(x.dtype)
    if not info.min <= pad_value <= info.max:
        raise ValueError(
            f"pad_value must be a code of the input's {x.dtype} ({info.min} to {info.max}), "
            f"got {pad_value}"
        )


def _check_groups(channels: int, groups: int) -> None:
    if groups < 1 or channels % groups:
        raise ValueError(f"groups must divide the {channels} input channels, got {groups}")


def _check_dtypes(x: Array, kernel: Array) -> None:
    if x.dtype not in (jnp.int8, jnp.int16, jnp.int32) or kernel.dtype != jnp.int8:
        raise TypeError(
            f"integer accumulators take int8 (also int16, int32) inputs and int8 weights, got "
            f"{x.dtype} and {kernel.dtype}; subtract 128 from unsigned codes and their zero point"
        )
