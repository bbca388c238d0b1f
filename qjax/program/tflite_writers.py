"""A program's operators as TFLite's, one function each; `tflite_operators.py` reads them back."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qjax.core.tables import code_table, logistic, tanh
from qjax.core.windows import Padding, Pair, explicit
from qjax.program import ops
from qjax.program.base import NotExpressible, Site
from qjax.program.tensor import DTYPES, Tensor
from qjax.program.tflite_graph import FUSED, clamp

# The file under construction and the operator are `Any`: their classes are the schema's, generated,
# and one of `ops`, told by the table below.
type Write = Callable[[Any, Any, Site], None]

_TABLES = {"logistic": (logistic, "LOGISTIC"), "tanh": (tanh, "TANH")}
_CLIPS = ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")


def _fused(output: Tensor) -> int:
    """The number of the activation function that clamps to a tensor's range."""
    for number, word in enumerate(FUSED):
        if clamp(output.dtype, output.units, word) == output.range:
            return number
    raise NotExpressible(
        f"{output} is clamped to {output.range}, which is no activation function of TFLite; clamp "
        "it by a maximum and a minimum, or use StableHLO"
    )


def _unclamped(output: Tensor) -> None:
    """Raise unless an operator that has no activation function needs none."""
    if output.dtype != "float32" and _fused(output):
        raise NotExpressible(
            f"{output} is clamped to {output.range} by an operator that cannot; clamp it by a "
            "maximum behind, or use StableHLO"
        )


def _rule(padding: Padding, x: Tensor, kernel: Pair, strides: Pair, dilation: Pair = (1, 1)) -> int:
    """TFLite's number of a padding rule: 0 for SAME, 1 for VALID."""
    assert x.shape[1] is not None and x.shape[2] is not None
    sides = x.shape[1], x.shape[2]
    for number, word in enumerate(("SAME", "VALID")):
        if explicit(word, sides, kernel, strides, dilation) == padding:
            return number
    raise NotExpressible(
        f"padding {padding} of {x} is neither SAME nor VALID to TFLite; pad by an operator of its "
        "own, or use ONNX or StableHLO"
    )


def _strides(options: Any, strides: Pair) -> Any:
    options.strideH, options.strideW = strides
    return options


def _conv(writer: Any, operator: ops.Conv2D, site: Site) -> None:
    x, weight = site.inputs[:2]
    kh, kw, depth, _ = weight.constant.shape
    depthwise = depth == 1 and operator.groups > 1
    kind = "DepthwiseConv2DOptionsT" if depthwise else "Conv2DOptionsT"
    options = _strides(getattr(writer.schema, kind)(), operator.strides)
    options.dilationHFactor, options.dilationWFactor = operator.dilation
    options.padding = _rule(operator.padding, x, (kh, kw), operator.strides, operator.dilation)
    options.fusedActivationFunction = _fused(site.output)
    number = writer.tensor(x)
    if depthwise:
        options.depthMultiplier = weight.constant.shape[3] // operator.groups
        weights = writer.weights(weight, (2, 0, 1, 3), 3)
        code, version = "DEPTHWISE_CONV_2D", 5 if x.dtype == "int16" else 3
    else:
        weights = writer.weights(weight, (3, 0, 1, 2), 0)
        code, version = "CONV_2D", 6 if operator.groups > 1 else 4 if x.dtype == "int16" else 3
    writer.add(code, [number, weights, *writer.bias(site)], site.output, options, version)


def _transpose_conv(writer: Any, operator: ops.TransposeConv2D, site: Site) -> None:
    x, weight = site.inputs[:2]
    kh, kw, *_ = weight.constant.shape
    options = _strides(writer.schema.TransposeConvOptionsT(), operator.strides)
    (top, bottom), (left, right) = explicit("SAME", operator.size, (kh, kw), operator.strides)
    same = operator.padding == (top, left) and (top + bottom + left + right)
    if not same and operator.padding != (0, 0):
        raise NotExpressible(
            f"padding {operator.padding} of {site.output} is neither SAME nor VALID to TFLite; "
            "StableHLO holds it"
        )
    options.padding = 0 if same else 1
    options.fusedActivationFunction = _fused(site.output)
    shape = [1 if size is None else size for size in site.output.shape]
    size = writer.integers(f"{site.output.name}/shape", shape)
    weights = writer.weights(weight, (3, 0, 1, 2), 0)
    inputs = [size, weights, writer.tensor(x), *writer.bias(site)]
    writer.add("TRANSPOSE_CONV", inputs, site.output, options, 3)


def _dense(writer: Any, operator: ops.Dense, site: Site) -> None:
    if operator.scaling != "float64":
        raise NotExpressible(
            f"{site.output} is scaled down by the policy, LiteRT's dense kernel rounds once: set "
            "scaling to float64, or use StableHLO"
        )
    x, weight = site.inputs[:2]
    options = writer.schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = _fused(site.output)
    options.keepNumDims = len(site.output.shape) != 2
    inputs = [writer.tensor(x), writer.weights(weight, (1, 0), 0), *writer.bias(site)]
    version = 7 if x.dtype == "int16" else 5 if options.keepNumDims else 4
    writer.add("FULLY_CONNECTED", inputs, site.output, options, version)


def _binary(code: str, options: str | None) -> Write:
    def write(writer: Any, operator: Any, site: Site) -> None:
        del operator
        made = None
        if options is not None:
            made = getattr(writer.schema, options)()
            made.fusedActivationFunction = _fused(site.output)
            if site.output.dtype == "int16" and options != "MulOptionsT":
                made.potScaleInt16 = False
        else:
            _unclamped(site.output)
        version = 2 if site.output.dtype != "int16" else 4 if code == "MUL" else 3
        writer.add(code, [writer.tensor(t) for t in site.inputs], site.output, made, version)

    return write


def _pool(code: str) -> Write:
    def write(writer: Any, operator: Any, site: Site) -> None:
        (x,) = site.inputs
        options = _strides(writer.schema.Pool2DOptionsT(), operator.strides)
        options.filterHeight, options.filterWidth = operator.window
        options.padding = _rule(operator.padding, x, operator.window, operator.strides)
        options.fusedActivationFunction = _fused(site.output)
        writer.add(code, [writer.tensor(x)], site.output, options, 3 if x.dtype == "int16" else 2)

    return write


def _mean(writer: Any, operator: ops.Mean, site: Site) -> None:
    _unclamped(site.output)
    options = writer.schema.ReducerOptionsT()
    options.keepDims = operator.keep
    axes = writer.integers(f"{site.output.name}/axes", operator.axes)
    version = 3 if site.output.dtype == "int16" else 2
    writer.add("MEAN", [writer.tensor(site.inputs[0]), axes], site.output, options, version)


def _argmax(writer: Any, operator: ops.ArgMax, site: Site) -> None:
    del operator
    (x,) = site.inputs
    if x.dtype not in ("int8", "uint8"):
        raise NotExpressible(
            f"argmax of {x}, which is {x.dtype}, is not in TFLite; StableHLO holds it"
        )
    options = writer.schema.ArgMaxOptionsT()
    options.outputType = writer.schema.TensorType.INT32
    axis = writer.integers(f"{site.output.name}/axis", len(x.shape) - 1)
    writer.add("ARG_MAX", [writer.tensor(x), axis], site.output, options, 2)


def _clip(writer: Any, operator: ops.Clip, site: Site) -> None:
    del operator
    output = site.output
    for code in _CLIPS:
        if clamp(output.dtype, output.units, code) == output.range:
            version = {"int16": 3}.get(output.dtype, 2) if code in ("RELU", "RELU6") else 1
            writer.add(code, [writer.tensor(site.inputs[0])], output, None, version)
            return
    raise NotExpressible(
        f"{output} is clipped to {output.range}, which is no ReLU of TFLite; StableHLO holds it"
    )


def _leaky_relu(writer: Any, operator: ops.LeakyRelu, site: Site) -> None:
    _unclamped(site.output)
    options = writer.schema.LeakyReluOptionsT()
    options.alpha = operator.alpha
    if np.float32(operator.alpha) != operator.alpha:
        raise NotExpressible(f"alpha {operator.alpha} of {site.output} is no float32")
    writer.add("LEAKY_RELU", [writer.tensor(site.inputs[0])], site.output, options, 2)


def _lookup(writer: Any, operator: ops.Lookup, site: Site) -> None:
    x, table = site.inputs
    function, code = _TABLES.get(operator.function, (None, ""))
    if function is not None and x.dtype == site.output.dtype:
        grids = [(tensor.units.step, tensor.units.zero) for tensor in (x, site.output)]
        if (code_table(function, DTYPES[x.dtype], *grids) == table.constant).all():
            writer.add(code, [writer.tensor(x)], site.output, None, 2)
            return
    raise NotExpressible(
        f"the table {operator.function} of {site.output} is not one of TFLite's functions on "
        "TFLite's scales; StableHLO holds any table"
    )


def _softmax(writer: Any, operator: ops.Softmax, site: Site) -> None:
    _unclamped(site.output)
    options = writer.schema.SoftmaxOptionsT()
    options.beta = operator.beta
    writer.add("SOFTMAX", [writer.tensor(site.inputs[0])], site.output, options, 2)


def _reshape(writer: Any, operator: ops.Reshape, site: Site) -> None:
    del operator
    shape = [-1 if size is None else size for size in site.output.shape]
    options = writer.schema.ReshapeOptionsT()
    options.newShape = shape
    given = writer.integers(f"{site.output.name}/shape", shape)
    writer.add("RESHAPE", [writer.tensor(site.inputs[0]), given], site.output, options)


def _pad(writer: Any, operator: ops.Pad, site: Site) -> None:
    (x,) = site.inputs
    widths = writer.integers(f"{site.output.name}/widths", operator.widths)
    inputs = [writer.tensor(x), widths]
    if operator.value is None:
        writer.add("PAD", inputs, site.output, writer.schema.PadOptionsT(), 2)
        return
    data = np.asarray([operator.value], x.dtype)
    inputs.append(writer.put(f"{site.output.name}/value", (1,), x.dtype, x.units, data))
    writer.add("PADV2", inputs, site.output, writer.schema.PadV2OptionsT(), 2)


def _slice(writer: Any, operator: ops.Slice, site: Site) -> None:
    (x,) = site.inputs
    output = site.output
    rows = zip(operator.start, operator.stride, output.shape, strict=True)
    ends = [start + (1 if size is None else size) * stride for start, stride, size in rows]
    ends = [min(end, size or end) for end, size in zip(ends, x.shape, strict=True)]
    options = writer.schema.StridedSliceOptionsT()
    if x.shape[:1] == (None,):
        options.beginMask = options.endMask = 1
    named = (("begin", operator.start), ("end", ends), ("stride", operator.stride))
    numbers = [writer.integers(f"{output.name}/{name}", values) for name, values in named]
    writer.add("STRIDED_SLICE", [writer.tensor(x), *numbers], output, options, 2)


def _concat(writer: Any, operator: ops.Concat, site: Site) -> None:
    if site.output.dtype == "int32" or _fused(site.output):
        raise NotExpressible(f"{site.output} joins sums, or clamps; StableHLO holds it")
    options = writer.schema.ConcatenationOptionsT()
    options.axis = operator.axis
    inputs = [writer.tensor(tensor) for tensor in site.inputs]
    writer.add("CONCATENATION", inputs, site.output, options, 2)


def _border(code: str) -> Write:
    def write(writer: Any, operator: Any, site: Site) -> None:
        if getattr(operator, "scales", ()):
            raise NotExpressible(
                f"{site.output} meets {len(site.inputs)} terms with an offset on one grid, which "
                "TFLite rounds one by one; StableHLO holds it"
            )
        options = getattr(writer.schema, f"{code.title()}OptionsT")()
        _unclamped(site.output)
        writer.add(code, [writer.tensor(site.inputs[0])], site.output, options, 2)

    return write


WRITERS: Mapping[str, Write] = MappingProxyType(
    {
        "conv2d": _conv,
        "transpose_conv2d": _transpose_conv,
        "dense": _dense,
        "add": _binary("ADD", "AddOptionsT"),
        "sub": _binary("SUB", "SubOptionsT"),
        "mul": _binary("MUL", "MulOptionsT"),
        "maximum": _binary("MAXIMUM", None),
        "minimum": _binary("MINIMUM", None),
        "max_pool": _pool("MAX_POOL_2D"),
        "average_pool": _pool("AVERAGE_POOL_2D"),
        "mean": _mean,
        "argmax": _argmax,
        "clip": _clip,
        "leaky_relu": _leaky_relu,
        "lookup": _lookup,
        "softmax": _softmax,
        "reshape": _reshape,
        "pad": _pad,
        "slice": _slice,
        "concat": _concat,
        "quantize": _border("QUANTIZE"),
        "requantize": _border("QUANTIZE"),
        "recentre": _border("QUANTIZE"),
        "dequantize": _border("DEQUANTIZE"),
    }
)
"""By a program's word: what adds the operator to a file."""
