"""Convolutions, channels last: plain, dilated, grouped, depthwise, and transposed."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from qjax.core.intconv import window_sum
from qjax.core.transposed import ones_acc, transposed_acc
from qjax.core.windows import Padding, Pair, output_size
from qjax.program.base import (
    Operator,
    Site,
    require_padding,
    require_pair,
    require_rank,
    require_whole,
)
from qjax.program.ops import weights
from qjax.program.tensor import Shape


@dataclasses.dataclass(frozen=True)
class Conv2D(Operator):
    """y[n, a, b, o] = sum (x[n, a*sh + i*dh - t, b*sw + j*dw - l, c] - Z_x) (w[i, j, c, o] - Z_w).

    Inputs: x (n, h, w, c); weights (kh, kw, c / groups, o); and, if any, an int32 bias (o,) in
    units of S_x * S_w. Outside the image stands real zero. An int32 output is the sum itself; any
    other one is requantized.

    Attributes:
        strides, dilation: (rows, columns).
        padding: ((top, bottom), (left, right)).
        groups: channels are cut into this many groups that do not mix; c of them is depthwise,
            where output channel c * m + k is the k-th of input channel c.
    """

    kind: ClassVar[str] = "conv2d"
    arity: ClassVar[tuple[int, int]] = (2, 3)

    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        require_pair("conv2d", "strides", self.strides, 1)
        require_pair("conv2d", "dilation", self.dilation, 1)
        require_padding("conv2d", self.padding)
        require_whole("conv2d", "groups", self.groups, 1, 2**31 - 1)

    def infer(self, site: Site) -> Shape:
        """(n, oh, ow, o)."""
        x, weight = site.inputs[:2]
        require_rank(x, 4)
        require_rank(weight, 4)
        kh, kw, depth, channels = weight.constant.shape
        if depth * self.groups != x.shape[3] or channels % self.groups:
            raise ValueError(
                f"{weight} of shape {weight.shape} (kh, kw, c / groups, o) does not fit {x} of "
                f"shape {x.shape} in {self.groups} groups"
            )
        weights.check(site, channels)
        assert x.shape[1] is not None and x.shape[2] is not None
        axes = zip(x.shape[1:3], (kh, kw), self.strides, self.padding, self.dilation, strict=True)
        rows, columns = (output_size(*axis) for axis in axes)  # pyright: ignore[reportArgumentType]
        return (x.shape[0], rows, columns, channels)

    def compute(self, site: Site, *values: Array) -> Array:
        """Accumulate in int32, then requantize."""
        plan = weights.plan(site.inputs[1])
        x, zero = weights.signed(values[0], site.inputs[0])
        total = weights.products(site).conv(
            x,
            jnp.asarray(plan.kernel),
            strides=self.strides,
            padding=self.padding,
            groups=self.groups,
            dilation=self.dilation,
            pad_value=zero,
        )
        if plan.correction is not None:
            kh, kw, *_ = plan.kernel.shape
            sums = window_sum(
                x,
                (kh, kw),
                strides=self.strides,
                padding=self.padding,
                groups=self.groups,
                dilation=self.dilation,
                pad_value=zero,
            )
            sums = jnp.repeat(sums, plan.kernel.shape[3] // self.groups, axis=-1)
            total = plan.double * total - weights.lanes(plan.correction, 4) * sums
        return weights.finish(site, total, plan, site.inputs[1].dtype == "uint8")


@dataclasses.dataclass(frozen=True)
class TransposeConv2D(Operator):
    """Each pixel of x adds (x - Z_x) (w[i, j, c, o] - Z_w) at (a*sh + i - t, b*sw + j - l) of y.

    Inputs as `Conv2D`, without groups.

    Attributes:
        strides: (rows, columns) between the places that neighbouring pixels add to.
        padding: (t, l), rows and columns cut off before the output begins.
        size: (rows, columns) of the output.
    """

    kind: ClassVar[str] = "transpose_conv2d"
    arity: ClassVar[tuple[int, int]] = (2, 3)

    strides: Pair = (1, 1)
    padding: Pair = (0, 0)
    size: Pair = (1, 1)

    def __post_init__(self) -> None:
        require_pair("transpose_conv2d", "strides", self.strides, 1)
        require_pair("transpose_conv2d", "padding", self.padding, 0)
        require_pair("transpose_conv2d", "size", self.size, 1)

    def infer(self, site: Site) -> Shape:
        """(n, rows, columns, o)."""
        x, weight = site.inputs[:2]
        require_rank(x, 4)
        require_rank(weight, 4)
        kh, kw, depth, channels = weight.constant.shape
        if depth != x.shape[3]:
            raise ValueError(f"{weight} of shape {weight.shape} does not fit {x} of {x.shape}")
        if self.padding[0] >= kh or self.padding[1] >= kw:
            raise ValueError(
                f"transpose_conv2d.padding must be below the kernel {(kh, kw)}, got {self.padding}"
            )
        weights.check(site, channels)
        return (x.shape[0], *self.size, channels)

    def compute(self, site: Site, *values: Array) -> Array:
        """Accumulate in int32, then requantize."""
        plan = weights.plan(site.inputs[1])
        x, zero = weights.signed(values[0], site.inputs[0])
        ends = self.strides, self.padding, self.size
        total = transposed_acc(x, jnp.asarray(plan.kernel), *ends, zero)
        if plan.correction is not None:
            kh, kw, *_ = plan.kernel.shape
            sums = ones_acc(x, (kh, kw), *ends, zero)
            total = plan.double * total - weights.lanes(plan.correction, 4) * sums
        return weights.finish(site, total, plan, site.inputs[1].dtype == "uint8")
