"""What all translations of nodes share: operands with their units, outputs with their shapes."""

from collections.abc import Callable

from qjax.core.windows import Padding, Pair, explicit
from qjax.program.base import Operator, Site
from qjax.program.onnx.file import Node
from qjax.program.onnx.graph import Graph, Known, Unsupported, units_of
from qjax.program.tensor import Shape, Tensor

POLICY = "f32_even"

type Convert = Callable[[Graph, Node], Operator | None]
"""None where a node only turns or renames what is there."""


def operand(graph: Graph, node: Node, place: int) -> Known:
    """An operand whose scale and zero point follow it."""
    known = graph.at(node, place)
    _check_units(graph, node, place, known.tensor)
    return known


def image(graph: Graph, node: Node, place: int) -> Tensor:
    """An image whose scale and zero point follow it."""
    tensor = graph.image(node, place)
    _check_units(graph, node, place, tensor)
    return tensor


def _check_units(graph: Graph, node: Node, place: int, tensor: Tensor) -> None:
    told = units_of(graph.file, node, place + 1)
    dtype = graph.values(node, place + 2).dtype.name
    if tensor.quantization != told or tensor.dtype != dtype:
        raise Unsupported(
            f"it reads {tensor} as {dtype} of {told}, which is {tensor.dtype} of "
            f"{tensor.quantization}"
        )


def finish(
    graph: Graph,
    node: Node,
    operator: Operator,
    output: Tensor,
    first: bool,
) -> Operator:
    """Note the output, its shape as the operator infers it.

    Args:
        graph, node, operator: whose.
        output: its name, type, units and range; the shape where the operator does not know it.
        first: whether its channels are in front in the file.
    """
    used = {tensor.name: tensor for tensor in graph.used()}
    site = Site(tuple(used[name] for name in operator.inputs), output, POLICY)
    shape = operator.infer(site)
    tensor = Tensor(output.name, shape, output.dtype, output.quantization, output.low, output.high)
    graph.output(node, node.outputs[0], tensor, first)
    return operator


def codes(graph: Graph, node: Node, place: int, shape: Shape = (1,)) -> Tensor:
    """A node's output with the scale and zero point at a place."""
    dtype = graph.values(node, place + 1).dtype.name
    return Tensor(node.outputs[0], shape, dtype, units_of(graph.file, node, place))


def geometry(node: Node, sides: tuple, window: Pair, dilation: Pair) -> tuple[Pair, Padding]:
    """Strides and explicit padding."""
    strides = node.ints("strides", (1, 1))
    rule = node.text("auto_pad", "NOTSET")
    pads = node.ints("pads", (0, 0, 0, 0))
    if len(strides) != 2 or len(pads) != 4 or min(*strides, *window, *dilation) < 1:
        raise Unsupported(f"window {window}, strides {strides}, pads {pads} or dilations")
    given = strides[0], strides[1]
    if rule == "NOTSET":
        top, left, bottom, right = pads
        return given, ((top, bottom), (left, right))
    word = {"VALID": "VALID", "SAME_UPPER": "SAME"}.get(rule)
    if word is None:
        raise Unsupported(f"its auto_pad is {rule}")
    return given, explicit(word, sides, window, given, dilation)


def same_grid(graph: Graph, node: Node, x: Tensor, shape: Shape = (1,)) -> Tensor:
    """A node's output on its operand's grid."""
    return Tensor(node.outputs[0], shape, x.dtype, x.quantization)
