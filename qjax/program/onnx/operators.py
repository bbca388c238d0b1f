"""ONNX's quantized nodes that compute, one function each, to operators of a program."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from qjax.program import ops
from qjax.program.base import Operator
from qjax.program.onnx.file import Node
from qjax.program.onnx.graph import LAST, Graph, Unsupported, units_of, weight_units
from qjax.program.onnx.moves import MOVES, axis_of
from qjax.program.onnx.node import POLICY, Convert, codes, finish, geometry, image, operand
from qjax.program.onnx.rules import BYTES, sigmoid_table
from qjax.program.tensor import Tensor, code_range

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


def _pair(kind: type[ops.Add] | type[ops.Mul]) -> Convert:
    """Two operands that are broadcast against each other, one of them possibly a constant."""

    def convert(graph: Graph, node: Node) -> Operator:
        known = {p: operand(graph, node, p) for p in (0, 3) if not graph.is_constant(node, p)}
        if len({(k.first, len(k.tensor.shape)) for k in known.values()}) != 1:
            raise Unsupported("its operands are constants, or of different axes")
        first, shape = next((k.first, k.tensor.shape) for k in known.values())
        names = [
            known[p].tensor.name if p in known else _beside(graph, node, p, first, len(shape)).name
            for p in (0, 3)
        ]
        made = kind((names[0], names[1]), node.outputs[0])
        return finish(graph, node, made, codes(graph, node, 6), first)

    return convert


def _beside(graph: Graph, node: Node, place: int, first: bool, rank: int) -> Tensor:
    """A constant beside an activation."""
    dtype = graph.values(node, place + 2).dtype.name
    units = units_of(graph.file, node, place + 1)
    return graph.constant(node, place, (dtype,), LAST if first else (), units, rank)


def _concat(graph: Graph, node: Node) -> Operator:
    places = range(2, len(node.inputs), 3)
    values = [operand(graph, node, place) for place in places]
    if not values or len({known.first for known in values}) > 1:
        raise Unsupported("its operands have their channels in different places")
    along = axis_of(values[0], node.whole("axis", 0))
    made = ops.Concat(tuple(v.tensor.name for v in values), node.outputs[0], along)
    return finish(graph, node, made, codes(graph, node, 0), values[0].first)


def _leaky(graph: Graph, node: Node) -> Operator:
    x, first = operand(graph, node, 0)
    slope = node.attributes.get("alpha", float(np.float32(0.01)))
    if not isinstance(slope, float):
        raise Unsupported(f"its alpha is {slope!r}")
    made = ops.LeakyRelu((x.name,), node.outputs[0], slope)
    return finish(graph, node, made, codes(graph, node, 3), first)


def _sigmoid(graph: Graph, node: Node) -> Operator:
    x, first = operand(graph, node, 0)
    output = codes(graph, node, 3)
    if x.dtype not in BYTES or output.dtype != x.dtype:
        raise Unsupported(f"it reads {x.dtype} and writes {output.dtype}")
    # By the code, least first, where the rules have them by the byte.
    least, _ = code_range(x.dtype)
    values = np.roll(sigmoid_table(x, output), least)
    table = graph.added(Tensor(f"{output.name}/table", (256,), x.dtype, data=values))
    made = ops.Lookup((x.name, table.name), output.name, "logistic")
    return finish(graph, node, made, output, first)


def _average_pool(graph: Graph, node: Node) -> Operator:
    x = image(graph, node, 0)
    window = node.ints("kernel_shape", ())
    if len(window) != 2 or node.whole("ceil_mode", 0) or node.whole("channels_last", 0):
        raise Unsupported("an average of ceil_mode, other axes or with its channels last")
    sides = window[0], window[1]
    strides, padding = geometry(node, x.shape[1:3], sides, (1, 1))
    if node.whole("count_include_pad", 0) and any(map(any, padding)):
        raise Unsupported("it counts what is padded")
    made = ops.AveragePool((x.name,), node.outputs[0], sides, strides, padding)
    return finish(graph, node, made, codes(graph, node, 3), first=True)


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


def _dequantize(graph: Graph, node: Node) -> Operator | None:
    if graph.is_constant(node, 0):
        # What reads its numbers is what no program can hold.
        return None
    x, first = operand(graph, node, 0)
    output = Tensor(node.outputs[0], x.shape, "float32")
    return finish(graph, node, ops.Dequantize((x.name,), output.name), output, first)


OPERATORS: Mapping[str, Convert] = MappingProxyType(
    {
        "QLinearConv": _conv,
        "QLinearMatMul": _matmul,
        "com.microsoft.QGemm": _gemm,
        "com.microsoft.QLinearAdd": _pair(ops.Add),
        "com.microsoft.QLinearMul": _pair(ops.Mul),
        "com.microsoft.QLinearConcat": _concat,
        "com.microsoft.QLinearLeakyRelu": _leaky,
        "com.microsoft.QLinearSigmoid": _sigmoid,
        "com.microsoft.QLinearAveragePool": _average_pool,
        "com.microsoft.QLinearGlobalAveragePool": _mean,
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
        **MOVES,
    }
)
"""By the node's kind: what translates it."""
