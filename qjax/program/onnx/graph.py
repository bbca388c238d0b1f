"""A graph's tensors as a program's: which units their codes have, in which order their axes.

ONNX says scale and zero point of a tensor where it is read and where it is written, not with the
tensor; what only moves codes says nothing. So units are gathered from all nodes first, and carried
over those that move. Images have their channels in front; those that the file turns (`Transpose`)
are the same tensor of a program, in the program's own order.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qjax.core.host import HostArray
from qjax.program.onnx.file import Declared, Node, OnnxFile
from qjax.program.tensor import Quantization, Shape, Tensor

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)

READS: Mapping[str, tuple[int, ...]] = {
    "QLinearConv": (0,),
    "QLinearMatMul": (0,),
    "com.microsoft.QGemm": (0,),
    "com.microsoft.QLinearAdd": (0, 3),
    "com.microsoft.QLinearMul": (0, 3),
    "com.microsoft.QLinearAveragePool": (0,),
    "com.microsoft.QLinearGlobalAveragePool": (0,),
    "com.microsoft.QLinearLeakyRelu": (0,),
    "com.microsoft.QLinearSigmoid": (0,),
    "DequantizeLinear": (0,),
}
"""Operands that are followed by their scale and zero point."""
WRITES: Mapping[str, int] = {
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "com.microsoft.QGemm": 7,
    "com.microsoft.QLinearAdd": 6,
    "com.microsoft.QLinearMul": 6,
    "com.microsoft.QLinearAveragePool": 3,
    "com.microsoft.QLinearGlobalAveragePool": 3,
    "com.microsoft.QLinearLeakyRelu": 3,
    "com.microsoft.QLinearSigmoid": 3,
    "com.microsoft.QLinearConcat": 0,
    "QuantizeLinear": 1,
}
"""Where the output's scale and zero point begin."""
MOVES = ("MaxPool", "Transpose", "Reshape", "Flatten", "Clip", "Concat", "Pad", "Slice")
"""Nodes whose first operand (all of them, for Concat) and output have one grid."""

_DTYPES = {"FLOAT": "float32", "UINT8": "uint8", "INT8": "int8", "INT32": "int32"}


class Unsupported(ValueError):
    """What a program cannot hold; caught where the node is known."""


class Known(NamedTuple):
    """A tensor of the file: that of the program, and whether the file has its channels in front."""

    tensor: Tensor
    first: bool


class Graph:
    """Tensors by the file's names; remembers which ones the node at hand used.

    Args:
        file: the whole graph.
    """

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.units = _gathered(file)
        self.known: dict[str, Known] = {}
        self._constants: dict[str, Tensor] = {}
        self._makers = {name: node for node in file.nodes for name in node.outputs if name}
        self._used: dict[str, Tensor] = {}
        readers: dict[str, set[str]] = {declared.name: set() for declared in file.inputs}
        for node in file.nodes:
            for name in node.inputs:
                if name in readers:
                    readers[name].add(node.kind)
        for declared in file.inputs:
            # An image that is turned first, or taken apart, has its channels last.
            turned = readers[declared.name] <= {"Transpose", "Reshape", "Flatten"}
            self._declare(declared, not turned)

    def _declare(self, declared: Declared, first: bool) -> None:
        dtype = _DTYPES.get(declared.type)
        if dtype is None:
            raise ValueError(f"input {declared.name!r} is of type {declared.type}")
        if not declared.shape:
            raise ValueError(f"input {declared.name!r} has no axes, so none for the images")
        # A first axis of one, or of any size, is the batch.
        rows = declared.shape[:1]
        shape: Shape = (None if rows in ((1,), (None,)) else rows[0], *declared.shape[1:])
        if len(shape) == 4:
            shape = tuple(shape[axis] for axis in LAST) if first else shape
        units = None
        if dtype != "float32":
            # Codes of which no node says more are plain integers.
            units = self.units.get(declared.name, Quantization(HostArray(1.0), HostArray(0.0)))
        tensor = Tensor(declared.name, shape, dtype, units)
        self.known[declared.name] = Known(tensor, first and len(shape) == 4)

    def all(self) -> tuple[Tensor, ...]:
        """Every tensor that was made, once."""
        made = {known.tensor.name: known.tensor for known in self.known.values()}
        return tuple((made | self._constants).values())

    def begin(self) -> None:
        """Forget what the last node used."""
        self._used = {}

    def used(self) -> tuple[Tensor, ...]:
        """What the node at hand used."""
        return tuple(self._used.values())

    def at(self, node: Node, place: int) -> Known:
        """An activation that a node reads.

        Raises:
            Unsupported: it is left out, a constant, or not computed by a supported node.
        """
        name = node.inputs[place] if place < len(node.inputs) else ""
        if name not in self.known:
            what = "a constant" if name in self.file.constants else "not known here"
            raise Unsupported(f"operand {place + 1}, {name!r}, is {what}")
        known = self.known[name]
        self._used[known.tensor.name] = known.tensor
        return known

    def image(self, node: Node, place: int) -> Tensor:
        """An image with channels in front in the file, (n, h, w, c) in the program."""
        tensor, first = self.at(node, place)
        if len(tensor.shape) != 4 or not first:
            raise Unsupported(f"{tensor} must be an image with its channels in front")
        return tensor

    def has(self, node: Node, place: int) -> bool:
        """Whether an optional operand is there."""
        return place < len(node.inputs) and bool(node.inputs[place])

    def is_constant(self, node: Node, place: int) -> bool:
        """Whether an operand is one."""
        return place < len(node.inputs) and node.inputs[place] in self.file.constants

    def values(self, node: Node, place: int) -> np.ndarray:
        """A constant operand.

        Raises:
            Unsupported: it is left out or computed.
        """
        name = node.inputs[place] if place < len(node.inputs) else ""
        if name not in self.file.constants:
            raise Unsupported(f"operand {place + 1}, {name!r}, must be a constant")
        return self.file.constants[name]

    def constant(
        self, node: Node, place: int, dtypes: Sequence[str], order: tuple[int, ...] = (),
        units: Quantization | None = None, rank: int = 0,
    ) -> Tensor:  # fmt: skip
        """A constant operand as a tensor, its axes put in another order where one is given.

        Args:
            node, place: where it is.
            dtypes: that it may have.
            order: of its axes.
            units: of its codes.
            rank: axes that it has at least; those that it lacks stand in front.
        """
        values = self.values(node, place)
        values = values.reshape((1,) * (rank - values.ndim) + values.shape)
        if values.dtype.name not in dtypes:
            raise Unsupported(f"{node.inputs[place]!r} must be {' or '.join(dtypes)}")
        if order and len(order) != values.ndim:
            raise Unsupported(f"{node.inputs[place]!r} must have {len(order)} axes")
        data = np.ascontiguousarray(values.transpose(order) if order else values)
        name = node.inputs[place]
        tensor = Tensor(name, data.shape, data.dtype.name, units, data=data)
        before = self._constants.setdefault(name, tensor)
        if before.shape != tensor.shape or before.quantization != units:
            raise Unsupported(f"constant {name!r} is read in two ways")
        self._used[name] = before
        return before

    def added(self, tensor: Tensor) -> Tensor:
        """Note a constant that the file does not have.

        Raises:
            Unsupported: it has something of that name.
        """
        if tensor.name in self.known or tensor.name in self.file.constants:
            raise Unsupported(f"{tensor.name!r} is a name of its own")
        self._constants[tensor.name] = self._used[tensor.name] = tensor
        return tensor

    def output(self, node: Node, name: str, tensor: Tensor, first: bool) -> Tensor:
        """Note what a node computes."""
        if name in self.known or name in self.file.constants:
            raise Unsupported(f"{name!r} is computed twice, or given and computed")
        self.known[name] = Known(tensor, first and len(tensor.shape) == 4)
        self._used[tensor.name] = tensor
        return tensor

    def dequantized(self, node: Node) -> Node | None:
        """The DequantizeLinear whose output a node takes, if it does."""
        source = self._makers.get(node.inputs[0]) if node.inputs else None
        return source if source is not None and source.kind == "DequantizeLinear" else None

    def live(self) -> list[Node]:
        """Nodes that outputs depend on, in order; of a DequantizeLinear and the QuantizeLinear
        behind it, which are one operator, the latter.
        """
        needed = {declared.name for declared in self.file.outputs}
        live = []
        for node in reversed(self.file.nodes):
            if not needed.isdisjoint(node.outputs):
                live.append(node)
                source = self.dequantized(node) if node.kind == "QuantizeLinear" else None
                needed.update(node.inputs if source is None else source.inputs)
        return live[::-1]


def units_of(file: OnnxFile, node: Node, place: int) -> Quantization:
    """Scale and zero point of an activation, at two places of a node.

    Raises:
        Unsupported: they are computed, or not one for the tensor.
    """
    scale, zero = _numbers(file, node, place)
    if scale.size != 1:
        raise Unsupported(f"scale {node.inputs[place]!r} must be one number")
    return Quantization(HostArray(scale[0]), HostArray(zero[0]))


def weight_units(file: OnnxFile, node: Node, place: int, channels: int, axis: int) -> Quantization:
    """Scale and zero point of weights, one or one for each channel, as those of each channel.

    Args:
        file, node, place: where they are.
        channels: how many there are.
        axis: of the program's tensor.

    Raises:
        Unsupported: they are computed, or of another number.
    """
    scale, zero = _numbers(file, node, place)
    if scale.size not in (1, channels):
        raise Unsupported(f"scale {node.inputs[place]!r} must have 1 or {channels} numbers")
    wide = [HostArray(np.broadcast_to(values, channels)) for values in (scale, zero)]
    return Quantization(wide[0], wide[1], axis)


def _numbers(file: OnnxFile, node: Node, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales and as many zero points, each (k,)."""
    names = [node.inputs[at] if at < len(node.inputs) else "" for at in (place, place + 1)]
    if any(name not in file.constants for name in names):
        raise Unsupported(f"scale and zero point {names} must be constants")
    scale, zero = (file.constants[name] for name in names)
    if scale.dtype != np.float32 or scale.ndim > 1 or not (scale > 0).all() or not scale.size:
        raise Unsupported(f"scale {names[0]!r} must be positive float32 numbers")
    if zero.dtype.kind not in "iu" or zero.size not in (1, scale.size):
        raise Unsupported(f"zero point {names[1]!r} must be codes, one or one for each scale")
    return scale.reshape(-1), np.broadcast_to(zero.reshape(-1), scale.size)


def _gathered(file: OnnxFile) -> dict[str, Quantization]:
    """Units by tensor, as nodes tell them; a node that tells nothing sound is passed over here."""
    units: dict[str, Quantization] = {}
    for node in file.nodes:
        read = READS.get(node.kind, ())
        if node.kind == "com.microsoft.QLinearConcat":
            read = range(2, len(node.inputs), 3)
        places = [(node.inputs[p], p + 1) for p in read if p < len(node.inputs)]
        if node.kind in WRITES and node.outputs:
            places.append((node.outputs[0], WRITES[node.kind]))
        for name, place in places:
            try:
                units.setdefault(name, units_of(file, node, place))
            except ValueError:
                continue
    # Nodes stand in order, so that once forward and once backward reaches every one.
    for nodes in (file.nodes, file.nodes[::-1], file.nodes):
        for node in nodes:
            if node.kind in MOVES and node.inputs and node.outputs:
                inputs = node.inputs if node.kind == "Concat" else node.inputs[:1]
                names = [*inputs, node.outputs[0]]
                told = next((units[name] for name in names if name in units), None)
                for name in names:
                    if told is not None and name not in file.constants:
                        units.setdefault(name, told)
    return units
