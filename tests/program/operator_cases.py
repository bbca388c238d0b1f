"""One small program for each operator that rounds, and what it stands for in float64."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from qjax.core.host import HostArray
from qjax.core.tables import code_table, logistic, tanh
from qjax.program import ops
from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.tensor import DTYPES, Quantization, Tensor, code_range

Reals = Sequence[np.ndarray]
IMAGE = (2, 7, 6, 4)


@dataclasses.dataclass(frozen=True)
class Case:
    """An operator with its tensors.

    Attributes:
        operator: reads "x" (and "x2"), writes "y".
        shapes: of the activations that it reads.
        result: of the output.
        real: the output's real numbers from the inputs' and the constants'.
        constants: tensors.
        scale: of the output; the default fits numbers of a convolution.
    """

    operator: Operator
    shapes: tuple[tuple[int, ...], ...]
    result: tuple[int, ...]
    real: Callable[[Reals], np.ndarray]
    constants: tuple[Tensor, ...] = ()
    scale: float = 0.0217

    def program(self, dtype: str, policy: str, powers: bool = False) -> Program:
        """The operator alone, asymmetric grids of one type; scales of powers of two if asked."""
        zero = {"int8": -11, "uint8": 117, "int16": 0}[dtype]
        steps = (2**-6, 2**-7) if powers else (0.0173, 0.0091)
        scale = 2.0 ** np.round(np.log2(self.scale)) if powers else self.scale
        if dtype == "int16":
            steps, scale = [step / 256 for step in steps], scale / 256
        inputs = [
            Tensor(name, shape, dtype, Quantization(HostArray(step), HostArray(zero + 5 * place)))
            for place, (name, shape, step) in enumerate(
                zip(self.operator.inputs, self.shapes, steps, strict=False)
            )
        ]
        if dtype == "int16":
            inputs = [dataclasses.replace(t, quantization=grid(t.units.step)) for t in inputs]
        output = Tensor(
            "y",
            self.result,
            dtype,
            Quantization(HostArray(scale), HostArray(zero + 3 * bool(zero))),
        )
        names = tuple(tensor.name for tensor in inputs)
        constants = tuple(_with_powers(c) if powers else c for c in self.constants)
        return Program(names, ("y",), (*inputs, *constants, output), (self.operator,), policy)


def _with_powers(tensor: Tensor) -> Tensor:
    if tensor.quantization is None:
        return tensor
    units = tensor.units
    scale = 2.0 ** np.round(np.log2(units.scale.value))
    return dataclasses.replace(
        tensor, quantization=Quantization(HostArray(scale), units.zero_point, units.axis)
    )


def grid(scale: ArrayLike, zero: ArrayLike = 0.0, axis: int | None = None) -> Quantization:
    """Units of a tensor."""
    return Quantization(HostArray(scale), HostArray(zero), axis)


def inputs_of(program: Program, seed: int = 0) -> dict[str, np.ndarray]:
    """Random codes over the whole range, both ends among them."""
    rng = np.random.default_rng(seed)
    values = {}
    for name in program.inputs:
        tensor = program[name]
        low, high = code_range(tensor.dtype)
        drawn = rng.integers(low, high, tensor.shape, endpoint=True)  # pyright: ignore
        drawn.flat[0], drawn.flat[-1] = low, high
        values[name] = drawn.astype(DTYPES[tensor.dtype])
    return values


def decoded(tensor: Tensor, codes: np.ndarray) -> np.ndarray:
    """Real numbers of codes, channels last."""
    return tensor.units.scale.value * (codes - tensor.units.zero_point.value)


def weights(shape: tuple[int, ...], kind: str) -> Tensor:
    """Constant weights: symmetric by channel, asymmetric by channel, asymmetric for the tensor."""
    rng = np.random.default_rng(len(shape))
    o, axis = shape[-1], len(shape) - 1
    scales = rng.uniform(0.003, 0.012, o)
    if kind == "symmetric":
        data = rng.integers(-127, 128, shape).astype(np.int8)
        return Tensor("w", shape, "int8", grid(scales, np.zeros(o), axis), data=data)
    if kind == "4 bits":
        data = rng.integers(-8, 8, shape).astype(np.int8)
        return Tensor("w", shape, "int8", grid(8 * scales, np.zeros(o), axis), data=data)
    if kind == "asymmetric":
        data = rng.integers(-128, 128, shape).astype(np.int8)
        zeros = np.round(rng.uniform(-90, 90, o))
        return Tensor("w", shape, "int8", grid(scales, zeros, axis), data=data)
    data = rng.integers(0, 256, shape).astype(np.uint8)
    return Tensor("w", shape, "uint8", grid(0.0071, 131.0), data=data)


def bias(o: int) -> Tensor:
    data = np.random.default_rng(o).integers(-900, 900, o).astype(np.int32)
    return Tensor("b", (o,), "int32", data=data)


def spread(x: np.ndarray, kernel: np.ndarray, strides, size) -> np.ndarray:
    """A transposed convolution in float64, nothing cut off."""
    (n, h, w, _), (kh, kw, _, o) = x.shape, kernel.shape
    out = np.zeros((n, h * strides[0] + kh, w * strides[1] + kw, o))
    for a, b, i, j in np.ndindex(h, w, kh, kw):
        out[:, a * strides[0] + i, b * strides[1] + j] += x[:, a, b] @ kernel[i, j]
    return out[:, : size[0], : size[1]]


def convolved(x: np.ndarray, kernel: np.ndarray, op: ops.Conv2D) -> np.ndarray:
    """A convolution in float64: groups, strides, dilation, padding."""
    kh, kw, ci, o = kernel.shape
    x = np.pad(x, ((0, 0), *op.padding, (0, 0)))
    spans = [(k - 1) * d + 1 for k, d in zip((kh, kw), op.dilation, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(x, spans, (1, 2))  # pyright: ignore
    seen = seen[:, :: op.strides[0], :: op.strides[1], :, :: op.dilation[0], :: op.dilation[1]]
    seen = seen.reshape(*seen.shape[:3], op.groups, ci, kh, kw)
    grouped = kernel.reshape(kh, kw, ci, op.groups, o // op.groups)
    return np.einsum("nabgcij,ijcgo->nabgo", seen, grouped).reshape(*seen.shape[:3], o)


def _conv(kernel: tuple[int, ...], kind: str, result: tuple[int, ...], **attributes) -> Case:
    op = ops.Conv2D(("x", "w", "b"), "y", **attributes)
    return Case(
        op,
        (IMAGE,),
        result,
        lambda reals: convolved(reals[0], reals[1], op) + reals[2],
        (weights(kernel, kind), bias(kernel[-1])),
        0.151,
    )


SAME = ((1, 1), (1, 1))
CASES: dict[str, Case] = {
    "conv": _conv((3, 3, 4, 6), "symmetric", (2, 7, 6, 6), padding=SAME),
    "conv of 4 bits": _conv((3, 3, 4, 6), "4 bits", (2, 7, 6, 6), padding=SAME),
    "conv, stride, uneven padding": _conv(
        (3, 2, 4, 5), "asymmetric", (2, 4, 4, 5), strides=(2, 2), padding=((0, 2), (1, 1))
    ),
    "conv, dilation": _conv((3, 3, 4, 3), "tensor", (2, 3, 2, 3), dilation=(2, 2)),
    "conv, groups": _conv((3, 3, 2, 6), "asymmetric", (2, 7, 6, 6), padding=SAME, groups=2),
    "depthwise": _conv((3, 3, 1, 8), "symmetric", (2, 7, 6, 8), padding=SAME, groups=4),
    "dense": Case(
        ops.Dense(("x", "w", "b"), "y"),
        ((5, 40),),
        (5, 7),
        lambda reals: reals[0] @ reals[1] + reals[2],
        (weights((40, 7), "symmetric"), bias(7)),
        0.151,
    ),
    "transposed conv 2x2": Case(
        ops.TransposeConv2D(("x", "w", "b"), "y", (2, 2), (0, 0), (14, 12)),
        (IMAGE,),
        (2, 14, 12, 3),
        lambda reals: spread(reals[0], reals[1], (2, 2), (14, 12)) + reals[2],
        (weights((2, 2, 4, 3), "symmetric"), bias(3)),
        0.051,
    ),
    "transposed conv 3x3": Case(
        ops.TransposeConv2D(("x", "w", "b"), "y", (2, 2), (0, 0), (15, 13)),
        (IMAGE,),
        (2, 15, 13, 3),
        lambda reals: spread(reals[0], reals[1], (2, 2), (15, 13)) + reals[2],
        (weights((3, 3, 4, 3), "asymmetric"), bias(3)),
        0.087,
    ),
    "add": Case(
        ops.Add(("x", "x2"), "y"), (IMAGE, IMAGE), IMAGE, lambda reals: reals[0] + reals[1]
    ),
    "add, broadcast": Case(
        ops.Add(("x", "x2"), "y"), (IMAGE, (4,)), IMAGE, lambda reals: reals[0] + reals[1]
    ),
    "sub": Case(
        ops.Sub(("x", "x2"), "y"), (IMAGE, IMAGE), IMAGE, lambda reals: reals[0] - reals[1]
    ),
    "mul": Case(
        ops.Mul(("x", "x2"), "y"), (IMAGE, IMAGE), IMAGE, lambda reals: reals[0] * reals[1]
    ),
    "mean": Case(
        ops.Mean(("x",), "y", (1, 2)),
        (IMAGE,),
        (2, 4),
        lambda reals: reals[0].mean((1, 2)),
        (),
        0.003,
    ),
    "clip": Case(ops.Clip(("x",), "y"), (IMAGE,), IMAGE, lambda reals: reals[0]),
    "requantize": Case(ops.Requantize(("x",), "y"), (IMAGE,), IMAGE, lambda reals: reals[0]),
    "leaky relu": Case(
        ops.LeakyRelu(("x",), "y", 0.13),
        (IMAGE,),
        IMAGE,
        lambda reals: np.where(reals[0] >= 0, reals[0], 0.13 * reals[0]),
    ),
}
ONE_TERM = [name for name in CASES if not name.startswith(("add", "sub"))]
"""Those that `thresholds` can round: it compares one integer with thresholds."""


def reals_of(case: Case, program: Program, values: dict[str, np.ndarray]) -> np.ndarray:
    """The case's output in real numbers."""
    reals = [decoded(program[name], values[name].astype(np.float64)) for name in program.inputs]
    for tensor in case.constants:
        codes = tensor.constant.astype(np.float64)
        if tensor.quantization is None:
            reals.append(program["x"].units.step * program["w"].units.scale.value * codes)
        else:
            reals.append(decoded(program[tensor.name], codes))
    return case.real(reals)


def table_program(dtype: str, function: str) -> Program:
    """A lookup."""
    curve = {"logistic": logistic, "tanh": tanh}[function]
    middle = 0 if dtype == "int8" else 128
    units = (0.041, middle + 3), (0.0079, middle)
    codes = code_table(curve, DTYPES[dtype], *units)
    tensors = (
        Tensor("x", (300,), dtype, grid(units[0][0], units[0][1])),
        Tensor("table", (256,), dtype, data=codes),
        Tensor("y", (300,), dtype, grid(units[1][0], units[1][1])),
    )
    operators = (ops.Lookup(("x", "table"), "y", function),)
    return Program(("x",), ("y",), tensors, operators, "q31_even")
