"""Float convolution and dense products for training: XLA's values and gradients, made fast on CPU.

    y[n, a, b, o] = sum_{i, j, c} x[n, a*sh + i*dh - t, b*sw + j*dw - l, c] * kernel[i, j, c, o]

The gradients are the two transposes of this linear map. Four things differ from a plain
`lax.conv_general_dilated`, none of them a value beyond the order of a sum:

- The backward pass begins with `optimization_barrier((x, g))`, which keeps the producers of both
  (a fake quantizer, a normalisation) from being fused into the layout change that the weight
  gradient needs, where they would be evaluated again and again.
- Depthwise convolutions on a CPU are sums of shifted products, forward and in both gradients:
  together 9 to 24 times faster than XLA's at 32 to 256 channels.
- Other groups on a CPU become a few dense convolutions (`windows.merge_groups`): XLA's gradients
  of a grouped convolution take 8 (2 groups) to 270 (32 groups) times as long there.
- The forward pass of a thin convolution (fewer than 8 channels in, at most 16 out) folds
  neighbouring columns into channels on a CPU (`windows.fold`), 1.3 to 6 times faster.

Precision is pinned to the highest: an accelerator's TF32 would move codes across rounding
boundaries. On a CPU that costs nothing. There is no forward-mode derivative.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from qjax.core import windows
from qjax.core.windows import Padding, Pair, explicit, same_padding

__all__ = ["conv", "dense", "explicit", "same_padding"]

_PRECISION = lax.Precision.HIGHEST
# Fewer channels than these leave most of a vector register idle; more gain nothing from folding.
_THIN_INPUTS, _THIN_OUTPUTS = 8, 16
# Groups are merged until they have this many channels: below, a part is slow; above, mostly zeros.
_MERGED_CHANNELS = 16
# Rows added up at a time in the depthwise weight gradient.
_STRIP = 8


class _Geometry(NamedTuple):
    strides: Pair
    padding: Padding
    groups: int
    dilation: Pair
    platform: str


def conv(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw k o"],
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    groups: int = 1,
    dilation: Pair = (1, 1),
    platform: str | None = None,
) -> Float[Array, "n oh ow o"]:
    """A convolution, channels last, at full float precision.

    Args:
        x, kernel: one float dtype; k = c / groups. Sums are taken in float32 or wider.
        strides, dilation: (rows, columns), 1 or more.
        padding: ((top, bottom), (left, right)), see `explicit`.
        groups: channels are cut into this many groups that do not mix; c is depthwise.
        platform: "cpu", "gpu", "tpu": where it will run; the default backend where None.

    Raises:
        ValueError: channels that do not fit the groups or the kernel.

    >>> x, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> conv(x, kernel, padding=((1, 1), (1, 1)))[0, 0, :, 0].tolist()
    [4.0, 6.0, 6.0, 4.0]
    >>> jax.grad(lambda k: conv(x, k).sum())(kernel)[0, 0].tolist()
    [[4.0]]
    """
    if kernel.shape[2] * groups != x.shape[-1] or kernel.shape[3] % groups:
        raise ValueError(
            f"a kernel of shape {kernel.shape} (kh, kw, in / groups, out) does not fit an input of "
            f"{x.shape[-1]} channels in {groups} groups"
        )
    platform = platform or jax.default_backend()
    geometry = _Geometry(strides, padding, groups, dilation, platform)
    if groups == 1 or platform != "cpu" or _is_shifted(x, geometry):
        return _conv(x, kernel, geometry)
    kernels = windows.merge_groups(kernel, groups, _MERGED_CHANNELS)
    parts = zip(jnp.split(x, len(kernels), -1), kernels, strict=True)
    return jnp.concatenate([_conv(*part, geometry._replace(groups=1)) for part in parts], -1)


def dense(x: Float[Array, "*n c"], weight: Float[Array, "c o"]) -> Float[Array, "*n o"]:
    """x @ weight at full float precision."""
    return jnp.matmul(x, weight, precision=_PRECISION)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Array, kernel: Array, geometry: _Geometry) -> Array:
    _, kw, ci, o = kernel.shape
    if _is_shifted(x, geometry):
        repeated = _repeated(windows.pad(x, geometry.padding), kernel)
        return _shifted(repeated, kernel, geometry.strides, geometry.dilation).astype(x.dtype)
    thin = geometry.groups == 1 and ci < _THIN_INPUTS and o <= _THIN_OUTPUTS
    plain = geometry.strides[1] == geometry.dilation[1] == 1
    if geometry.platform == "cpu" and thin and plain and kw > 1:
        return _folded(x, kernel, geometry)
    return _library(x, kernel, geometry)


def _forward(x: Array, kernel: Array, geometry: _Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, geometry), (x, kernel)


def _backward(
    geometry: _Geometry, saved: tuple[Array, Array], g: Float[Array, "n oh ow o"]
) -> tuple[Array, Array]:
    x, kernel = saved
    x, g = lax.optimization_barrier((x, g))
    if _is_shifted(x, geometry):
        return _input_gradient(x, kernel, g, geometry), _kernel_gradient(x, kernel, g, geometry)
    (dx,) = jax.linear_transpose(lambda x: _library(x, kernel, geometry), x)(g)
    (dk,) = jax.linear_transpose(lambda kernel: _library(x, kernel, geometry), kernel)(g)
    return dx, dk


_conv.defvjp(_forward, _backward)


def _library(x: Array, kernel: Array, geometry: _Geometry) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
        precision=_PRECISION,
    )


def _folded(x: Array, kernel: Array, geometry: _Geometry) -> Array:
    ci, o = kernel.shape[2:]
    columns = 4 if ci * o <= _THIN_INPUTS else 2
    rows, pads = geometry.padding
    width = windows.output_size(x.shape[2], kernel.shape[1], 1, pads)
    x, kernel = windows.fold(lax.optimization_barrier(x), kernel, columns, 1, pads)
    y = _library(x, kernel, geometry._replace(padding=(rows, (0, 0))))
    return windows.unfold(y, columns, width)


def _is_shifted(x: Array, geometry: _Geometry) -> bool:
    return geometry.platform == "cpu" and 1 < geometry.groups == x.shape[-1]


def _repeated(x: Array, kernel: Array) -> Array:
    """Each input channel as often as the kernel has outputs for it, behind a barrier."""
    multiplier = kernel.shape[-1] // x.shape[-1]
    return lax.optimization_barrier(jnp.repeat(x, multiplier, -1) if multiplier > 1 else x)


def _shifted(x: Array, kernel: Array, strides: Pair, dilation: Pair) -> Array:
    """A depthwise convolution of a padded input as one multiply-add per tap, not yet rounded."""
    kh, kw, _, o = kernel.shape
    wide = _sum_dtype(x)
    weights = kernel.astype(wide).reshape(kh * kw, 1, 1, 1, o)
    seen = windows.taps(x, (kh, kw), strides, dilation)
    products = [tap.astype(wide) * weight for tap, weight in zip(seen, weights, strict=True)]
    return _add(products)


def _input_gradient(x: Array, kernel: Array, g: Array, geometry: _Geometry) -> Array:
    """The depthwise transpose: the flipped kernel over the strided-apart, padded cotangent."""
    edges = [(0, 0, 0)]
    for axis, (low, _) in enumerate(geometry.padding):
        stride, reach = geometry.strides[axis], (kernel.shape[axis] - 1) * geometry.dilation[axis]
        spread = (g.shape[axis + 1] - 1) * stride + 1
        # Negative where the padding is larger than the kernel: lax.pad then cuts.
        edges.append((reach - low, x.shape[axis + 1] + low - spread, stride - 1))
    spread_out = lax.pad(g, jnp.zeros((), g.dtype), [*edges, (0, 0, 0)])
    dx = _shifted(
        lax.optimization_barrier(spread_out), kernel[::-1, ::-1], (1, 1), geometry.dilation
    )
    return dx.reshape(*x.shape, -1).sum(-1).astype(x.dtype)


def _kernel_gradient(x: Array, kernel: Array, g: Array, geometry: _Geometry) -> Array:
    """The depthwise weight gradient: per tap, the sum of input times cotangent.

    XLA's reduction of a product over the leading axes walks the memory once per channel, so the
    rows are first added up `_STRIP` at a time, elementwise, then the partial sums once more.
    """
    rows, columns = geometry.padding
    strip = min(_STRIP, g.shape[1])
    missing = -g.shape[1] % strip
    rows = (rows[0], rows[1] + missing * geometry.strides[0])
    x = _repeated(windows.pad(x, (rows, columns)), kernel).astype(_sum_dtype(x))
    g = windows.pad(g, ((0, missing), (0, 0))).astype(x.dtype)
    x, g = lax.optimization_barrier((x, g))
    kh, kw, _, o = kernel.shape
    seen = windows.taps(x, (kh, kw), geometry.strides, geometry.dilation)
    partial = [
        _add([tap[:, r::strip] * g[:, r::strip] for r in range(strip)]).reshape(-1, o)
        for tap in seen
    ]
    if partial[0].shape[0] % _STRIP == 0:
        partial = [_add(jnp.split(p, _STRIP)) for p in lax.optimization_barrier(partial)]
    sums = [p.sum(0) for p in lax.optimization_barrier(partial)]
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


def _sum_dtype(x: Array) -> DTypeLike:
    return jnp.promote_types(x.dtype, jnp.float32)


def _add(terms: list[Array]) -> Array:
    return functools.reduce(operator.add, terms)
