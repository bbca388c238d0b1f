"""TFLite's operators, one function each: an operator of the file to one of a program."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from qjax.core.tables import Function, code_table, logistic, tanh
from qjax.core.windows import Padding, Pair, explicit
from qjax.program import ops
from qjax.program.base import Operator
from qjax.program.tensor import DTYPES, Tensor
from qjax.program.tflite_file import FileOperator
from qjax.program.tflite_graph import FUSED, Graph, Unsupported

__all__ = ["OPERATORS", "Graph", "Unsupported"]

type Convert = Callable[[Graph, FileOperator], Operator]


def _fused(options) -> str:
    number = options.FusedActivationFunction()
    if not 0 <= number < len(FUSED):
        raise Unsupported(f"its activation function is number {number}")
    return FUSED[number]


def _sides(x: Tensor) -> Pair:
    """Rows and columns of an image."""
    if len(x.shape) != 4 or x.shape[1] is None or x.shape[2] is None:
        raise Unsupported(f"tensor {x.name!r} must have 4 axes, got shape {x.shape}")
    return x.shape[1], x.shape[2]


def _padding(options, x: Tensor, kernel: Pair, strides: Pair, dilation: Pair = (1, 1)) -> Padding:
    if min(*kernel, *strides, *dilation) < 1:
        raise Unsupported(f"window {kernel}, strides {strides} or dilation {dilation} is below 1")
    rule = {0: "SAME", 1: "VALID"}.get(options.Padding())
    if rule is None:
        raise Unsupported(f"its padding is number {options.Padding()}")
    return explicit(rule, _sides(x), kernel, strides, dilation)


def _layer(graph: Graph, source: FileOperator, weight: Tensor, place: int) -> tuple[str, ...]:
    """Names of weights and bias, the bias at a place if at all."""
    if graph.has(source.inputs, place):
        return weight.name, graph.bias(source.inputs, place).name
    return (weight.name,)


def _check_bias_type(options, x: Tensor) -> None:
    # int16 with an int32 bias accumulates, and scales down, in another way.
    if x.dtype == "int16" and options.QuantizedBiasType() == 2:
        raise Unsupported("int16 activations with an int32 accumulator")


def _conv(graph: Graph, source: FileOperator) -> Operator:
    options = source.options("Conv2DOptions")
    x = graph.given(source.inputs, 0)
    _check_bias_type(options, x)
    weight = graph.weights(source.inputs, 1, (1, 2, 3, 0), 0)
    kh, kw, depth, _ = weight.constant.shape
    groups, rest = divmod(x.shape[3] or 0, depth) if len(x.shape) == 4 else (0, 1)
    if rest or not groups:
        raise Unsupported(f"{depth} channels of weights {weight.name!r} do not fit {x.shape}")
    strides = options.StrideH(), options.StrideW()
    dilation = options.DilationHFactor(), options.DilationWFactor()
    padding = _padding(options, x, (kh, kw), strides, dilation)
    names = (x.name, *_layer(graph, source, weight, 2))
    output = graph.output(source.outputs, _fused(options))
    return ops.Conv2D(names, output.name, strides, padding, dilation, groups)


def _depthwise(graph: Graph, source: FileOperator) -> Operator:
    options = source.options("DepthwiseConv2DOptions")
    x = graph.given(source.inputs, 0)
    weight = graph.weights(source.inputs, 1, (1, 2, 0, 3), 3)
    kh, kw, one, _ = weight.constant.shape
    if one != 1 or len(x.shape) != 4:
        raise Unsupported(f"weights {weight.name!r} must begin with an axis of 1")
    strides = options.StrideH(), options.StrideW()
    dilation = options.DilationHFactor(), options.DilationWFactor()
    padding = _padding(options, x, (kh, kw), strides, dilation)
    names = (x.name, *_layer(graph, source, weight, 2))
    output = graph.output(source.outputs, _fused(options))
    return ops.Conv2D(names, output.name, strides, padding, dilation, groups=x.shape[3] or 0)


def _transpose_conv(graph: Graph, source: FileOperator) -> Operator:
    options = source.options("TransposeConvOptions")
    x = graph.given(source.inputs, 2)
    _check_bias_type(options, x)
    weight = graph.weights(source.inputs, 1, (1, 2, 3, 0), 0)
    names = (x.name, *_layer(graph, source, weight, 3))
    output = graph.output(source.outputs, _fused(options))
    size, strides = _sides(output), (options.StrideH(), options.StrideW())
    kh, kw, *_ = weight.constant.shape
    # The padding of the convolution that leads from the output back to the input.
    (top, _), (left, _) = _padding(options, output, (kh, kw), strides)
    return ops.TransposeConv2D(names, output.name, strides, (top, left), size)


def _dense(graph: Graph, source: FileOperator) -> Operator:
    options = source.options("FullyConnectedOptions")
    if options.WeightsFormat():
        raise Unsupported("its weights are shuffled")
    x = graph.given(source.inputs, 0)
    _check_bias_type(options, x)
    weight = graph.weights(source.inputs, 1, (1, 0), 0)
    names = (x.name, *_layer(graph, source, weight, 2))
    output = graph.output(source.outputs, _fused(options))
    return ops.Dense(names, output.name, scaling="float64")


def _binary(kind: type[Operator], options: str | None) -> Convert:
    def convert(graph: Graph, source: FileOperator) -> Operator:
        activation = "NONE"
        if options is not None:
            read = source.options(options)
            activation = _fused(read)
            first = graph.given(source.inputs, 0)
            if first.dtype == "int16" and options != "MulOptions" and read.PotScaleInt16():
                raise Unsupported("int16 with scales that are powers of two")
        names = tuple(graph.given(source.inputs, place).name for place in range(2))
        return kind(names, graph.output(source.outputs, activation).name)

    return convert


def _concat(graph: Graph, source: FileOperator) -> Operator:
    options = source.options("ConcatenationOptions")
    if _fused(options) != "NONE":
        raise Unsupported("it has an activation function")
    names = tuple(graph.given(source.inputs, place).name for place in range(len(source.inputs)))
    output = graph.output(source.outputs)
    axis = options.Axis() + (len(output.shape) if options.Axis() < 0 else 0)
    return ops.Concat(names, output.name, axis)


def _numbers(graph: Graph, source: FileOperator, place: int) -> np.ndarray:
    return graph.constant(graph.at(source.inputs, place)).astype(np.int64)


def _pad(graph: Graph, source: FileOperator) -> Operator:
    x = graph.given(source.inputs, 0)
    widths = _numbers(graph, source, 1)
    if widths.shape != (len(x.shape), 2):
        raise Unsupported(f"its paddings have shape {widths.shape}")
    value = None
    if source.code == "PADV2":
        values = _numbers(graph, source, 2)
        if values.size != 1:
            raise Unsupported(f"it pads with {values.size} values")
        value = int(values.reshape(-1)[0])
    pairs = tuple((int(before), int(after)) for before, after in widths)
    return ops.Pad((x.name,), graph.output(source.outputs).name, pairs, value)


def _pool(kind: type[ops.MaxPool] | type[ops.AveragePool]) -> Convert:
    def convert(graph: Graph, source: FileOperator) -> Operator:
        options = source.options("Pool2DOptions")
        x = graph.given(source.inputs, 0)
        window = options.FilterHeight(), options.FilterWidth()
        strides = options.StrideH(), options.StrideW()
        padding = _padding(options, x, window, strides)
        output = graph.output(source.outputs, _fused(options))
        return kind((x.name,), output.name, window, strides, padding)

    return convert


def _mean(graph: Graph, source: FileOperator) -> Operator:
    options = source.options("ReducerOptions")
    x = graph.given(source.inputs, 0)
    rank = len(x.shape)
    axes = {int(axis) + (rank if axis < 0 else 0) for axis in _numbers(graph, source, 1).ravel()}
    output = graph.output(source.outputs)
    return ops.Mean((x.name,), output.name, tuple(sorted(axes)), bool(options.KeepDims()))


def _clip(activation: str) -> Convert:
    def convert(graph: Graph, source: FileOperator) -> Operator:
        x = graph.given(source.inputs, 0)
        return ops.Clip((x.name,), graph.output(source.outputs, activation).name)

    return convert


def _leaky_relu(graph: Graph, source: FileOperator) -> Operator:
    alpha = float(source.options("LeakyReluOptions").Alpha())
    x = graph.given(source.inputs, 0)
    return ops.LeakyRelu((x.name,), graph.output(source.outputs).name, alpha)


def _table(function: Function, word: str) -> Convert:
    def convert(graph: Graph, source: FileOperator) -> Operator:
        x = graph.given(source.inputs, 0)
        output = graph.output(source.outputs)
        if x.dtype not in ("int8", "uint8") or output.dtype != x.dtype:
            raise Unsupported(f"it takes {x.dtype} to {output.dtype}; a table takes 8 bits to 8")
        if word == "logistic" and output.units.step != 1 / 256:
            raise Unsupported(f"its output must have scale 1/256, got {output.units.step}")
        grids = [(tensor.units.step, tensor.units.zero) for tensor in (x, output)]
        codes = code_table(function, DTYPES[x.dtype], *grids)
        return ops.Lookup((x.name, graph.table(output, codes).name), output.name, word)

    return convert


def _softmax(graph: Graph, source: FileOperator) -> Operator:
    beta = float(source.options("SoftmaxOptions").Beta())
    x = graph.given(source.inputs, 0)
    return ops.Softmax((x.name,), graph.output(source.outputs).name, beta)


def _reshape(graph: Graph, source: FileOperator) -> Operator:
    x = graph.given(source.inputs, 0)
    return ops.Reshape((x.name,), graph.output(source.outputs).name)


def _quantize(graph: Graph, source: FileOperator) -> Operator:
    x = graph.given(source.inputs, 0)
    kind = ops.Quantize if x.dtype == "float32" else ops.Requantize
    return kind((x.name,), graph.output(source.outputs).name)


def _dequantize(graph: Graph, source: FileOperator) -> Operator:
    x = graph.given(source.inputs, 0)
    return ops.Dequantize((x.name,), graph.output(source.outputs).name)


def _strided_slice(graph: Graph, source: FileOperator) -> Operator:
    options = source.options("StridedSliceOptions")
    if options.EllipsisMask() or options.NewAxisMask() or options.ShrinkAxisMask():
        raise Unsupported("it adds or drops axes")
    x = graph.given(source.inputs, 0)
    begin, _, stride = (_numbers(graph, source, place).ravel() for place in (1, 2, 3))
    if len(begin) != len(x.shape) or len(stride) != len(x.shape) or (stride < 1).any():
        raise Unsupported(f"it begins at {begin} with strides {stride}")
    sizes = zip(begin.tolist(), x.shape, strict=True)
    start = tuple(
        0 if options.BeginMask() >> axis & 1 or size is None else number + (number < 0) * size
        for axis, (number, size) in enumerate(sizes)
    )
    output = graph.output(source.outputs)
    return ops.Slice((x.name,), output.name, start, tuple(stride.tolist()))


def _argmax(graph: Graph, source: FileOperator) -> Operator:
    x = graph.given(source.inputs, 0)
    axis = _numbers(graph, source, 1).ravel().tolist()
    if axis not in ([-1], [len(x.shape) - 1]):
        raise Unsupported(f"it runs along axis {axis}, not the last one")
    return ops.ArgMax((x.name,), graph.output(source.outputs).name)


OPERATORS: Mapping[str, tuple[int, Convert]] = MappingProxyType(
    {
        "CONV_2D": (8, _conv),
        "DEPTHWISE_CONV_2D": (7, _depthwise),
        "TRANSPOSE_CONV": (5, _transpose_conv),
        "FULLY_CONNECTED": (12, _dense),
        "ADD": (5, _binary(ops.Add, "AddOptions")),
        "SUB": (5, _binary(ops.Sub, "SubOptions")),
        "MUL": (7, _binary(ops.Mul, "MulOptions")),
        "MAXIMUM": (4, _binary(ops.Maximum, None)),
        "MINIMUM": (4, _binary(ops.Minimum, None)),
        "CONCATENATION": (4, _concat),
        "PAD": (4, _pad),
        "PADV2": (4, _pad),
        "MAX_POOL_2D": (3, _pool(ops.MaxPool)),
        "AVERAGE_POOL_2D": (3, _pool(ops.AveragePool)),
        "MEAN": (3, _mean),
        "RELU": (3, _clip("RELU")),
        "RELU6": (3, _clip("RELU6")),
        "RELU_N1_TO_1": (1, _clip("RELU_N1_TO_1")),
        "RELU_0_TO_1": (1, _clip("RELU_0_TO_1")),
        "LEAKY_RELU": (2, _leaky_relu),
        "LOGISTIC": (3, _table(logistic, "logistic")),
        "TANH": (3, _table(tanh, "tanh")),
        "SOFTMAX": (3, _softmax),
        "RESHAPE": (1, _reshape),
        "SQUEEZE": (2, _reshape),
        "EXPAND_DIMS": (1, _reshape),
        "QUANTIZE": (4, _quantize),
        "DEQUANTIZE": (6, _dequantize),
        "STRIDED_SLICE": (4, _strided_slice),
        "ARG_MAX": (3, _argmax),
    }
)
"""By the schema's word: the highest version that is understood, and what translates it."""
