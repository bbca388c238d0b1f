"""onnxruntime's own arithmetic beside `f32_even`, every pair of codes."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.comparison import RuntimeUnfit, compare_onnx
from qjax.program.onnx.rules import fma, mean_bounds
from qjax.program.onnx.write import write_onnx
from qjax.program.program import Program
from qjax.program.tensor import DTYPES, Quantization, Tensor
from tests.program.litert_cases import activation, grid
from tests.program.litert_cases import program as program_of


def as_float32(exact: Fraction) -> np.float32:
    """The nearest float32, ties to even."""
    near = np.float32(float(exact))
    ends = (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf)))

    def key(value: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(value)) - exact), int(value.view(np.int32)) & 1

    return min(ends, key=key)


def test_fma_rounds_once():
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-255, 255, 400).astype(np.float32) for _ in range(2))
    # Sums near zero, where what a product of two roundings loses is most of the result.
    c = np.where(rng.random(400) < 0.5, -a * b, rng.uniform(-1e3, 1e3, 400)).astype(np.float32)
    rows = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    exact = [as_float32(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in rows]
    np.testing.assert_array_equal(fma(a, b, c), np.array(exact, np.float32))
    assert np.count_nonzero(a * b + c != fma(a, b, c)) > 50


def compare(program: Program, folder: Path, *values: np.ndarray) -> None:
    """Write, run in onnxruntime on given codes, and compare."""
    pytest.importorskip("onnx", reason="comes with qjax[export]")
    pytest.importorskip("onnxruntime", reason="the reference; it comes with qjax[export]")
    program = dataclasses.replace(program, policy="f32_even")
    write_onnx(program, folder / "net.onnx")
    given = [value.reshape(1, 1, -1) for value in values]
    try:
        result = compare_onnx(folder / "net.onnx", 1, lambda inputs, start, count: given)
    except RuntimeUnfit as error:
        pytest.skip(str(error))
    (row,) = result.results
    assert (row.compared, row.mismatched) == (given[0].size, 0)


@pytest.mark.parametrize("kind", [ops.Add, ops.Mul])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_every_pair_of_codes_meets_as_there(kind, dtype: str, seed: int, tmp_path: Path):
    rng = np.random.default_rng(seed)
    # Scales that make ties, and others.
    units = [grid(rng, dtype, scale if seed < 2 else None) for scale in (0.5, 0.25, 1.0)]
    tensors = [
        activation(rng, name, (None, 2**16), dtype, units=each)
        for name, each in zip(("x1", "x2", "y"), units, strict=True)
    ]
    program = program_of(kind(("x1", "x2"), "y"), *tensors)
    pairs = np.arange(2**16)
    one, other = ((part.astype(np.uint8)).view(DTYPES[dtype]) for part in (pairs >> 8, pairs & 255))
    compare(program, tmp_path, one, other)


@pytest.mark.parametrize("seed", range(4))
def test_every_code_changes_its_grid_as_there(seed: int, tmp_path: Path):
    rng = np.random.default_rng(seed)
    scales = (1.0, 2.0) if seed == 0 else (None, None)
    names = zip(("x", "y"), scales, strict=True)
    tensors = [
        activation(rng, name, (None, 256), "uint8", units=grid(rng, "uint8", scale))
        for name, scale in names
    ]
    program = program_of(ops.Requantize(("x",), "y"), *tensors)
    compare(program, tmp_path, np.arange(256).astype(np.uint8))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slope", [0.01, 0.25, -0.5])
def test_every_code_leaks_as_there(slope: float, seed: int, tmp_path: Path):
    rng = np.random.default_rng(seed)
    scales = (1.0, 2.0) if seed == 0 else (None, None)
    tensors = [
        activation(rng, name, (None, 256), "int8", units=grid(rng, "int8", scale))
        for name, scale in zip(("x", "y"), scales, strict=True)
    ]
    program = program_of(ops.LeakyRelu(("x",), "y", float(np.float32(slope))), *tensors)
    compare(program, tmp_path, np.arange(256).astype(np.uint8).view(np.int8))


@pytest.mark.parametrize(("step", "zero", "count"), [(0.5, 4, 4), (0.0371, 9, 9)])
def test_bounds_of_a_mean_are_where_its_code_changes(step: float, zero: int, count: int):
    """Each bound has its code, and the float32 number below it the code before."""
    scale = np.float32(step)
    y = Tensor("y", (1,), "uint8", Quantization(HostArray(scale), HostArray(float(zero))))
    bounds = mean_bounds(count, y)
    assert bounds.shape == (257,) and np.isneginf(bounds[0]) and np.isposinf(bounds[-1])

    def code(total: np.ndarray) -> np.ndarray:
        return np.rint(total / np.float32(count) / scale + np.float32(zero))

    np.testing.assert_array_equal(code(bounds[1:-1]), np.arange(1, 256))
    below = np.nextafter(bounds[1:-1], np.float32(-np.inf))
    np.testing.assert_array_equal(code(below), np.arange(255))


def test_a_mean_divides_in_float32():
    """S_x / (S_y n) in float32 is not S_x / S_y / n for these."""
    from qjax.program.onnx.rules import mean_scale

    x, y = (
        Tensor(name, (None, 1, 1, 1), "uint8", Quantization(HostArray(scale), HostArray(0.0)))
        for name, scale in (("x", np.float32(0.0213)), ("y", np.float32(0.0107)))
    )
    found = {n: float(mean_scale(x, y, n)) for n in range(1, 200)}
    other = {n: np.float32(np.float32(0.0213) / np.float32(0.0107)) / np.float32(n) for n in found}
    assert any(found[n] != float(other[n]) for n in found)
