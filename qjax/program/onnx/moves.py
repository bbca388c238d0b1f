"""ONNX's nodes that choose or move codes as they are, to operators of a program."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from qjax.program import ops
from qjax.program.base import Operator
from qjax.program.onnx.file import Node
from qjax.program.onnx.graph import FIRST, LAST, Graph, Known, Unsupported
from qjax.program.onnx.node import Convert, finish, geometry, same_grid
from qjax.program.tensor import Quantization, Shape, Tensor


def _max_pool(graph: Graph, node: Node) -> Operator:
    x = graph.image(node, 0)
    window = node.ints("kernel_shape", ())
    usual = node.whole("ceil_mode", 0) == 0 and set(node.ints("dilations", (1, 1))) == {1}
    if len(window) != 2 or len(node.outputs) != 1 or not usual:
        raise Unsupported("a maximum with indices, dilation, ceil_mode or other axes")
    sides = window[0], window[1]
    strides, padding = geometry(node, x.shape[1:3], sides, (1, 1))
    made = ops.MaxPool((x.name,), node.outputs[0], sides, strides, padding)
    return finish(graph, node, made, same_grid(graph, node, x), first=True)


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
    return finish(graph, node, ops.Clip((x.name,), output.name), output, first)


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
    # An image that it makes has its axes as the file has them.
    made = ops.Reshape((x.name,), node.outputs[0])
    return finish(graph, node, made, same_grid(graph, node, x, shape), first=False)


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


def axis_of(known: Known, axis: int) -> int:
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
    axis = axis_of(first, node.whole("axis", 0))
    made = ops.Concat(tuple(v.tensor.name for v in values), node.outputs[0], axis)
    return finish(graph, node, made, same_grid(graph, node, first.tensor), first.first)


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
        pairs[axis_of(known, axis)] = int(widths[axis]), int(widths[rank + axis])
    value = _scalar(graph, node, 2) or 0
    if x.quantization is not None and value == x.units.zero_point.value:
        value = None
    made = ops.Pad((x.name,), node.outputs[0], tuple(pairs), value)
    return finish(graph, node, made, same_grid(graph, node, x), known.first)


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
        place = axis_of(known, axis)
        size = x.shape[place]
        if size is None:
            if (first, step) != (0, 1) or last < 2**31 - 1:
                raise Unsupported("it cuts the batch")
            continue
        first, last = (min(max(n + (n < 0) * size, 0), size) for n in (first, last))
        start[place], stride[place] = first, step
        shape[place] = max(-(-(last - first) // step), 0)
    made = ops.Slice((x.name,), node.outputs[0], tuple(start), tuple(stride))
    return finish(graph, node, made, same_grid(graph, node, x, tuple(shape)), known.first)


def _argmax(graph: Graph, node: Node) -> Operator:
    known = graph.at(node, 0)
    axis = axis_of(known, node.whole("axis", 0))
    last = axis == len(known.tensor.shape) - 1
    if not last or node.whole("keepdims", 1) or node.whole("select_last_index", 0):
        raise Unsupported(f"it runs along axis {axis}, keeps it or takes the last of equal ones")
    units: Quantization | None = None
    output = Tensor(node.outputs[0], (1,), "int32", units)
    made = ops.ArgMax((known.tensor.name,), output.name)
    return finish(graph, node, made, output, first=False)


MOVES: Mapping[str, Convert] = MappingProxyType(
    {
        "MaxPool": _max_pool,
        "Clip": _clip,
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
