"""A program's operators as ONNX nodes, one function each; `operators.py` reads them back."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qjax.program import ops
from qjax.program.base import NotExpressible, Site
from qjax.program.tensor import Tensor, code_range

# The file under construction and the operator are `Any`: see `tflite_writers.py`.
type Write = Callable[[Any, Any, Site], None]

_MICROSOFT = "com.microsoft"


def _unclamped(output: Tensor) -> None:
    """Raise unless a tensor's operator clamps to nothing but its type."""
    if output.dtype in ("int8", "uint8") and output.range != code_range(output.dtype):
        raise NotExpressible(
            f"{output} is clamped to {output.range} by its own operator, which none of ONNX's "
            "does; clamp it by a clip behind, or use TFLite or StableHLO"
        )


def _moves(site: Site) -> None:
    """Raise unless codes pass on as they are."""
    for x in site.inputs:
        if x.quantization != site.output.quantization or x.dtype != site.output.dtype:
            raise NotExpressible(
                f"{x} and {site.output} must be on one grid in ONNX; StableHLO holds it"
            )
    _unclamped(site.output)


def _weights(writer: Any, weight: Tensor, order: tuple[int, ...]) -> list[str]:
    units = weight.units
    if weight.dtype != "int8" or units.zero_point.value.any():
        raise NotExpressible(
            f"{weight} must be int8 with a zero point of 0, as onnxruntime has them by channel; "
            "StableHLO holds any"
        )
    data = np.ascontiguousarray(weight.constant.transpose(order))
    return [writer.constant(weight.name, data), *writer.units(weight)]


def _bias(writer: Any, site: Site) -> list[str]:
    return [writer.constant(bias.name, bias.constant) for bias in site.inputs[2:]]


def _conv(writer: Any, operator: ops.Conv2D, site: Site) -> None:
    x, weight = site.inputs[:2]
    _unclamped(site.output)
    (top, bottom), (left, right) = operator.padding
    inputs = [writer.first(x), *writer.units(x), *_weights(writer, weight, (3, 2, 0, 1))]
    inputs += [*writer.units(site.output), *_bias(writer, site)]
    writer.add(
        "QLinearConv",
        inputs,
        writer.computes(site.output),
        kernel_shape=weight.constant.shape[:2],
        strides=operator.strides,
        pads=(top, left, bottom, right),
        dilations=operator.dilation,
        group=operator.groups,
    )


def _dense(writer: Any, operator: ops.Dense, site: Site) -> None:
    x, weight = site.inputs[:2]
    _unclamped(site.output)
    if operator.scaling != "policy" or len(x.shape) != 2 or len(site.output.shape) != 2:
        raise NotExpressible(
            f"{site.output} is no plain matrix product of two axes under the policy; TFLite or "
            "StableHLO hold it"
        )
    inputs = [x.name, *writer.units(x), *_weights(writer, weight, (0, 1))]
    inputs += _bias(writer, site) or [""]
    inputs += writer.units(site.output)
    writer.add("QGemm", inputs, writer.computes(site.output), _MICROSOFT)


def _add(writer: Any, operator: ops.Add, site: Site) -> None:
    del operator
    _unclamped(site.output)
    one, other = site.inputs
    if len(one.shape) != len(other.shape):
        raise NotExpressible(f"{one} and {other} must have as many axes; StableHLO holds it")
    inputs = [writer.first(one), *writer.units(one), writer.first(other), *writer.units(other)]
    name = writer.computes(site.output)
    writer.add("QLinearAdd", [*inputs, *writer.units(site.output)], name, _MICROSOFT)


def _mean(writer: Any, operator: ops.Mean, site: Site) -> None:
    (x,) = site.inputs
    _unclamped(site.output)
    if operator.axes != (1, 2) or not operator.keep or len(x.shape) != 4 or x.dtype != "uint8":
        raise NotExpressible(
            f"{site.output}: ONNX's quantized mean is that of a uint8 image, its axes kept; TFLite "
            "or StableHLO hold others"
        )
    inputs = [writer.first(x), *writer.units(x), *writer.units(site.output)]
    name = writer.computes(site.output)
    writer.add("QLinearGlobalAveragePool", inputs, name, _MICROSOFT, channels_last=0)


def _max_pool(writer: Any, operator: ops.MaxPool, site: Site) -> None:
    _moves(site)
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


def _requantize(writer: Any, operator: ops.Requantize, site: Site) -> None:
    (x, *others), output = site.inputs, site.output
    if operator.scales or others:
        raise NotExpressible(
            f"{output} meets {len(site.inputs)} terms or an offset on one grid, which ONNX rounds "
            "one by one; StableHLO holds it"
        )
    _unclamped(output)
    real = writer.add(
        "DequantizeLinear", [writer.first(x), *writer.units(x)], f"{output.name}/real"
    )
    writer.add("QuantizeLinear", [real, *writer.units(output)], writer.computes(output))


def _quantize(writer: Any, operator: ops.Quantize, site: Site) -> None:
    del operator
    _unclamped(site.output)
    inputs = [writer.first(site.inputs[0]), *writer.units(site.output)]
    writer.add("QuantizeLinear", inputs, writer.computes(site.output))


def _dequantize(writer: Any, operator: ops.Dequantize, site: Site) -> None:
    del operator
    (x,) = site.inputs
    writer.add(
        "DequantizeLinear", [writer.first(x), *writer.units(x)], writer.computes(site.output)
    )


def _reshape(writer: Any, operator: ops.Reshape, site: Site) -> None:
    del operator
    _moves(site)
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
    _moves(site)
    inputs = [writer.first(x) for x in site.inputs]
    axis = _axis(site.output, operator.axis)
    writer.add("Concat", inputs, writer.computes(site.output), axis=axis)


def _pad(writer: Any, operator: ops.Pad, site: Site) -> None:
    _moves(site)
    (x,), output = site.inputs, site.output
    before, after = zip(*_in_order(x, operator.widths), strict=True)
    widths = writer.constant(f"{output.name}/widths", np.asarray([*before, *after], np.int64))
    value = writer.constant(f"{output.name}/value", np.asarray(operator.code(x), x.dtype))
    writer.add("Pad", [writer.first(x), widths, value], writer.computes(output), mode="constant")


def _slice(writer: Any, operator: ops.Slice, site: Site) -> None:
    _moves(site)
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


WRITERS: Mapping[str, Write] = MappingProxyType(
    {
        "conv2d": _conv,
        "dense": _dense,
        "add": _add,
        "mean": _mean,
        "max_pool": _max_pool,
        "clip": _clip,
        "requantize": _requantize,
        "quantize": _quantize,
        "dequantize": _dequantize,
        "reshape": _reshape,
        "concat": _concat,
        "pad": _pad,
        "slice": _slice,
        "argmax": _argmax,
    }
)
"""By a program's word: what adds the operator to a file."""
