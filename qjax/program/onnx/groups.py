"""The QLinear node of each float operator whose operands and result are on grids.

What onnxruntime asks of such a group is asked here: weights and biases are constants on the grids
that the products need, activations and result are of one type.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from qjax.program.onnx.file import MICROSOFT, Attribute, Node, OnnxFile
from qjax.program.onnx.graph import Unsupported

INTO, OUT = "QuantizeLinear", "DequantizeLinear"
CLAMPS = ("Relu", "Clip")
MOVED = ("MaxPool", "Reshape", "Flatten", "Transpose", "Slice")
_PRECISE = 1e-5
_SLOPE = float(np.float32(0.01))
_NONE: Mapping[str, Attribute] = {}
_WINDOW: Mapping[str, Attribute] = {"auto_pad": "", "kernel_shape": (), "pads": (), "strides": ()}

type Codes = tuple[str, str, str]
"""Names of codes, their scale and their zero point."""


class Names:
    """A file's tensors by name: who makes them, and constants that are added.

    Args:
        file: what it has.
    """

    def __init__(self, file: OnnxFile) -> None:
        self.added: dict[str, np.ndarray] = {}
        # Constants that are added are found beside the file's own.
        self.file = file._replace(constants=dict(file.constants))
        self.makers: dict[str, Node] = {}
        computed = {name for node in file.nodes for name in node.outputs}
        self._taken = {*computed, *file.constants, *(item.name for item in file.inputs)}
        self.nodes = tuple(self._whole(node) for node in file.nodes)

    def _whole(self, node: Node) -> Node:
        """A node, a zero point that is left out written down, and known as a maker."""
        if node.kind in (INTO, OUT) and len(node.inputs) > 1 and not any(node.inputs[2:]):
            name, scale = node.inputs[:2]
            dtype = None if node.attributes.keys() - {"axis"} else "uint8"
            if node.kind == OUT:
                # As they are, or as they were written.
                maker = self.makers.get(name)
                zero = maker.inputs[2] if maker and maker.kind == INTO and maker.inputs[2:] else ""
                told = self.file.constants.get(name, self.file.constants.get(zero))
                dtype = None if told is None else told.dtype
            if dtype is not None and scale in self.file.constants:
                zeros = np.zeros(self.file.constants[scale].shape, dtype)
                zero = self.add(f"{node.outputs[0] if node.outputs else name}/zero_point", zeros)
                node = node._replace(inputs=(name, scale, zero))
        for name in node.outputs:
            self.makers.setdefault(name, node)
        return node

    def fresh(self, name: str) -> str:
        """A name that nothing has, like the given one."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def add(self, name: str, values: np.ndarray) -> str:
        """Add a constant; returns its name."""
        name = self.fresh(name)
        self.added[name] = self.file.constants[name] = values
        return name

    def constant(self, name: str) -> np.ndarray:
        """A constant's values.

        Raises:
            Unsupported: it is computed or left out.
        """
        if name not in self.file.constants:
            raise Unsupported(f"{name!r} must be a constant")
        return self.file.constants[name]

    def real(self, node: Node, place: int) -> Node:
        """The DequantizeLinear of an operand.

        Raises:
            Unsupported: there is none.
        """
        name = node.inputs[place] if place < len(node.inputs) else ""
        maker = self.makers.get(name)
        if maker is None or maker.kind != OUT:
            raise Unsupported(f"its operand {place + 1}, {name!r}, is not a DequantizeLinear's")
        return maker

    def codes(self, node: Node, place: int) -> Codes:
        """An operand's codes, on one grid."""
        return self._codes(self.real(node, place), None)

    def weights(self, node: Node, place: int, axis: int) -> Codes:
        """Constant codes of two axes or more, on one grid or one for each index along an axis."""
        names = self._codes(self.real(node, place), axis)
        self.constant(names[0])
        return names

    def _codes(self, real: Node, axis: int | None) -> Codes:
        if len(real.inputs) != 3:
            raise Unsupported(f"the {OUT} of {real.outputs[0]!r} has no zero point")
        name, scale, zero = real.inputs
        if self.constant(scale).size != 1:
            told = real.whole("axis", 1)
            if axis is None or told % max(self.constant(name).ndim, 1) != axis:
                raise Unsupported(f"scales {scale!r} run along axis {told} of {name!r}")
        return name, scale, zero

    def bias(self, node: Node, place: int, x: Codes, weights: Codes) -> str:
        """The int32 codes of a bias, which is in units of the products; empty where there is none.

        Raises:
            Unsupported: its units are others.
        """
        if place >= len(node.inputs) or not node.inputs[place]:
            return ""
        name, scale, zero = self._codes(self.real(node, place), 0)
        if self.constant(name).dtype != np.int32 or self.constant(zero).any():
            raise Unsupported(f"its bias {name!r} must be int32 with a zero point of 0")
        wanted = self.constant(x[1]).reshape(-1) * self.constant(weights[1]).reshape(-1)
        ratio = self.constant(scale).reshape(-1) / wanted
        if not (abs(ratio - 1) < _PRECISE).all():
            raise Unsupported(f"the scale {scale!r} of its bias is not that of the products")
        return name


class Group(NamedTuple):
    """A float operator among codes.

    Attributes:
        names: the file's.
        core: the operator.
        output: its result's scale and zero point.
    """

    names: Names
    core: Node
    output: tuple[str, str]

    def made(
        self, kind: str, inputs: list[str], name: str, usual: Mapping[str, Attribute] = _NONE,
        **more: Attribute,
    ) -> Node:  # fmt: skip
        """The QLinear node.

        Args:
            kind, inputs: of it.
            name: of its codes.
            usual: attributes that pass on, and what stands for those left out; an empty one is
                left out there, too.
            more: further ones.

        Raises:
            Unsupported: the operator has others.
        """
        given = self.core.attributes
        strange = [name for name, value in given.items() if name not in usual or value is None]
        if strange:
            raise Unsupported(f"attribute {strange[0]!r} is not known")
        passed = {name: given.get(name, value) for name, value in usual.items()}
        kept = {name: value for name, value in passed.items() if value not in ("", ())}
        version = 1 if "." in kind else self.core.version
        return Node(kind, version, tuple(inputs), (name,), {**kept, **more})

    def codes(self, place: int) -> Codes:
        """An operand's codes, of the result's type."""
        found = self.names.codes(self.core, place)
        types = [self.names.constant(zero).dtype.name for zero in (found[2], self.output[1])]
        if types[0] != types[1]:
            raise Unsupported(f"{found[0]!r} is {types[0]}, its result {types[1]}")
        return found

    def operands(self) -> list[Codes]:
        """Every operand's codes."""
        return [self.codes(place) for place in range(len(self.core.inputs))]


type Make = Callable[[Group, str], Node]
"""The node, given the name of its result."""


def _conv(group: Group, name: str) -> Node:
    names, core = group.names, group.core
    x, w = group.codes(0), names.weights(core, 1, 0)
    bias = names.bias(core, 2, x, w)
    inputs = [*x, *w, *group.output, *([bias] if bias else [])]
    return group.made("QLinearConv", inputs, name, {**_WINDOW, "dilations": (), "group": 1})


def _gemm(group: Group, name: str) -> Node:
    names, core = group.names, group.core
    turned = core.whole("transB", 0)
    if core.attributes.get("beta", 1.0) != 1.0:
        raise Unsupported("it scales its bias")
    x, w = group.codes(0), names.weights(core, 1, 0 if turned else 1)
    inputs = [*x, *w, names.bias(core, 2, x, w), *group.output]
    usual: Mapping[str, Attribute] = {"alpha": 1.0, "transA": 0, "transB": 0, "beta": 1.0}
    made = group.made(f"{MICROSOFT}.QGemm", inputs, name, usual)
    return made._replace(attributes={k: v for k, v in made.attributes.items() if k != "beta"})


def _matmul(group: Group, name: str) -> Node:
    x, w = group.codes(0), group.names.weights(group.core, 1, 1)
    return group.made("QLinearMatMul", [*x, *w, *group.output], name)


def _plain(kind: str, count: int, **more: Attribute) -> Make:
    """A node that reads the codes of `count` operands, then the grid of its result."""

    def make(group: Group, name: str) -> Node:
        if len(group.core.inputs) != count:
            raise Unsupported(f"it has {len(group.core.inputs)} operands")
        inputs = [part for codes in group.operands() for part in codes]
        return group.made(f"{MICROSOFT}.{kind}", [*inputs, *group.output], name, _NONE, **more)

    return make


def _average_pool(group: Group, name: str) -> Node:
    usual = {**_WINDOW, "ceil_mode": 0, "count_include_pad": 0}
    inputs = [*group.codes(0), *group.output]
    return group.made(f"{MICROSOFT}.QLinearAveragePool", inputs, name, usual, channels_last=0)


def _leaky(group: Group, name: str) -> Node:
    inputs = [*group.codes(0), *group.output]
    return group.made(f"{MICROSOFT}.QLinearLeakyRelu", inputs, name, {"alpha": _SLOPE})


def _concat(group: Group, name: str) -> Node:
    inputs = [*group.output, *(part for codes in group.operands() for part in codes)]
    return group.made(f"{MICROSOFT}.QLinearConcat", inputs, name, {"axis": 0})


GROUPS: Mapping[str, Make] = MappingProxyType(
    {
        "Conv": _conv,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "Add": _plain("QLinearAdd", 2),
        "Mul": _plain("QLinearMul", 2),
        "Sigmoid": _plain("QLinearSigmoid", 1),
        "GlobalAveragePool": _plain("QLinearGlobalAveragePool", 1, channels_last=0),
        "AveragePool": _average_pool,
        "LeakyRelu": _leaky,
        "Concat": _concat,
    }
)
"""By the float operator's kind."""
