"""ONNX's quantized nodes that compute, one function each, to operators of a program."""

from collections.abc import Mapping
from types import MappingProxyType

from qjax.program import ops
from qjax.program.base import Operator
from qjax.program.onnx.file import Node
from qjax.program.onnx.graph import Graph, Unsupported, weight_units
from qjax.program.onnx.moves import MOVES
from qjax.program.onnx.node import POLICY, Convert, codes, finish, geometry, image, operand
from qjax.program.tensor import Tensor

__all__ = ["OPERATORS", "POLICY"]


def _conv(graph: Graph, node: Node) -> Operator:
    x = image(graph, node, 0)
    shape = graph.values(node, 3).shape
    if len(shape) != 4:
        raise Unsupported(f"weights {node.inputs[3]!r} must have 4 axes, got {shape}")
    units = weight_units(graph.file, node, 4, shape[0], 3)
    weight = graph.constant(node, 3, ("int8", "uint8"), (2, 3, 1, 0), units)
    dilation = node.ints("dilations", (1, 1))
    if len(dilation) != 2 or node.ints("kernel_shape", shape[2:]) != shape[2:]:
        raise Unsupported(f"its dilations {dilation} or kernel_shape do not fit {shape}")
    window, steps = (shape[2], shape[3]), (dilation[0], dilation[1])
    strides, padding = geometry(node, x.shape[1:3], window, steps)
    names = (x.name, weight.name)
    if graph.has(node, 8):
        names = (*names, graph.constant(node, 8, ("int32",)).name)
    name = node.outputs[0]
    made = ops.Conv2D(names, name, strides, padding, steps, node.whole("group", 1))
    return finish(graph, node, made, codes(graph, node, 6), first=True)


def _dense(graph: Graph, node: Node, turned: bool, bias: int, output: int) -> Operator:
    x, _ = operand(graph, node, 0)
    shape = graph.values(node, 3).shape
    if len(shape) != 2 or len(x.shape) != 2:
        raise Unsupported(f"operands must have 2 axes, got {x.shape} and {shape}")
    channels = shape[0] if turned else shape[1]
    units = weight_units(graph.file, node, 4, channels, 1)
    order = (1, 0) if turned else (0, 1)
    names = (x.name, graph.constant(node, 3, ("int8", "uint8"), order, units).name)
    if bias and graph.has(node, bias):
        names = (*names, graph.constant(node, bias, ("int32",)).name)
    result = codes(graph, node, output, (x.shape[0], channels))
    return finish(graph, node, ops.Dense(names, node.outputs[0]), result, first=False)


def _gemm(graph: Graph, node: Node) -> Operator:
    if node.whole("transA", 0) or node.attributes.get("alpha", 1.0) != 1.0:
        raise Unsupported("it transposes or scales its operand")
    return _dense(graph, node, bool(node.whole("transB", 0)), 6, 7)


def _matmul(graph: Graph, node: Node) -> Operator:
    return _dense(graph, node, False, 0, 6)


def _add(graph: Graph, node: Node) -> Operator:
    one, other = (operand(graph, node, place) for place in (0, 3))
    if one.tensor.shape != other.tensor.shape or one.first != other.first:
        raise Unsupported(f"it broadcasts {one.tensor.shape} and {other.tensor.shape}")
    made = ops.Add((one.tensor.name, other.tensor.name), node.outputs[0])
    return finish(graph, node, made, codes(graph, node, 6), one.first)


def _mean(graph: Graph, node: Node) -> Operator:
    if node.whole("channels_last", 0):
        raise Unsupported("its channels are last")
    x = image(graph, node, 0)
    made = ops.Mean((x.name,), node.outputs[0], (1, 2), True)
    return finish(graph, node, made, codes(graph, node, 3), first=True)


def _quantize(graph: Graph, node: Node) -> Operator:
    source = graph.dequantized(node)
    if source is None:
        x, first = graph.at(node, 0)
        kind = ops.Quantize
    else:
        x, first = operand(graph, source, 0)
        kind = ops.Requantize
    if node.whole("axis", 1) != 1 and len(x.shape) < 2:
        raise Unsupported("scales along an axis")
    made = kind((x.name,), node.outputs[0])
    return finish(graph, node, made, codes(graph, node, 1), first)


def _dequantize(graph: Graph, node: Node) -> Operator:
    x, first = operand(graph, node, 0)
    output = Tensor(node.outputs[0], x.shape, "float32")
    return finish(graph, node, ops.Dequantize((x.name,), output.name), output, first)


OPERATORS: Mapping[str, Convert] = MappingProxyType(
    {
        "QLinearConv": _conv,
        "QLinearMatMul": _matmul,
        "com.microsoft.QGemm": _gemm,
        "com.microsoft.QLinearAdd": _add,
        "com.microsoft.QLinearGlobalAveragePool": _mean,
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
        **MOVES,
    }
)
"""By the node's kind: what translates it."""
