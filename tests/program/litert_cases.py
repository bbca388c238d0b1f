"""Programs of one operator each, drawn at random, in forms that TFLite has."""

from collections.abc import Callable

import numpy as np

from qjax.core.host import HostArray
from qjax.core.tables import code_table, logistic, tanh
from qjax.core.windows import explicit
from qjax.program import ops
from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.tensor import DTYPES, Quantization, Shape, Tensor, code_range
from qjax.program.tflite_graph import clamp

Rng = np.random.Generator


def grid(rng: Rng, dtype: str, scale: float | None = None) -> Quantization:
    """A scale that float32 holds and, but for int16, a zero point anywhere in the type."""
    low, high = code_range(dtype)
    zero = 0 if dtype == "int16" else rng.integers(low, high + 1)
    drawn = np.float32(rng.uniform(0.01, 0.1) if scale is None else scale)
    return Quantization(HostArray(drawn), HostArray(zero))


def activation(rng: Rng, name: str, shape: Shape, dtype: str, **fields) -> Tensor:
    units = fields.pop("units", None) or grid(rng, dtype, fields.pop("scale", None))
    low, high = clamp(dtype, units, fields.pop("function", "NONE"))
    return Tensor(name, shape, dtype, units, low, high)


def constant(rng: Rng, name: str, shape: tuple[int, ...], dtype: str, units=None) -> Tensor:
    low, high = code_range(dtype)
    data = rng.integers(low, high + 1, shape).astype(DTYPES[dtype])
    return Tensor(name, shape, dtype, units or grid(rng, dtype), data=data)


def program(operator: Operator, *tensors: Tensor) -> Program:
    given = tuple(t.name for t in tensors if t.data is None and t.name != operator.output)
    return Program(given, (operator.output,), tensors, (operator,), "gemmlowp")


def weights(rng: Rng, shape: tuple[int, ...], dtype: str, fan_in: int) -> list[Tensor]:
    """Weights and bias: symmetric by channel, or for uint8 with one scale and a zero point."""
    channels = shape[-1]
    if dtype == "uint8":
        weight = constant(rng, "w", shape, "uint8", grid(rng, "uint8"))
    else:
        scales = rng.uniform(0.002, 0.02, channels).astype(np.float32)
        units = Quantization(HostArray(scales), HostArray(np.zeros(channels)), len(shape) - 1)
        data = rng.integers(-127, 128, shape).astype(np.int8)
        weight = Tensor("w", shape, "int8", units, data=data)
    reach = 2000 * fan_in
    bias = rng.integers(-reach, reach + 1, channels).astype(np.int32)
    return [weight, Tensor("b", (channels,), "int32", data=bias)]


def output_scale(dtype: str, weight: Tensor, fan_in: int) -> float:
    """A scale that spreads the sums of random codes over the output's codes, some beyond."""
    spread = 60 * 70 * np.sqrt(fan_in) * float(np.mean(weight.units.scale.value)) * 0.05
    return spread / (10000 if dtype == "int16" else 50)


def conv(
    dtype: str,
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    channels: tuple[int, int] = (4, 6),
    function: str = "NONE",
) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        size, fan_in = (9, 10), kernel[0] * kernel[1] * channels[0] // groups
        scale = 0.0005 if dtype == "int16" else None
        x = activation(rng, "x", (None, *size, channels[0]), dtype, scale=scale)
        shape = (*kernel, channels[0] // groups, channels[1])
        constants = weights(rng, shape, "uint8" if dtype == "uint8" else "int8", fan_in)
        pads = explicit(padding, size, kernel, strides, dilation)  # pyright: ignore
        operator = ops.Conv2D(("x", "w", "b"), "y", strides, pads, dilation, groups)
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        rows, columns = (
            (n + sum(p) - span) // s + 1
            for n, p, span, s in zip(size, pads, spans, strides, strict=True)
        )
        scale = output_scale(dtype, constants[0], fan_in)
        y = activation(
            rng, "y", (None, rows, columns, channels[1]), dtype, scale=scale, function=function
        )
        return program(operator, x, *constants, y)

    return make


def transpose_conv(dtype: str, kernel: int, stride: int, padding: str) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        x = activation(rng, "x", (None, 4, 5, 3), dtype)
        constants = weights(rng, (kernel, kernel, 3, 5), dtype, 3 * kernel)
        grown = [
            n * stride + (max(kernel - stride, 0) if padding == "VALID" else 0) for n in (4, 5)
        ]
        size, strides = (grown[0], grown[1]), (stride, stride)
        (top, _), (left, _) = explicit(padding, size, (kernel, kernel), strides)  # pyright: ignore
        operator = ops.TransposeConv2D(("x", "w", "b"), "y", strides, (top, left), size)
        scale = output_scale(dtype, constants[0], 3 * kernel)
        y = activation(rng, "y", (None, *size, 5), dtype, scale=scale)
        return program(operator, x, *constants, y)

    return make


def dense(dtype: str, per_channel: bool, function: str = "NONE") -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        x = activation(rng, "x", (None, 12), dtype, scale=0.0005 if dtype == "int16" else None)
        kind = "uint8" if dtype == "uint8" else "int8"
        weight, bias = weights(rng, (12, 7), kind, 12)
        if not per_channel:
            one = grid(rng, dtype, 0.01)
            weight = Tensor("w", weight.shape, kind, one, data=weight.data)
        operator = ops.Dense(("x", "w", "b"), "y", scaling="float64")
        scale = output_scale(dtype, weight, 12)
        y = activation(rng, "y", (None, 7), dtype, scale=scale, function=function)
        return program(operator, x, weight, bias, y)

    return make


def binary(
    kind: type[Operator], dtype: str, other: str = "same", function: str = "NONE"
) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        shape = (None, 4, 5, 3)
        one = kind in (ops.Maximum, ops.Minimum)
        units = grid(rng, dtype) if one else None
        x = activation(rng, "x1", shape, dtype, units=units)
        if other == "same":
            z = activation(rng, "x2", shape, dtype, units=units)
        elif other == "constant":
            z = constant(rng, "x2", (1, 1, 1, 3), dtype, units)
        else:
            z = activation(rng, "x2", (None, 1, 1, 3), dtype, units=units)
        scale = 0.04 if kind is ops.Mul else None
        y = activation(rng, "y", shape, dtype, scale=scale, units=units, function=function)
        return program(kind(("x1", "x2"), "y"), x, z, y)

    return make


def pool(
    kind: type[ops.MaxPool] | type[ops.AveragePool],
    dtype: str,
    padding: str,
    function: str = "NONE",
) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        window, strides, size = (3, 2), (2, 1), (9, 8)
        x = activation(rng, "x", (None, *size, 5), dtype)
        pads = explicit(padding, size, window, strides)  # pyright: ignore
        operator = kind(("x",), "y", window, strides, pads)
        rows, columns = (
            (n + sum(p) - w) // s + 1
            for n, p, w, s in zip(size, pads, window, strides, strict=True)
        )
        shape = (None, rows, columns, 5)
        y = activation(rng, "y", shape, dtype, units=x.quantization, function=function)
        return program(operator, x, y)

    return make


def mean(dtype: str, axes: tuple[int, ...], keep: bool) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        x = activation(rng, "x", (None, 7, 6, 5), dtype)
        operator = ops.Mean(("x",), "y", axes, keep)
        kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        shape = kept if keep else [s for axis, s in enumerate(x.shape) if axis not in axes]
        return program(operator, x, activation(rng, "y", tuple(shape), dtype, scale=0.015))

    return make


def unary(operator: Operator, dtype: str, **fields) -> Callable[[Rng], Program]:
    """An operator whose output has the input's shape."""

    def make(rng: Rng) -> Program:
        shape = fields.get("shape", (None, 5, 4))
        x = activation(rng, "x", shape, fields.get("from_dtype", dtype))
        units = fields.get("units") or (x.quantization if fields.get("same") else None)
        y = activation(rng, "y", shape, dtype, units=units, function=fields.get("function", "NONE"))
        return program(operator, x, y)

    return make


def table(function, word: str, dtype: str) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        low, _ = code_range(dtype)
        x = activation(rng, "x", (None, 100), dtype)
        units = Quantization(HostArray(1 / 256), HostArray(low))
        if word == "tanh":
            units = Quantization(HostArray(1 / 128), HostArray(low + 128))
        y = activation(rng, "y", (None, 100), dtype, units=units)
        grids = [(tensor.units.step, tensor.units.zero) for tensor in (x, y)]
        codes = code_table(function, DTYPES[dtype], grids[0], grids[1])
        return program(
            ops.Lookup(("x", "t"), "y", word), x, Tensor("t", (256,), dtype, data=codes), y
        )

    return make


def concat(dtype: str) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        units = grid(rng, dtype) if dtype == "int8" else None
        one = activation(rng, "x1", (None, 3, 4), dtype, units=units)
        other = activation(rng, "x2", (None, 3, 6), dtype, units=units)
        y = activation(rng, "y", (None, 3, 10), dtype, units=units)
        return program(ops.Concat(("x1", "x2"), "y", 2), one, other, y)

    return make


def moved(operator: Operator, before: Shape, after: Shape, dtype: str) -> Callable[[Rng], Program]:
    """An operator that only moves codes."""

    def make(rng: Rng) -> Program:
        x = activation(rng, "x", before, dtype)
        return program(operator, x, activation(rng, "y", after, dtype, units=x.quantization))

    return make


def border(kind: type[Operator], dtype: str) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        real = Tensor("x" if kind is ops.Quantize else "y", (None, 40), "float32")
        code = activation(rng, "y" if kind is ops.Quantize else "x", (None, 40), dtype)
        pair = (real, code) if kind is ops.Quantize else (code, real)
        return program(kind(("x",), "y"), *pair)

    return make


def softmax(dtype: str, beta: float, scale: float) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        low, _ = code_range(dtype)
        x = activation(rng, "x", (None, 3, 17), dtype, scale=scale)
        units = Quantization(HostArray(1 / 256), HostArray(low))
        y = activation(rng, "y", (None, 3, 17), dtype, units=units)
        return program(ops.Softmax(("x",), "y", beta), x, y)

    return make


def argmax(dtype: str) -> Callable[[Rng], Program]:
    def make(rng: Rng) -> Program:
        x = activation(rng, "x", (None, 3, 17), dtype)
        return program(ops.ArgMax(("x",), "y"), x, Tensor("y", (None, 3), "int32"))

    return make


_EIGHT = ("int8", "uint8")
_WIDTHS = ((0, 0), (1, 2), (0, 3))

CASES: dict[str, Callable[[Rng], Program]] = {
    **{f"conv {d} same": conv(d) for d in (*_EIGHT, "int16")},
    **{
        f"conv {d} valid stride 2 relu": conv(d, (3, 2), (2, 2), "VALID", function="RELU")
        for d in _EIGHT
    },
    **{f"conv {d} dilated relu6": conv(d, dilation=(2, 3), function="RELU6") for d in _EIGHT},
    **{f"conv {d} 1x1": conv(d, (1, 1)) for d in _EIGHT},
    "conv int8 grouped": conv("int8", groups=2),
    "conv int8 many channels": conv("int8", channels=(24, 20)),
    **{f"depthwise {d}": conv(d, groups=4, channels=(4, 4)) for d in (*_EIGHT, "int16")},
    **{
        f"depthwise {d} twice, stride 2": conv(d, (2, 3), (2, 1), groups=4, channels=(4, 8))
        for d in _EIGHT
    },
    **{
        f"transposed conv {d} {k} by {s} {p}": transpose_conv(d, k, s, p)
        for d in _EIGHT
        for k, s, p in (
            (2, 2, "VALID"),
            (3, 2, "SAME"),
            (3, 2, "VALID"),
            (4, 1, "SAME"),
            (2, 3, "SAME"),
        )
    },
    "dense int8 by channel": dense("int8", per_channel=True),
    "dense int8 by channel relu": dense("int8", per_channel=True, function="RELU"),
    "dense int8": dense("int8", per_channel=False),
    "dense int16 by channel": dense("int16", per_channel=True),
    "dense int16 relu": dense("int16", per_channel=False, function="RELU"),
    "dense uint8 relu6": dense("uint8", per_channel=False, function="RELU6"),
    **{
        f"{kind.kind} {d} {other}": binary(kind, d, other)
        for kind in (ops.Add, ops.Sub, ops.Mul)
        for d in (*_EIGHT, "int16")
        for other in ("same", "constant", "broadcast")
    },
    **{
        f"{kind.kind} {d} relu": binary(kind, d, function="RELU")
        for kind in (ops.Add, ops.Sub, ops.Mul)
        for d in _EIGHT
    },
    **{
        f"{kind.kind} {d}": binary(kind, d, "constant")
        for kind in (ops.Maximum, ops.Minimum)
        for d in _EIGHT
    },
    **{
        f"{kind.kind} {d} {padding}": pool(kind, d, padding)
        for kind in (ops.MaxPool, ops.AveragePool)
        for d in (*_EIGHT, "int16")
        for padding in ("SAME", "VALID")
    },
    "average pool relu6": pool(ops.AveragePool, "int8", "SAME", "RELU6"),
    **{
        f"mean {d} {axes} {keep}": mean(d, axes, keep)
        for d in _EIGHT
        for axes, keep in (((1, 2), True), ((1, 2), False), ((3,), False), ((2,), True))
    },
    **{
        f"{word} {d}": unary(ops.Clip(("x",), "y"), d, function=word)
        for word in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
        for d in _EIGHT
    },
    **{
        f"leaky relu {d} {alpha}": unary(ops.LeakyRelu(("x",), "y", float(np.float32(alpha))), d)
        for d in (*_EIGHT, "int16")
        for alpha in (0.1, 1.5)
    },
    **{f"logistic {d}": table(logistic, "logistic", d) for d in _EIGHT},
    **{f"tanh {d}": table(tanh, "tanh", d) for d in _EIGHT},
    **{
        f"softmax {d} {beta} {s}": softmax(d, beta, s)
        for d in _EIGHT
        for beta, s in ((1.0, 0.05), (0.5, 0.3), (2.0, 0.01))
    },
    **{f"concat {d}": concat(d) for d in _EIGHT},
    **{
        f"pad {d}": moved(ops.Pad(("x",), "y", _WIDTHS), (None, 3, 4), (None, 6, 7), d)
        for d in _EIGHT
    },
    "pad with a value": moved(ops.Pad(("x",), "y", _WIDTHS, 9), (None, 3, 4), (None, 6, 7), "int8"),
    **{
        f"reshape {d}": moved(ops.Reshape(("x",), "y"), (None, 3, 4), (None, 6, 2), d)
        for d in _EIGHT
    },
    "slice": moved(
        ops.Slice(("x",), "y", (0, 1, 0), (1, 2, 3)), (None, 6, 8), (None, 3, 3), "int8"
    ),
    **{
        f"requantize {a} to {b}": unary(ops.Requantize(("x",), "y"), b, from_dtype=a)
        for a in (*_EIGHT, "int16")
        for b in (*_EIGHT, "int16")
        if not (a == "int16" and b == "uint8")
    },
    **{f"quantize {d}": border(ops.Quantize, d) for d in (*_EIGHT, "int16")},
    **{f"dequantize {d}": border(ops.Dequantize, d) for d in (*_EIGHT, "int16")},
    **{f"argmax {d}": argmax(d) for d in _EIGHT},
}
