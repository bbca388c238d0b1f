"""A program's operators that compute as ONNX nodes; `operators.py` reads them back."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qjax.program import ops
from qjax.program.base import NotExpressible, Site
from qjax.program.onnx.file import MICROSOFT
from qjax.program.onnx.move_writers import MOVES, Write, unclamped
from qjax.program.onnx.rules import sigmoid_table
from qjax.program.tensor import Tensor, code_range


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
    unclamped(site.output)
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
    unclamped(site.output)
    if operator.scaling != "policy" or len(x.shape) != 2 or len(site.output.shape) != 2:
        raise NotExpressible(
            f"{site.output} is no plain matrix product of two axes under the policy; TFLite or "
            "StableHLO hold it"
        )
    inputs = [x.name, *writer.units(x), *_weights(writer, weight, (0, 1))]
    inputs += _bias(writer, site) or [""]
    inputs += writer.units(site.output)
    writer.add("QGemm", inputs, writer.computes(site.output), MICROSOFT)


def _pair(kind: str) -> Write:
    """Two operands, one of them possibly a constant."""

    def write(writer: Any, operator: ops.Add | ops.Mul, site: Site) -> None:
        del operator
        unclamped(site.output)
        inputs: list[str] = []
        for x in site.inputs:
            if x.data is None and len(x.shape) != len(site.output.shape):
                raise NotExpressible(f"{x} must have the axes of {site.output}; StableHLO holds it")
            inputs += [_operand(writer, x, len(site.output.shape)), *writer.units(x)]
        name = writer.computes(site.output)
        writer.add(kind, [*inputs, *writer.units(site.output)], name, MICROSOFT)

    return write


def _operand(writer: Any, x: Tensor, rank: int) -> str:
    """An activation or a constant, an image's channels in front."""
    if x.data is None:
        return writer.first(x)
    data = x.data.reshape((1,) * (rank - x.data.ndim) + x.data.shape)
    data = data.transpose((0, 3, 1, 2)) if rank == 4 else data
    return writer.constant(x.name, np.ascontiguousarray(data))


def _one(kind: str, writer: Any, site: Site, **attributes: object) -> None:
    """A node that reads one tensor and its grid, then the grid of its result."""
    x = site.inputs[0]
    unclamped(site.output)
    inputs = [writer.first(x), *writer.units(x), *writer.units(site.output)]
    writer.add(kind, inputs, writer.computes(site.output), MICROSOFT, **attributes)


def _leaky(writer: Any, operator: ops.LeakyRelu, site: Site) -> None:
    if float(np.float32(operator.alpha)) != operator.alpha:
        raise NotExpressible(
            f"{site.output}: ONNX's slope is float32, got {operator.alpha}; StableHLO holds any"
        )
    _one("QLinearLeakyRelu", writer, site, alpha=operator.alpha)


def _lookup(writer: Any, operator: ops.Lookup, site: Site) -> None:
    x, table = site.inputs
    least, _ = code_range(x.dtype)
    known = x.dtype == site.output.dtype and np.array_equal(
        np.roll(sigmoid_table(x, site.output), least), table.constant
    )
    if not known:
        raise NotExpressible(
            f"{site.output} is looked up in a table of {operator.function} that is not "
            "onnxruntime's QLinearSigmoid, the only one written here; TFLite or StableHLO hold it"
        )
    _one("QLinearSigmoid", writer, site)


def _average_pool(writer: Any, operator: ops.AveragePool, site: Site) -> None:
    (top, bottom), (left, right) = operator.padding
    _one(
        "QLinearAveragePool",
        writer,
        site,
        kernel_shape=operator.window,
        strides=operator.strides,
        pads=(top, left, bottom, right),
        ceil_mode=0,
        count_include_pad=0,
        channels_last=0,
    )


def _mean(writer: Any, operator: ops.Mean, site: Site) -> None:
    (x,) = site.inputs
    if operator.axes != (1, 2) or not operator.keep or len(x.shape) != 4 or x.dtype != "uint8":
        raise NotExpressible(
            f"{site.output}: ONNX's quantized mean is that of a uint8 image, its axes kept; TFLite "
            "or StableHLO hold others"
        )
    _one("QLinearGlobalAveragePool", writer, site, channels_last=0)


def _requantize(writer: Any, operator: ops.Requantize, site: Site) -> None:
    (x, *others), output = site.inputs, site.output
    if operator.scales or others:
        raise NotExpressible(
            f"{output} meets {len(site.inputs)} terms or an offset on one grid, which ONNX rounds "
            "one by one; StableHLO holds it"
        )
    unclamped(output)
    real = writer.add(
        "DequantizeLinear", [writer.first(x), *writer.units(x)], f"{output.name}/real"
    )
    writer.add("QuantizeLinear", [real, *writer.units(output)], writer.computes(output))


def _quantize(writer: Any, operator: ops.Quantize, site: Site) -> None:
    del operator
    unclamped(site.output)
    inputs = [writer.first(site.inputs[0]), *writer.units(site.output)]
    writer.add("QuantizeLinear", inputs, writer.computes(site.output))


def _dequantize(writer: Any, operator: ops.Dequantize, site: Site) -> None:
    del operator
    (x,) = site.inputs
    writer.add(
        "DequantizeLinear", [writer.first(x), *writer.units(x)], writer.computes(site.output)
    )


WRITERS: Mapping[str, Write] = MappingProxyType(
    {
        "conv2d": _conv,
        "dense": _dense,
        "add": _pair("QLinearAdd"),
        "mul": _pair("QLinearMul"),
        "leaky_relu": _leaky,
        "lookup": _lookup,
        "average_pool": _average_pool,
        "mean": _mean,
        "requantize": _requantize,
        "quantize": _quantize,
        "dequantize": _dequantize,
        **MOVES,
    }
)
"""By a program's word: what adds the operator to a file."""
