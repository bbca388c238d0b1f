"""A program's operators that choose or move codes as ONNX nodes; `moves.py` reads them back."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qjax.program import ops
from qjax.program.base import NotExpressible, Site
from qjax.program.onnx.file import MICROSOFT
from qjax.program.tensor import Tensor, code_range

# The file under construction and the operator are `Any`: see `tflite_writers.py`.
type Write = Callable[[Any, Any, Site], None]


def unclamped(output: Tensor) -> None:
    """Raise unless a tensor's operator clamps to nothing but its type."""
    if output.dtype in ("int8", "uint8") and output.range != code_range(output.dtype):
        raise NotExpressible(
            f"{output} is clamped to {output.range} by its own operator, which none of ONNX's "
            "does; clamp it by a clip behind, or use TFLite or StableHLO"
        )


def _same(site: Site) -> None:
    """Raise unless codes pass on as they are."""
    for x in site.inputs:
        if x.quantization != site.output.quantization or x.dtype != site.output.dtype:
            raise NotExpressible(
                f"{x} and {site.output} must be on one grid in ONNX; StableHLO holds it"
            )
    unclamped(site.output)


def _max_pool(writer: Any, operator: ops.MaxPool, site: Site) -> None:
    _same(site)
    (top, bottom), (left, right) = operator.padding
    writer.add(
        "MaxPool",
        [writer.first(site.inputs[0])],
        writer.computes(site.output),
        kernel_shape=operator.window,
        strides=operator.strides,
        pads=(top, left, bottom, right),
    )


def _clip(writer: Any, operator: ops.Clip, site: Site) -> None:
    del operator
    (x,), output = site.inputs, site.output
    if x.quantization != output.quantization:
        raise NotExpressible(
            f"{output} is clipped and on another grid than {x}; TFLite or StableHLO hold it"
        )
    ends = [
        writer.constant(f"{output.name}/{word}", np.asarray(end, output.dtype))
        for word, end in zip(("least", "most"), output.range, strict=True)
    ]
    writer.add("Clip", [writer.first(x), *ends], writer.computes(output))


def _reshape(writer: Any, operator: ops.Reshape, site: Site) -> None:
    del operator
    _same(site)
    output = site.output
    sizes = [-1 if size is None else size for size in output.shape]
    shape = writer.constant(f"{output.name}/shape", np.asarray(sizes, np.int64))
    inputs = [writer.last(site.inputs[0]), shape]
    writer.add("Reshape", inputs, writer.computes(output, last=True))


def _axis(tensor: Tensor, axis: int) -> int:
    """An axis of a program's tensor as ONNX counts it."""
    return {1: 2, 2: 3, 3: 1}.get(axis, axis) if len(tensor.shape) == 4 else axis


def _in_order(tensor: Tensor, values: Any) -> list:
    """One value for each axis, in ONNX's order."""
    places = range(len(tensor.shape))
    placed = {_axis(tensor, axis): value for axis, value in zip(places, values, strict=True)}
    return [placed[axis] for axis in places]


def _concat(writer: Any, operator: ops.Concat, site: Site) -> None:
    axis = _axis(site.output, operator.axis)
    name = writer.computes(site.output)
    if all(x.quantization == site.output.quantization for x in site.inputs):
        _same(site)
        writer.add("Concat", [writer.first(x) for x in site.inputs], name, axis=axis)
        return
    unclamped(site.output)
    inputs = writer.units(site.output)
    for x in site.inputs:
        inputs += [writer.first(x), *writer.units(x)]
    writer.add("QLinearConcat", inputs, name, MICROSOFT, axis=axis)


def _pad(writer: Any, operator: ops.Pad, site: Site) -> None:
    _same(site)
    (x,), output = site.inputs, site.output
    before, after = zip(*_in_order(x, operator.widths), strict=True)
    widths = writer.constant(f"{output.name}/widths", np.asarray([*before, *after], np.int64))
    value = writer.constant(f"{output.name}/value", np.asarray(operator.code(x), x.dtype))
    writer.add("Pad", [writer.first(x), widths, value], writer.computes(output), mode="constant")


def _slice(writer: Any, operator: ops.Slice, site: Site) -> None:
    _same(site)
    (x,), output = site.inputs, site.output
    rows = zip(operator.start, operator.stride, output.shape, strict=True)
    # The batch is taken whole, whatever its size.
    ends = [
        2**31 - 1 if size is None else start + (size - 1) * stride + 1
        for start, stride, size in rows
    ]
    axes = range(len(x.shape))
    given = [
        writer.constant(f"{output.name}/{word}", np.asarray(values, np.int64))
        for word, values in (
            ("start", _in_order(x, operator.start)),
            ("end", _in_order(x, ends)),
            ("axes", axes),
            ("stride", _in_order(x, operator.stride)),
        )
    ]
    writer.add("Slice", [writer.first(x), *given], writer.computes(output))


def _argmax(writer: Any, operator: ops.ArgMax, site: Site) -> None:
    del operator
    (x,) = site.inputs
    # The last axis of the program's order.
    axis = _axis(x, len(x.shape) - 1)
    name = writer.computes(site.output)
    writer.add("ArgMax", [writer.first(x)], name, axis=axis, keepdims=0, select_last_index=0)


MOVES: Mapping[str, Write] = MappingProxyType(
    {
        "max_pool": _max_pool,
        "clip": _clip,
        "reshape": _reshape,
        "concat": _concat,
        "pad": _pad,
        "slice": _slice,
        "argmax": _argmax,
    }
)
"""By a program's word: what adds the operator to a file."""
