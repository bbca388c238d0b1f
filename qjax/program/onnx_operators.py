"""ONNX's quantized nodes, one function each: a node of the file to an operator of a program."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from qjax.core.windows import Padding, Pair, explicit
from qjax.program import ops
from qjax.program.base import Operator, Site
from qjax.program.onnx_file import Node
from qjax.program.onnx_graph import FIRST, LAST, Graph, Known, Unsupported, units_of, weight_units
from qjax.program.tensor import Quantization, Shape, Tensor

POLICY = "f32_even"

type Convert = Callable[[Graph, Node], Operator | None]
"""None where a node only turns or renames what is there."""


def _input(graph: Graph, node: Node, place: int) -> Known:
    """An operand whose scale and zero point follow it."""
    known = graph.at(node, place)
    _check_units(graph, node, place, known.tensor)
    return known


def _image(graph: Graph, node: Node, place: int) -> Tensor:
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


def _finish(
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
    tensor = Tensor(
        output.name, shape, output.dtype, output.quantization, output.low, output.high
    )
    graph.output(node, node.outputs[0], tensor, first)
    return operator


def _codes(graph: Graph, node: Node, place: int, shape: Shape = (1,)) -> Tensor:
    """A node's output with the scale and zero point at a place."""
    dtype = graph.values(node, place + 1).dtype.name
    return Tensor(node.outputs[0], shape, dtype, units_of(graph.file, node, place))


def _geometry(
    node: Node, sides: tuple, window: Pair, dilation: Pair
) -> tuple[Pair, Padding]:
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


def _conv(graph: Graph, node: Node) -> Operator:
    x = _image(graph, node, 0)
    shape = graph.values(node, 3).shape
    if len(shape) != 4:
        raise Unsupported(f"weights {node.inputs[3]!r} must have 4 axes, got {shape}")
    units = weight_units(graph.file, node, 4, shape[0], 3)
    weight = graph.constant(node, 3, ("int8", "uint8"), (2, 3, 1, 0), units)
    dilation = node.ints("dilations", (1, 1))
    if len(dilation) != 2 or node.ints("kernel_shape", shape[2:]) != shape[2:]:
        raise Unsupported(f"its dilations {dilation} or kernel_shape do not fit {shape}")
    window, steps = (shape[2], shape[3]), (dilation[0], dilation[1])
    strides, padding = _geometry(node, x.shape[1:3], window, steps)
    names = (x.name, weight.name)
    if graph.has(node, 8):
        names = (*names, graph.constant(node, 8, ("int32",)).name)
    name = node.outputs[0]
    made = ops.Conv2D(names, name, strides, padding, steps, node.whole("group", 1))
    return _finish(graph, node, made, _codes(graph, node, 6), first=True)


def _dense(graph: Graph, node: Node, turned: bool, bias: int, output: int) -> Operator:
    x, _ = _input(graph, node, 0)
    shape = graph.values(node, 3).shape
    if len(shape) != 2 or len(x.shape) != 2:
        raise Unsupported(f"operands must have 2 axes, got {x.shape} and {shape}")
    channels = shape[0] if turned else shape[1]
    units = weight_units(graph.file, node, 4, channels, 1)
    order = (1, 0) if turned else (0, 1)
    names = (x.name, graph.constant(node, 3, ("int8", "uint8"), order, units).name)
    if bias and graph.has(node, bias):
        names = (*names, graph.constant(node, bias, ("int32",)).name)
    result = _codes(graph, node, output, (x.shape[0], channels))
    return _finish(graph, node, ops.Dense(names, node.outputs[0]), result, first=False)


def _gemm(graph: Graph, node: Node) -> Operator:
    if node.whole("transA", 0) or node.attributes.get("alpha", 1.0) != 1.0:
        raise Unsupported("it transposes or scales its operand")
    return _dense(graph, node, bool(node.whole("transB", 0)), 6, 7)


def _matmul(graph: Graph, node: Node) -> Operator:
    return _dense(graph, node, False, 0, 6)


def _add(graph: Graph, node: Node) -> Operator:
    one, other = (_input(graph, node, place) for place in (0, 3))
    if one.tensor.shape != other.tensor.shape or one.first != other.first:
        raise Unsupported(f"it broadcasts {one.tensor.shape} and {other.tensor.shape}")
    made = ops.Add((one.tensor.name, other.tensor.name), node.outputs[0])
    return _finish(graph, node, made, _codes(graph, node, 6), one.first)


def _mean(graph: Graph, node: Node) -> Operator:
    if node.whole("channels_last", 0):
        raise Unsupported("its channels are last")
    x = _image(graph, node, 0)
    made = ops.Mean((x.name,), node.outputs[0], (1, 2), True)
    return _finish(graph, node, made, _codes(graph, node, 3), first=True)


def _same(graph: Graph, node: Node, x: Tensor, shape: Shape = (1,)) -> Tensor:
    """A node's output on its operand's grid."""
    return Tensor(node.outputs[0], shape, x.dtype, x.quantization)


def _max_pool(graph: Graph, node: Node) -> Operator:
    x = graph.image(node, 0)
    window = node.ints("kernel_shape", ())
    usual = node.whole("ceil_mode", 0) == 0 and set(node.ints("dilations", (1, 1))) == {1}
    if len(window) != 2 or len(node.outputs) != 1 or not usual:
        raise Unsupported("a maximum with indices, dilation, ceil_mode or other axes")
    sides = window[0], window[1]
    strides, padding = _geometry(node, x.shape[1:3], sides, (1, 1))
    made = ops.MaxPool((x.name,), node.outputs[0], sides, strides, padding)
    return _finish(graph, node, made, _same(graph, node, x), first=True)


def _scalar(graph: Graph, node: Node, place: int) -> int | None:
    if not graph.has(node, place):
        return None
    values = graph.values(node, place)
    if values.size != 1 or values.dtype.kind not in "iu":
        raise Unsupported(f"operand {place + 1} must be one code")
    return int(values.reshape(-1)[0])


def _clip(graph: Graph, node: Node) -> Operator:
    x, first = graph.at(node, 0)
    ends = _scalar(graph, node, 1), _scalar(graph, node, 2)
    output = Tensor(node.outputs[0], x.shape, x.dtype, x.quantization, *ends)
    return _finish(graph, node, ops.Clip((x.name,), output.name), output, first)


def _quantize(graph: Graph, node: Node) -> Operator:
    source = graph.dequantized(node)
    if source is None:
        x, first = graph.at(node, 0)
        kind = ops.Quantize
    else:
        x, first = _input(graph, source, 0)
        kind = ops.Requantize
    if node.whole("axis", 1) != 1 and len(x.shape) < 2:
        raise Unsupported("scales along an axis")
    made = kind((x.name,), node.outputs[0])
    return _finish(graph, node, made, _codes(graph, node, 1), first)


def _dequantize(graph: Graph, node: Node) -> Operator:
    x, first = _input(graph, node, 0)
    output = Tensor(node.outputs[0], x.shape, "float32")
    return _finish(graph, node, ops.Dequantize((x.name,), output.name), output, first)


def _transpose(graph: Graph, node: Node) -> None:
    tensor, first = graph.at(node, 0)
    order = node.ints("perm", ())
    if len(tensor.shape) != 4 or order != (LAST if first else FIRST):
        raise Unsupported(f"it puts axes of {tensor} in the order {order}")
    graph.known[node.outputs[0]] = Known(tensor, not first)


def _reshape(graph: Graph, node: Node) -> Operator:
    x, first = graph.at(node, 0)
    trivial = len(x.shape) != 4 or x.shape[1:3] == (1, 1) or x.shape[3] == 1
    if first and not trivial:
        raise Unsupported(f"it takes {x} apart with its channels in front; transpose it before")
    sizes = tuple(x.shape[axis] for axis in FIRST) if first else x.shape
    if node.kind == "Flatten":
        if node.whole("axis", 1) != 1:
            raise Unsupported(f"it flattens from axis {node.whole('axis', 1)}")
        shape = (x.shape[0], x.elements)
    else:
        shape = _resolved(graph, node, x, sizes)
    if len(shape) == 4:
        raise Unsupported(f"it makes an image of shape {shape}")
    made = ops.Reshape((x.name,), node.outputs[0])
    return _finish(graph, node, made, _same(graph, node, x, shape), first=False)


def _resolved(graph: Graph, node: Node, x: Tensor, sizes: Shape) -> Shape:
    """The shape that a Reshape asks for, the batch first."""
    wanted = graph.values(node, 1)
    if wanted.dtype != np.int64 or wanted.ndim != 1 or node.whole("allowzero", 0):
        raise Unsupported("its shape must be a list of 64-bit numbers, 0 meaning unchanged")
    numbers = wanted.tolist()
    batch = x.shape[0]
    if not numbers or numbers[0] not in (0, -1, 1 if batch is None else batch):
        raise Unsupported(f"shape {numbers} does not begin with the batch")
    rest = [
        (sizes[axis] if axis < len(sizes) else None) if size == 0 else size
        for axis, size in enumerate(numbers[1:], start=1)
    ]
    known = int(np.prod([size for size in rest if size not in (-1, None)], dtype=object))
    if rest.count(-1) + rest.count(None) > (numbers[0] != -1) or known < 1:
        raise Unsupported(f"shape {numbers} does not follow from {x}")
    return (batch, *(x.elements // known if size in (-1, None) else size for size in rest))


def _axis(known: Known, axis: int) -> int:
    """An axis of the program's tensor, from the file's number."""
    rank = len(known.tensor.shape)
    if not -rank <= axis < rank:
        raise Unsupported(f"axis {axis} of {rank}")
    axis = axis % rank
    return FIRST[axis] if known.first else axis


def _concat(graph: Graph, node: Node) -> Operator:
    values = [graph.at(node, place) for place in range(len(node.inputs))]
    if not values or len({known.first for known in values}) > 1:
        raise Unsupported("its operands have their channels in different places")
    first = values[0]
    axis = _axis(first, node.whole("axis", 0))
    made = ops.Concat(tuple(v.tensor.name for v in values), node.outputs[0], axis)
    return _finish(graph, node, made, _same(graph, node, first.tensor), first.first)


def _pad(graph: Graph, node: Node) -> Operator:
    known = graph.at(node, 0)
    x, rank = known.tensor, len(known.tensor.shape)
    widths = graph.values(node, 1)
    if node.text("mode", "constant") != "constant" or graph.has(node, 3):
        raise Unsupported("its mode is not constant, or it names axes")
    if widths.shape != (2 * rank,) or widths.dtype.kind != "i":
        raise Unsupported(f"it pads with widths of shape {widths.shape}")
    pairs = [(0, 0)] * rank
    for axis in range(rank):
        pairs[_axis(known, axis)] = int(widths[axis]), int(widths[rank + axis])
    value = _scalar(graph, node, 2) or 0
    if x.quantization is not None and value == x.units.zero_point.value:
        value = None
    made = ops.Pad((x.name,), node.outputs[0], tuple(pairs), value)
    return _finish(graph, node, made, _same(graph, node, x), known.first)


def _slice(graph: Graph, node: Node) -> Operator:
    known = graph.at(node, 0)
    x, rank = known.tensor, len(known.tensor.shape)
    begin, end = (graph.values(node, place).reshape(-1).tolist() for place in (1, 2))
    axes = list(range(len(begin)))
    if graph.has(node, 3):
        axes = graph.values(node, 3).reshape(-1).tolist()
    steps = [1] * len(begin)
    if graph.has(node, 4):
        steps = graph.values(node, 4).reshape(-1).tolist()
    if not len(begin) == len(end) == len(axes) == len(steps) or min(steps, default=1) < 1:
        raise Unsupported(f"it begins at {begin}, ends at {end}, along {axes} by {steps}")
    start, stride, shape = [0] * rank, [1] * rank, list(x.shape)
    for axis, first, last, step in zip(axes, begin, end, steps, strict=True):
        place = _axis(known, axis)
        size = x.shape[place]
        if size is None:
            if (first, step) != (0, 1) or last < 2**31 - 1:
                raise Unsupported("it cuts the batch")
            continue
        first, last = (min(max(n + (n < 0) * size, 0), size) for n in (first, last))
        start[place], stride[place] = first, step
        shape[place] = max(-(-(last - first) // step), 0)
    made = ops.Slice((x.name,), node.outputs[0], tuple(start), tuple(stride))
    return _finish(graph, node, made, _same(graph, node, x, tuple(shape)), known.first)


def _argmax(graph: Graph, node: Node) -> Operator:
    known = graph.at(node, 0)
    axis = _axis(known, node.whole("axis", 0))
    last = axis == len(known.tensor.shape) - 1
    if not last or node.whole("keepdims", 1) or node.whole("select_last_index", 0):
        raise Unsupported(f"it runs along axis {axis}, keeps it or takes the last of equal ones")
    units: Quantization | None = None
    output = Tensor(node.outputs[0], (1,), "int32", units)
    made = ops.ArgMax((known.tensor.name,), output.name)
    return _finish(graph, node, made, output, first=False)


OPERATORS: Mapping[str, Convert] = MappingProxyType(
    {
        "QLinearConv": _conv,
        "QLinearMatMul": _matmul,
        "com.microsoft.QGemm": _gemm,
        "com.microsoft.QLinearAdd": _add,
        "com.microsoft.QLinearGlobalAveragePool": _mean,
        "MaxPool": _max_pool,
        "Clip": _clip,
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
        "Transpose": _transpose,
        "Reshape": _reshape,
        "Flatten": _reshape,
        "Concat": _concat,
        "Pad": _pad,
        "Slice": _slice,
        "ArgMax": _argmax,
    }
)
"""By the node's kind: what translates it."""
