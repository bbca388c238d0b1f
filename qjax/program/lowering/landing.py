"""Where a sum, or codes on another grid, come to lie: what the operators behind them compute.

code - zero = scale * sum + rest        output steps
"""

import dataclasses

import numpy as np

from qjax.core.affine import HostNumber
from qjax.core.host import HostArray
from qjax.program.lowering.draft import Value
from qjax.program.lowering.fuse import Grid
from qjax.program.tensor import Quantization, Shape, Tensor

EXACT = 1e-6
"""Relative and in output steps: what float32 scales leave of an equality."""


@dataclasses.dataclass(frozen=True)
class Landing:
    """Where a sum lands; see the module's equation.

    Attributes:
        codes: the network's tensor of the codes.
        grid: where they live in the format.
        scale, rest: () or (c,) along the last axis.
    """

    codes: Tensor
    grid: Grid
    scale: HostNumber
    rest: HostNumber

    def named(self, name: str, shape: Shape) -> "Landing":
        """The same for another tensor."""
        units = Quantization(HostArray(self.codes.units.step), HostArray(self.codes.units.zero))
        ends = self.codes.range
        return dataclasses.replace(self, codes=Tensor(name, shape, self.codes.dtype, units, *ends))

    def channels(self, part: slice) -> "Landing":
        """The same for some of the channels."""
        scale, rest = (np.asarray(number) for number in (self.scale, self.rest))
        parts = [number[part] if number.ndim else number for number in (scale, rest)]
        return dataclasses.replace(self, scale=parts[0], rest=parts[1])

    def of(self, source: Value, count: int = 1) -> "Landing":
        """With `rest` for a sum of `count` codes from their real zero, not from code zero."""
        return dataclasses.replace(self, rest=self.rest + self.scale * count * source.zero)

    def keeps_units(self, source: Value, count: int = 1) -> bool:
        """Whether the scales of the tensors alone say what it computes, of a mean of `count`."""
        wanted = source.grid.scale / self.grid.scale / count
        scaled = np.abs(self.scale / wanted - 1) < EXACT
        return bool(scaled.all() and (np.abs(self.rest) < EXACT).all())
