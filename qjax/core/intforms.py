"""The forms in which XLA can be asked for an integer convolution, and the choice among them.

Every form computes the same int32 sums modulo 2**32 from int8 inputs ("shifted" from any integer
dtype), but XLA reaches its fast integer kernel only for some shapes. `choose` picks one:

| form | computes | taken for |
|---|---|---|
| shifted | a multiply-add in int32 per kernel position | depthwise, any channel multiplier |
| grouped | groups merged to 32 channels or more, each part in its own form | other groups |
| dot | s8 dot over the channels | 1x1 kernels |
| patches | s8 dot over gathered windows (im2col) | few output positions; accelerators |
| native | s8 convolution | more than 16 channels in or out |
| folded | s8 convolution, neighbouring columns folded into channels | fewer channels |

Milliseconds at batch 64 and 1 (`python experiments/bench/intconv.py`: medians, 2 shared cores with
AVX512-VNNI, jaxlib 0.12.0.1; compare within a row; `xla` is the convolution as XLA has it, in
int32 and in float32; the chosen form is starred):

| layer | patches | native | folded | other | xla | float32 |
|---|---|---|---|---|---|---|
| 3x3, 3 to 16, 32x32 | 4.0, 0.06 | 26, 0.33 | 4.1*, 0.10* | | 20, 0.27 | 6.1, 0.20 |
| 3x3, 16 to 16, 32x32 | 5.1, 0.21 | 50, 0.82 | 3.0*, 0.13* | | 50, 0.78 | 6.4, 0.35 |
| 3x3, 32 to 32, 16x16 | 3.2, 0.05* | 1.9*, 0.06 | 1.8, 0.07 | | 1.8, 0.07 | 4.1, 0.32 |
| 3x3, 64 to 64, 8x8 | 1.8, 0.05* | 1.2*, 0.07 | 1.2, 0.06 | | 1.2, 0.06 | 3.6, 0.17 |
| 5x5, 6 to 16, 14x14 | 1.2, 0.08 | 14, 0.24 | 0.8*, 0.04* | | 10, 0.18 | 2.4, 0.07 |
| 1x1, 16 to 32, stride 2 | .27, .03 | .26, .03 | .38, .04 | dot .26*, .02* | .30, .03 | 1.0, .08 |
| depthwise, 32, 32x32 | | | | shifted 1.6*, 0.04* | 312, 3.4 | 69, 1.0 |
| depthwise, 256, 8x8 | | | | shifted 1.1*, 0.06* | 146, 3.0 | 36, 0.7 |
| 32 groups of 4, 28x28 | | | | grouped 24*, 0.73* | 74, 2.1 | 94, 4.0 |

Accelerators take `patches`, `dot` and `shifted` only: cuDNN's integer convolution has no int32
result, and its grouped form is wrong (xla issue 49123). There the s8 dot is exact without XLA's
Triton kernels only (`exactness.py`).
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int8, Int32, Integer

from qjax.core import windows
from qjax.core.windows import Padding, Pair

# XLA's CPU library takes an s8 convolution when its inputs or outputs have more channels than this,
NATIVE_ABOVE = 16
# and is fast when the inputs fill whole lanes of 4 bytes.
LANE = 4
# Up to this many output positions, gathering the windows costs less than starting a convolution.
_FEW_POSITIONS = 256
# Groups are merged until they have this many channels: below, a part is slow; above, mostly zeros.
_MERGED_CHANNELS = 32


class Geometry(NamedTuple):
    """What a form needs beside its arrays; the fields are `intconv.conv_acc`'s arguments."""

    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    groups: int = 1
    dilation: Pair = (1, 1)
    pad_value: int = 0
    platform: str | None = None


def choose(x_shape: Sequence[int], kernel_shape: Sequence[int], geometry: Geometry) -> str:
    """The form `conv_acc` takes: a row of the table above. The one place that decides.

    Args:
        x_shape: (n, h, w, c).
        kernel_shape: (kh, kw, c / groups, o).
        geometry: strides, padding, groups, dilation and platform count.

    >>> same = Geometry(padding=((1, 1), (1, 1)), platform="cpu")
    >>> choose((64, 32, 32, 16), (3, 3, 16, 16), same)
    'folded'
    >>> choose((64, 16, 16, 32), (3, 3, 32, 32), same)
    'native'
    >>> choose((64, 16, 16, 32), (3, 3, 1, 32), same._replace(groups=32))
    'shifted'
    """
    strides, padding, groups, dilation, _, platform = geometry
    *kernel, ci, o = kernel_shape
    if groups > 1:
        return "shifted" if ci == 1 else "grouped"
    if kernel == [1, 1]:
        return "dot"
    if (platform or jax.default_backend()) != "cpu":
        return "patches"
    if not (ci > NATIVE_ABOVE or (o > NATIVE_ABOVE and ci % LANE == 0)):
        return "folded" if dilation[1] == 1 else "patches"
    axes = zip(x_shape[1:3], kernel, strides, padding, dilation, strict=True)
    rows, columns = (windows.output_size(*axis) for axis in axes)
    return "patches" if x_shape[0] * rows * columns <= _FEW_POSITIONS else "native"


def add(terms: list[Int32[Array, "..."]]) -> Int32[Array, "..."]:
    """The sum of arrays of one shape as a chain of additions, which XLA computes in one pass."""
    return functools.reduce(operator.add, terms)


def _shifted(
    x: Integer[Array, "n h w c"], kernel: Int8[Array, "kh kw 1 o"], geometry: Geometry
) -> Int32[Array, "n oh ow o"]:
    """Depthwise: one multiply-add per tap, in int32."""
    kh, kw, _, o = kernel.shape
    x = jnp.repeat(x, o // x.shape[-1], -1) if o > x.shape[-1] else x
    x = lax.optimization_barrier(windows.pad(x, geometry.padding, geometry.pad_value))
    seen = windows.taps(x, (kh, kw), geometry.strides, geometry.dilation)
    weights = kernel.astype(jnp.int32).reshape(kh * kw, 1, 1, 1, o)
    return add([tap.astype(jnp.int32) * weight for tap, weight in zip(seen, weights, strict=True)])


def _grouped(
    x: Int8[Array, "n h w c"], kernel: Int8[Array, "kh kw k o"], geometry: Geometry
) -> Int32[Array, "n oh ow o"]:
    """Merges neighbouring groups into block-diagonal kernels wide enough to be fast."""
    kernels = windows.merge_groups(kernel, geometry.groups, _MERGED_CHANNELS)
    inner = geometry._replace(groups=1)
    sums = []
    for part, dense in zip(jnp.split(x, len(kernels), -1), kernels, strict=True):
        sums.append(FORMS[choose(part.shape, dense.shape, inner)](part, dense, inner))
    return jnp.concatenate(sums, -1)


def _dot(
    x: Int8[Array, "n h w c"], kernel: Int8[Array, "1 1 c o"], geometry: Geometry
) -> Int32[Array, "n oh ow o"]:
    """1x1 kernels: the strided input times a matrix."""
    x = windows.pad(x, geometry.padding, geometry.pad_value)
    (x,) = windows.taps(x, (1, 1), geometry.strides)
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())), None, jnp.int32)


def _patches(
    x: Int8[Array, "n h w c"], kernel: Int8[Array, "kh kw c o"], geometry: Geometry
) -> Int32[Array, "n oh ow o"]:
    """Gathers every window into a row, then one product with the kernel as a matrix."""
    kh, kw, ci, o = kernel.shape
    x = windows.pad(x, geometry.padding, geometry.pad_value)
    seen = windows.taps(x, (kh, kw), geometry.strides, geometry.dilation)
    rows = lax.optimization_barrier(jnp.concatenate(seen, -1).reshape(-1, kh * kw * ci))
    sums = lax.dot(rows, kernel.reshape(-1, o), preferred_element_type=jnp.int32)
    return sums.reshape(*seen[0].shape[:3], o)


def _native(
    x: Int8[Array, "n h w c"], kernel: Int8[Array, "kh kw c o"], geometry: Geometry
) -> Int32[Array, "n oh ow o"]:
    """XLA's own s8 convolution, input channels padded to whole lanes."""
    spare = -kernel.shape[2] % LANE
    if spare:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, spare)))
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, spare), (0, 0)))
    padding = geometry.padding
    if geometry.pad_value:
        x, padding = windows.pad(x, padding, geometry.pad_value), ((0, 0), (0, 0))
    return _library(x, kernel, geometry.strides, padding, geometry.dilation)


def _folded(
    x: Int8[Array, "n h w c"], kernel: Int8[Array, "kh kw c o"], geometry: Geometry
) -> Int32[Array, "n oh ow o"]:
    """XLA's s8 convolution over blocks of columns, so that few channels become enough."""
    ci, o = kernel.shape[2:]
    (row_stride, stride), (rows, pads) = geometry.strides, geometry.padding
    columns = 1
    while columns * stride * ci % LANE or columns * max(stride * ci, o) <= NATIVE_ABOVE:
        columns *= 2
    width = windows.output_size(x.shape[2], kernel.shape[1], stride, pads)
    if geometry.pad_value:
        x, rows = windows.pad(x, (rows, (0, 0)), geometry.pad_value), (0, 0)
    x, kernel = windows.fold(x, kernel, columns, stride, pads, geometry.pad_value)
    y = _library(x, kernel, (row_stride, 1), (rows, (0, 0)), (geometry.dilation[0], 1))
    return windows.unfold(y, columns, width)


def _library(x: Array, kernel: Array, strides: Pair, padding: Padding, dilation: Pair) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.int32,
    )


Form = Callable[[Integer[Array, "..."], Int8[Array, "..."], Geometry], Int32[Array, "..."]]
FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "shifted": _shifted,
        "grouped": _grouped,
        "dot": _dot,
        "patches": _patches,
        "native": _native,
        "folded": _folded,
    }
)
