"""A lowered program while it is written, and where a network's codes are to land in it."""

import dataclasses
from collections.abc import Callable

import numpy as np

from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.base import NotExpressible, Operator
from qjax.program.lowering.container import Container
from qjax.program.lowering.fuse import Grid
from qjax.program.program import Program
from qjax.program.tensor import Quantization, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class Value:
    """Codes of the network in the format's own.

    Attributes:
        tensor: holds them.
        zero: the network's code of real zero.
        low, high: least and largest code that it can hold, which is less than its type allows where
            the network's codes are fewer.
    """

    tensor: Tensor
    zero: int
    low: int
    high: int

    @property
    def grid(self) -> Grid:
        """Scale, zero point and range in the format."""
        units = self.tensor.units
        return Grid(units.step, units.zero, self.low, self.high)


class Draft:
    """Collects tensors and operators.

    Args:
        container: the format.
    """

    def __init__(self, container: Container) -> None:
        self.container = container
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []

    def add(self, operator: Operator, tensor: Tensor) -> Tensor:
        """Add an operator with its output."""
        self.operators.append(operator)
        self.tensors.append(tensor)
        return tensor

    def constant(self, name: str, data: np.ndarray, units: Quantization | None = None) -> Tensor:
        """Add a constant."""
        tensor = Tensor(name, data.shape, data.dtype.name, units, data=data)
        self.tensors.append(tensor)
        return tensor

    def place(self, codes: Tensor, scale: float | None = None) -> Grid:
        """Where the network's codes live in the format; the scale of theirs unless given."""
        shift = self.container.shift(codes)
        low, high = codes.range
        step = float(np.float32(codes.units.step if scale is None else scale))
        return Grid(step, codes.units.zero + shift, low + shift, high + shift)

    def land(
        self,
        codes: Tensor,
        grid: Grid,
        make: Callable[[str], Operator],
        *,
        fuses: bool,
        lowest: float = -np.inf,
    ) -> Value:
        """Add an operator that computes codes, and what clamps them where it does not itself.

        Args:
            codes: the network's tensor: name and shape.
            grid: where they live.
            make: the operator for the name of its output.
            fuses: whether it can end with a ReLU.
            lowest: a bound of what it computes before it is clamped, in codes of the format.
        """
        least, most = self.container.range
        low = grid.low if fuses and self.container.fuses_relu and grid.low == grid.zero else least
        below = grid.low > low and lowest < grid.low
        clamped = below or grid.high < most
        name = f"{codes.name}.wide" if clamped else codes.name
        tensor = self.codes(name, codes.shape, grid, low, most)
        self.add(make(name), tensor)
        if clamped:
            tensor = self.clamp(tensor, codes.name, grid, below)
        return Value(tensor, codes.units.zero, grid.low, grid.high)

    def codes(self, name: str, shape: Shape, grid: Grid, low: int, high: int) -> Tensor:
        """A tensor of activations, not yet added."""
        units = Quantization(HostArray(grid.scale), HostArray(float(grid.zero)))
        return Tensor(name, shape, self.container.dtype, units, low, high)

    def clamp(self, tensor: Tensor, name: str, grid: Grid, below: bool) -> Tensor:
        """Add what clamps a tensor to a grid's range."""
        least, most = self.container.range
        if not self.container.at_top:
            output = self.codes(name, tensor.shape, grid, grid.low, grid.high)
            return self.add(ops.Clip((tensor.name,), name), output)
        assert below and grid.high == most, "codes stand at the upper end of their type"
        floor = np.full(1, grid.low, tensor.dtype)
        bound = self.constant(f"{name}.least", floor, tensor.quantization)
        output = self.codes(name, tensor.shape, grid, least, most)
        return self.add(ops.Maximum((tensor.name, bound.name), name), output)

    def program(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Program:
        """What was written, without what no output needs."""
        needed, operators = set(outputs), []
        for operator in reversed(self.operators):
            if operator.output in needed:
                operators.append(operator)
                needed.update(operator.inputs)
        tensors = tuple(t for t in self.tensors if t.name in needed or t.name in inputs)
        return Program(inputs, outputs, tensors, tuple(operators[::-1]), self.container.policy)


def refuse(name: str, problem: str, container: Container) -> NotExpressible:
    """The error for what a format cannot hold, naming the formats that can."""
    return NotExpressible(
        f"{name!r}: {problem}; {container.name} has no such operator, or none is written "
        "here. A recipe whose convolutions and additions have an `output` quantizer where no "
        "activation follows exports to it; "
        "format=program and format=stablehlo hold any network"
    )
