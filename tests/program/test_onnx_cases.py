"""ONNX's own cases of its quantization operators: ours give the codes that its tests ask for."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.run import runner
from qjax.program.tensor import DTYPES, Quantization, Tensor

onnx = pytest.importorskip("onnx", reason="needs the extra: pip install -e '.[export]'")
POLICY = "f32_even"
NOT_BUILT = {
    "e4m3fn": "an 8-bit float is no integer",
    "e5m2": "an 8-bit float is no integer",
    "float4e2m1": "a 4-bit float is no integer",
    "uint16": "no runtime here computes with unsigned 16-bit codes",
    "blocked": "a scale for each block of a contracted axis cannot leave an integer sum",
    "dynamic": "a scale taken from the input at run time is a float",
}
"""Parts of case names, and why no program has them."""


def cases() -> list[Any]:
    """The quantization cases among all of ONNX's."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cases that are not ours
        found = collect_testcases(None)
    words = ("quant", "matmulinteger", "convinteger", "qlinear")
    return [case for case in found if any(word in case.name for word in words)]


ALL = cases()
BUILT = [case for case in ALL if not any(word in case.name for word in NOT_BUILT)]


def array(value: Any) -> np.ndarray:
    """Values of an input or output; narrow integers in bytes."""
    if not isinstance(value, np.ndarray | np.generic):
        value = onnx.numpy_helper.to_array(value)
    widened = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}
    array = np.asarray(value)
    return array.astype(widened.get(array.dtype.name, array.dtype))


def limits(value: Any) -> tuple[int, int] | None:
    """The range of a narrow integer type."""
    name = "" if isinstance(value, np.ndarray) else onnx.numpy_helper.to_array(value).dtype.name
    if name[-1:] not in ("2", "4"):
        return None
    bits = int(name[-1])
    return (0, 2**bits - 1) if name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def grid(scale: ArrayLike, zero: ArrayLike, axis: int | None = None) -> Quantization:
    scale, zero = (
        np.squeeze(np.asarray(scale, np.float64)),
        np.squeeze(np.asarray(zero, np.float64)),
    )
    return Quantization(HostArray(scale), HostArray(zero), axis)


def run(operator: Operator, values: dict[str, np.ndarray], *tensors: Tensor) -> np.ndarray:
    program = Program(tuple(values), ("y",), tensors, (operator,), POLICY)
    return np.asarray(runner(program)(values)["y"])


def given(
    name: str, value: np.ndarray, units: Quantization | None, ends: tuple[int, int] | None = None
) -> Tensor:
    return Tensor(name, value.shape, value.dtype.name, units, *(ends or (None, None)))


def constant(value: np.ndarray, scale, zero) -> Tensor:
    axis = value.ndim - 1 if np.size(scale) > 1 else None
    if np.size(zero) > 1 and np.size(scale) == 1:
        scale, axis = np.full(np.size(zero), float(np.squeeze(scale))), value.ndim - 1
    return Tensor("w", value.shape, value.dtype.name, grid(scale, zero, axis), data=value)


def convolve(case: Any, inputs: list[np.ndarray], expected: np.ndarray) -> np.ndarray:
    """ConvInteger and QLinearConv, channels moved last and back."""
    (node,) = case.model.graph.node
    if node.op_type == "ConvInteger":
        x, w, zx, *zw = inputs
        zw = zw[0] if zw else np.uint8(0)
        scales = 1.0, 1.0, 1.0
        zy = np.float64(0)
    else:
        x, sx, zx, w, sw, zw, sy, zy = inputs
        scales = tuple(float(np.squeeze(s)) for s in (sx, sw, sy))
    pads = next((list(a.ints) for a in node.attribute if a.name == "pads"), [0] * 4)
    operator = ops.Conv2D(("x", "w"), "y", padding=((pads[0], pads[2]), (pads[1], pads[3])))
    x, w = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0)
    n, o, rows, columns = expected.shape
    many = expected.dtype == np.int32 and o > 1
    y_grid = grid(np.ones(o), np.zeros(o), 3) if many else grid(scales[2], zy)
    y = Tensor("y", (n, rows, columns, o), expected.dtype.name, y_grid)
    tensors = given("x", x, grid(scales[0], zx)), constant(w, scales[1], zw), y
    return run(operator, {"x": x}, *tensors).transpose(0, 3, 1, 2)


def multiply(case: Any, inputs: list[np.ndarray], expected: np.ndarray) -> np.ndarray:
    """MatMulInteger and QLinearMatMul, each matrix of a stack by itself."""
    (node,) = case.model.graph.node
    if node.op_type == "MatMulInteger":
        x, w, zx, zw = inputs
        sx = sw = sy = np.float32(1)
        zy = np.float64(0)
    else:
        x, sx, zx, w, sw, zw, sy, zy = inputs

    def one(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        y = Tensor("y", (len(x), w.shape[1]), expected.dtype.name, grid(sy, zy))
        tensors = given("x", x, grid(sx, zx)), constant(w, sw, zw), y
        return run(ops.Dense(("x", "w"), "y"), {"x": x}, *tensors)

    if x.ndim == 2:
        return one(x, w)
    return np.stack([one(a, b) for a, b in zip(x, w, strict=True)])


def slices(value: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> Iterator[tuple]:
    """Each part of a tensor that has one scale."""
    if np.size(scale) == 1:
        yield (...,), scale, zero
        return
    for place in range(np.size(scale)):
        where = (slice(None),) * (axis % value.ndim) + (place,)
        yield where, scale[place], zero[place]


def convert(case: Any, inputs: list[np.ndarray], expected: np.ndarray) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear, each channel by itself."""
    (node,) = case.model.graph.node
    x, scale, *zero = inputs
    into = node.op_type == "QuantizeLinear"
    narrow = limits(case.data_sets[0][1][0] if into else case.data_sets[0][0][0])
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    out = np.empty_like(expected)
    for where, s, z in slices(x, scale, zero[0], axis):
        part, units = np.ascontiguousarray(x[where]), grid(s, z)
        shape, kind = part.shape, expected.dtype.name
        if into:
            tensors = given("x", part, None), given("y", np.empty(shape, kind), units, narrow)
            out[where] = run(ops.Quantize(("x",), "y"), {"x": part}, *tensors)
        else:
            tensors = given("x", part, units, narrow), Tensor("y", shape, kind)
            out[where] = run(ops.Dequantize(("x",), "y"), {"x": part}, *tensors)
    return out


MAKERS: dict[str, Callable[[Any, list[np.ndarray], np.ndarray], np.ndarray]] = {
    "ConvInteger": convolve,
    "QLinearConv": convolve,
    "MatMulInteger": multiply,
    "QLinearMatMul": multiply,
    "QuantizeLinear": convert,
    "DequantizeLinear": convert,
}


def test_all_cases_are_known():
    assert (len(ALL), len(BUILT)) == (45, 26)
    assert all(any(word in case.name for case in ALL) for word in NOT_BUILT)


@pytest.mark.parametrize("case", BUILT, ids=lambda case: case.name)
def test_our_codes_are_those_of_the_case(case: Any):
    (inputs, outputs), *_ = case.data_sets
    expected = array(outputs[0])
    assert expected.dtype.name in DTYPES
    found = MAKERS[case.model.graph.node[0].op_type](case, [array(v) for v in inputs], expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
