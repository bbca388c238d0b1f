"""Sums that wait for their requantization, and the operators that both become.

What waits may be the sum of a convolution or a dense layer, of a pool or a mean, or such sums in a
maximum, a reshape or side by side; these three move behind the rounding, which is monotone and acts
on every element by itself, so that no code changes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np

from qjax.core.host import HostArray
from qjax.core.windows import Pair
from qjax.program import ops
from qjax.program.base import Operator, Site
from qjax.program.lowering import padding
from qjax.program.lowering.draft import Draft, Value, refuse
from qjax.program.lowering.elementwise import require, shares, times
from qjax.program.lowering.fuse import fuse
from qjax.program.lowering.landing import EXACT, Landing
from qjax.program.ops import weights
from qjax.program.tensor import Quantization, Tensor


class Lander:
    """Writes the operators behind sums.

    Args:
        draft: to write to.
        codes: what is known of the network's int8 tensors, by name.
        sums: the network's operators whose int32 sums wait, by name of the sum.
    """

    def __init__(self, draft: Draft, codes: dict[str, Value], sums: dict[str, tuple]) -> None:
        self.draft = draft
        self.container = draft.container
        self.codes = codes
        self.sums: dict[str, tuple[Operator, Site]] = sums
        self.changed: dict[str, int] = {}

    def land(self, source: str, landing: Landing) -> Value:
        """Write what brings a sum, or codes on another grid, to where they land.

        Raises:
            NotExpressible: naming the tensor.
        """
        if source in self.codes:
            return self.regrid(self.codes[source], landing.of(self.codes[source]))
        operator, site = self.sums[source]
        match operator:
            case ops.Conv2D() | ops.Dense() | ops.TransposeConv2D():
                return self._linear(operator, site, landing)
            case ops.MaxPool():
                inner = self._inner(operator, site, landing)
                return self.move(operator, inner, landing.codes)
            case ops.Reshape():
                return self._reshape(operator, site, landing)
            case ops.Concat():
                return self._concat(operator, site, landing)
            case ops.SumPool() | ops.Sum():
                return self._mean(operator, site, landing)
            case ops.Softmax() if operator.inputs[0] in self.codes:
                value = shares(self.draft, operator, source, self.codes[operator.inputs[0]])
                finer = landing.scale * value.grid.scale / site.output.units.step
                return self.regrid(value, dataclasses.replace(landing, scale=finer))
            case ops.Mul() if all(name in self.codes for name in operator.inputs):
                return self._product(operator, site, landing)
        raise refuse(source, f"a {operator.kind} of int32 sums", self.container)

    def move(self, operator: Operator, source: Value, codes: Tensor) -> Value:
        """Write an operator that moves codes as they are."""
        grid = source.grid
        units = source.tensor.quantization
        ends = self.container.range
        output = Tensor(codes.name, codes.shape, source.tensor.dtype, units, *ends)
        operator = dataclasses.replace(operator, inputs=(source.tensor.name,), output=output.name)
        if isinstance(operator, ops.MaxPool):
            operator = padding.maximum(self.draft, operator, source)
        self.draft.add(operator, output)
        # What is padded is real zero, which the codes need not reach.
        ends = min(grid.low, grid.zero), max(grid.high, grid.zero)
        return Value(output, source.zero, *ends)

    def _inner(self, operator: Operator, site: Site, landing: Landing) -> Value:
        """What `operator` moves, landed before it."""
        name = f"{landing.codes.name}.before_{operator.kind}"
        return self.land(operator.inputs[0], landing.named(name, site.inputs[0].shape))

    def _reshape(self, operator: ops.Reshape, site: Site, landing: Landing) -> Value:
        (x,) = site.inputs
        if x.shape == site.output.shape:
            return self.land(operator.inputs[0], landing)
        channels = x.shape[-1] or 1
        parts = []
        for values in (landing.scale, landing.rest):
            if values.ndim and values.size != channels:
                values = values.reshape(-1, channels)
                if (values != values[0]).any():
                    raise refuse(site.output.name, "scales by element", self.container)
                values = values[0]
            parts.append(values)
        inner = dataclasses.replace(landing, scale=parts[0], rest=parts[1])
        return self.move(operator, self._inner(operator, site, inner), landing.codes)

    def _concat(self, operator: ops.Concat, site: Site, landing: Landing) -> Value:
        values, start = [], 0
        for place, (name, tensor) in enumerate(zip(operator.inputs, site.inputs, strict=True)):
            stop = start + (tensor.shape[-1] or 0)
            named = landing.named(f"{landing.codes.name}.part{place}", tensor.shape)
            values.append(self.land(name, named.channels(slice(start, stop))))
            start = stop
        return self.join(operator, values, landing.codes)

    def join(self, operator: ops.Concat, values: list[Value], codes: Tensor) -> Value:
        """Write codes of one grid side by side."""
        first = values[0]
        output = self.draft.codes(codes.name, codes.shape, first.grid, *self.container.range)
        names = tuple(value.tensor.name for value in values)
        self.draft.add(ops.Concat(names, output.name, operator.axis), output)
        ends = min(v.low for v in values), max(v.high for v in values)
        return Value(output, first.zero, *ends)

    def _product(self, operator: ops.Mul, site: Site, landing: Landing) -> Value:
        values = [self.codes[name] for name in operator.inputs]
        wanted = values[0].grid.scale * values[1].grid.scale / landing.grid.scale
        numbers = np.asarray(landing.scale / wanted - 1), np.asarray(landing.rest)
        if any((np.abs(number) > EXACT).any() for number in numbers):
            raise refuse(site.output.name, "a product with an offset", self.container)
        make = times(self.draft, site, values)
        return self.draft.land(landing.codes, landing.grid, make, fuses=True)

    def regrid(self, source: Value, landing: Landing) -> Value:
        """Write codes on another grid; `landing` is of codes from their real zero."""
        if not landing.keeps_units(source):
            return self._each_channel(source, landing, (1, 1), (1, 1))
        x, y = source.grid, landing.grid
        name = source.tensor.name
        if (x.scale, x.zero) == (y.scale, y.zero):
            below = x.low < y.low
            tensor = source.tensor
            if below or x.high > y.high:
                tensor = self.draft.clamp(tensor, landing.codes.name, y, below)
            return Value(tensor, landing.codes.units.zero, max(x.low, y.low), min(x.high, y.high))
        lowest = (x.low - x.zero) * x.scale / y.scale + y.zero
        rectifies = self.container.fuses_relu and y.low == y.zero
        kind = ops.Clip if rectifies else ops.Requantize
        make = partial(kind, (name,))
        return self.draft.land(landing.codes, y, make, fuses=rectifies, lowest=lowest)

    def _mean(self, operator: ops.SumPool | ops.Sum, site: Site, landing: Landing) -> Value:
        """Sums of a window or of the whole image."""
        name = operator.inputs[0]
        if name not in self.codes:
            raise refuse(site.output.name, "an average of sums, not of codes", self.container)
        source = self.codes[name]
        shape = source.tensor.shape
        if isinstance(operator, ops.SumPool):
            count = operator.window[0] * operator.window[1]
            landing = landing.of(source, count)
            same = landing.keeps_units(source, count) and source.grid[:2] == landing.grid[:2]
            if same and self.container.fuses_relu:
                make = partial(
                    ops.AveragePool, (source.tensor.name,),
                    window=operator.window, strides=operator.strides,
                )  # fmt: skip
                return self.draft.land(
                    landing.codes, landing.grid, make, fuses=True, lowest=source.low
                )
            return self._each_channel(source, landing, operator.window, operator.strides)
        if operator.axes != (1, 2) or operator.keep or None in shape[1:]:
            raise refuse(site.output.name, f"a sum over axes {operator.axes}", self.container)
        count = operator.count(site)
        landing = landing.of(source, count)
        outer = landing.codes
        whole = landing.named(f"{outer.name}.image", (None, 1, 1, shape[3]))
        if landing.keeps_units(source, count):
            x, y = source.grid, landing.grid
            lowest = (x.low - x.zero) * x.scale / y.scale + y.zero
            keep = self.container.keeps_axes
            make = partial(ops.Mean, (source.tensor.name,), axes=(1, 2), keep=keep)
            codes = whole.codes if keep else outer
            value = self.draft.land(codes, y, make, fuses=False, lowest=lowest)
            if not keep:
                return value
        else:
            window = (shape[1], shape[2])
            value = self._each_channel(source, whole, window, (1, 1))  # pyright: ignore
        reshape = ops.Reshape((value.tensor.name,), outer.name)
        return self.move(reshape, value, outer)

    def _each_channel(self, source: Value, landing: Landing, window: Pair, strides: Pair) -> Value:
        """Channel by channel, each with its own scale and bias: a depthwise convolution of ones."""
        shape = source.tensor.shape
        if len(shape) != 4:
            problem = "scales or an offset by channel without an image"
            raise refuse(landing.codes.name, problem, self.container)
        channels = shape[3] or 0
        ones = np.ones((*window, 1, channels), np.int64)
        make = partial(ops.Conv2D, strides=strides, groups=channels)
        return self._weighted(ones, make, source, landing)

    def _linear(
        self,
        operator: ops.Conv2D | ops.Dense | ops.TransposeConv2D,
        site: Site,
        landing: Landing,
    ) -> Value:
        source = self.codes[operator.inputs[0]]
        plan = weights.plan(site.inputs[1])
        if plan.correction is not None:
            raise refuse(
                site.inputs[1].name, "8-bit weights with a zero point (choose symmetric ones)",
                self.container,
            )  # fmt: skip
        constant = site.output.units.zero_point.value
        if len(site.inputs) == 3:
            constant = constant + site.inputs[2].constant
        landing = dataclasses.replace(landing, rest=landing.rest + landing.scale * constant)
        if isinstance(operator, ops.Dense):
            make = partial(ops.Dense, scaling=self.container.dense_scaling)
        elif isinstance(operator, ops.TransposeConv2D):
            require(self.draft, site.output.name, operator.kind)
            make = partial(
                ops.TransposeConv2D,
                strides=operator.strides,
                padding=operator.padding,
                size=operator.size,
            )
        else:
            kernel = plan.kernel.shape[0], plan.kernel.shape[1]
            name = landing.codes.name
            given, made = padding.convolution(self.draft, operator, kernel, source, name)

            def make(inputs: tuple[str, ...], output: str) -> Operator:
                return dataclasses.replace(made, inputs=(given, *inputs[1:]), output=output)

        return self._weighted(plan.kernel.astype(np.int64), make, source, landing)

    def _weighted(
        self, effective: np.ndarray, make: Callable[..., Operator], source: Value, landing: Landing
    ) -> Value:
        """An operator with weights and a bias, whose sum is of (x - Z_x) e."""
        grids = source.grid, landing.grid
        made = fuse(effective, landing.scale, landing.rest, *grids, self.container.widest)
        name = landing.codes.name
        if made.changed:
            self.changed[name] = made.changed
        units = Quantization(
            HostArray(made.scale), HostArray(np.zeros_like(made.scale)), made.codes.ndim - 1
        )
        weight = self.draft.constant(f"{name}.weights", made.codes, units)
        bias = self.draft.constant(f"{name}.bias", made.bias)
        inputs = source.tensor.name, weight.name, bias.name
        return self.draft.land(landing.codes, landing.grid, partial(make, inputs), fuses=True)
