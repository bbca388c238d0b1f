"""Every operator against onnxruntime, through a file that it runs and that ONNX's checker takes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.base import NotExpressible
from qjax.program.comparison import RuntimeUnfit, compare_onnx, random_inputs
from qjax.program.onnx.read import read_onnx
from qjax.program.onnx.rules import sigmoid_table
from qjax.program.onnx.write import write_onnx
from qjax.program.program import Program
from qjax.program.run import runner
from qjax.program.tensor import Quantization, Tensor, code_range
from tests.program.litert_cases import (
    CASES,
    activation,
    argmax,
    binary,
    concat,
    conv,
    grid,
    mean,
    moved,
    pool,
    unary,
)
from tests.program.litert_cases import program as program_of

onnx = pytest.importorskip("onnx", reason="comes with qjax[export]")
pytest.importorskip("onnxruntime", reason="the reference; it comes with qjax[export]")

Make = Callable[[np.random.Generator], Program]


def regridded(make: Make) -> Make:
    """The same with the output on a grid of its own."""

    def remade(rng: np.random.Generator) -> Program:
        program = make(rng)
        return with_units(program, {program.outputs[0]: grid(rng, "int8")})

    return remade


def apart(make: Make) -> Make:
    """The same with every tensor on a grid of its own."""

    def remade(rng: np.random.Generator) -> Program:
        program = make(rng)
        return with_units(program, {t.name: grid(rng, "int8") for t in program.tensors})

    return remade


def with_units(program: Program, units: dict[str, Quantization]) -> Program:
    tensors = tuple(
        dataclasses.replace(t, quantization=units.get(t.name, t.quantization))
        for t in program.tensors
    )
    # Only onnxruntime's arithmetic has such operators.
    return dataclasses.replace(program, tensors=tensors, policy="f32_even")


IMAGE = (None, 5, 6, 3)
MADE = {
    "conv": conv("int8"),
    "conv strided, padded by one side": conv("int8", (3, 2), (2, 1)),
    "conv dilated": conv("int8", dilation=(2, 3), padding="VALID"),
    "conv grouped": conv("int8", groups=2),
    "conv of many channels": conv("int8", (1, 1), channels=(24, 20)),
    "depthwise": conv("int8", groups=4, channels=(4, 4)),
    "depthwise, twice": conv("int8", (2, 3), (2, 1), groups=4, channels=(4, 8)),
    "dense": CASES["dense int8 by channel"],
    "add": binary(ops.Add, "int8"),
    "add that broadcasts": binary(ops.Add, "int8", "broadcast"),
    "mul": binary(ops.Mul, "int8"),
    "mul that broadcasts": binary(ops.Mul, "int8", "broadcast"),
    "leaky relu": unary(ops.LeakyRelu(("x",), "y", float(np.float32(0.1))), "int8"),
    "average pool": pool(ops.AveragePool, "int8", "VALID"),
    "average pool, padded": pool(ops.AveragePool, "int8", "SAME"),
    "average pool, regridded": regridded(pool(ops.AveragePool, "int8", "SAME")),
    "concat of grids": apart(concat("int8")),
    "mean": mean("int8", (1, 2), True),
    "max pool": pool(ops.MaxPool, "int8", "SAME"),
    "requantize": CASES["requantize int8 to int8"],
    "quantize": CASES["quantize int8"],
    "dequantize": CASES["dequantize int8"],
    "reshape": CASES["reshape int8"],
    "reshape of an image": moved(ops.Reshape(("x",), "y"), IMAGE, (None, 90), "int8"),
    "concat": CASES["concat int8"],
    "pad of an image": moved(
        ops.Pad(("x",), "y", ((0, 0), (1, 2), (0, 3), (4, 0)), -7), IMAGE, (None, 8, 9, 7), "int8"
    ),
    "pad with a value": moved(
        ops.Pad(("x",), "y", ((0, 0), (1, 2), (0, 3)), 9), (None, 3, 4), (None, 6, 7), "int8"
    ),
    "slice of an image": moved(
        ops.Slice(("x",), "y", (0, 1, 0, 1), (1, 2, 3, 1)), IMAGE, (None, 2, 2, 2), "int8"
    ),
    "argmax": argmax("int8"),
}


def unsigned(program: Program) -> Program:
    """The same with uint8 activations; weights stay signed."""

    def moved(tensor: Tensor) -> Tensor:
        units = tensor.quantization
        if tensor.data is not None or tensor.dtype != "int8":
            return tensor
        assert units is not None
        raised = Quantization(units.scale, HostArray(units.zero_point.value + 128))
        ends = [end + 128 for end in tensor.range]
        return Tensor(tensor.name, tensor.shape, "uint8", raised, ends[0], ends[1])

    operators = [
        dataclasses.replace(op, value=op.value + 128)
        if isinstance(op, ops.Pad) and op.value is not None
        else op
        for op in program.operators
    ]
    tensors = tuple(moved(tensor) for tensor in program.tensors)
    return dataclasses.replace(program, tensors=tensors, operators=tuple(operators))


def case(name: str, seed: int, signed: bool) -> Program:
    """A program of one operator under onnxruntime's arithmetic."""
    program = MADE[name](np.random.default_rng(seed))
    operators = tuple(
        dataclasses.replace(op, scaling="policy") if isinstance(op, ops.Dense) else op
        for op in program.operators
    )
    program = dataclasses.replace(program, operators=operators, policy="f32_even")
    return program if signed else unsigned(program)


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("signed", [False, True], ids=["uint8", "int8"])
@pytest.mark.parametrize("name", MADE)
def test_an_operator_equals_onnxruntime(name: str, signed: bool, seed: int, tmp_path: Path):
    if name == "mean" and signed:
        pytest.skip("onnxruntime's mean is of uint8 images")
    path = tmp_path / "one.onnx"
    program = case(name, seed, signed)
    assert write_onnx(program, path) == path.stat().st_size
    try:
        result = compare_onnx(path, 4, random_inputs(seed))
    except RuntimeUnfit as error:
        pytest.skip(str(error))
    assert not result.unsupported
    (row,) = result.results
    assert row.compared > 0 and row.mismatched == 0, f"{row}\n{program}"
    assert read_onnx(path).operators[0].attributes() == program.operators[0].attributes()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("kind", [ops.Add, ops.Mul])
def test_a_constant_beside_an_image_equals_onnxruntime(kind, dtype: str, tmp_path: Path):
    program = binary(kind, dtype, "constant")(np.random.default_rng(1))
    compared(dataclasses.replace(program, policy="f32_even"), tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_sigmoid_equals_onnxruntime(dtype: str, tmp_path: Path):
    rng = np.random.default_rng(0)
    x = activation(rng, "x", (None, 2, 3, 64), dtype)
    y = activation(rng, "y", x.shape, dtype, scale=1 / 200)
    values = np.roll(sigmoid_table(x, y), code_range(dtype)[0])
    table = Tensor("t", (256,), dtype, data=values)
    program = program_of(ops.Lookup(("x", "t"), "y", "logistic"), x, table, y)
    program = dataclasses.replace(program, policy="f32_even")
    compared(program, tmp_path)
    values = values.copy()
    values[0] ^= 1
    other = dataclasses.replace(table, data=values, low=None, high=None)
    program = dataclasses.replace(program, tensors=(x, other, y))
    with pytest.raises(NotExpressible, match="QLinearSigmoid, the only one written here"):
        write_onnx(program, tmp_path / "other.onnx")


def compared(program: Program, folder: Path) -> None:
    """Write, run on random codes, compare, read back."""
    write_onnx(program, folder / "net.onnx")
    try:
        result = compare_onnx(folder / "net.onnx", 8, random_inputs())
    except RuntimeUnfit as error:
        pytest.skip(str(error))
    (row,) = result.results
    assert not result.unsupported and row.compared > 0 and row.mismatched == 0
    assert read_onnx(folder / "net.onnx").operators[0].kind == program.operators[0].kind


def test_clip_keeps_codes(tmp_path: Path):
    rng = np.random.default_rng(0)
    x = activation(rng, "x", (None, 40), "uint8")
    y = Tensor("y", x.shape, "uint8", x.quantization, 7, 15)
    program = dataclasses.replace(program_of(ops.Clip(("x",), "y"), x, y), policy="f32_even")
    write_onnx(program, tmp_path / "net.onnx")
    assert compare_onnx(tmp_path / "net.onnx", 4, random_inputs()).summary() == {
        "operators": 1,
        "compared_codes": 160,
        "mismatched_codes": 0,
        "argmax_agreement": 1.0,
        "unsupported": [],
    }


@pytest.mark.parametrize("version", [10, 11, 12])
@pytest.mark.parametrize(
    "name", ["conv", "requantize", "reshape", "concat", "slice of an image", "quantize"]
)
def test_older_versions_mean_the_same(name: str, version: int, tmp_path: Path):
    path = tmp_path / "one.onnx"
    program = case(name, 0, signed=False)
    write_onnx(program, path)
    model = onnx.load(path)
    model.opset_import[0].version = version
    onnx.save(model, path)
    try:
        result = compare_onnx(path, 4, random_inputs())
    except RuntimeUnfit as error:
        pytest.skip(str(error))
    (row,) = result.results
    assert not result.unsupported and row.compared > 0 and row.mismatched == 0


@pytest.mark.parametrize("name", ["conv", "conv grouped", "depthwise", "max pool", "concat"])
def test_the_reference_evaluator_agrees(name: str, tmp_path: Path):
    """ONNX's own evaluator has the standard operators; ties that it breaks in float64 are few."""
    from onnx.reference import ReferenceEvaluator

    path = tmp_path / "one.onnx"
    program = case(name, 3, signed=False)
    write_onnx(program, path)
    inputs = random_inputs(1)([program[n] for n in program.inputs], 0, 3)
    given = {n: values[:, 0] for n, values in zip(program.inputs, inputs, strict=True)}
    evaluator = ReferenceEvaluator(str(path))
    images = {n: v.transpose(0, 3, 1, 2) if v.ndim == 4 else v for n, v in given.items()}
    model = onnx.load(path)
    feeds = given if model.graph.node[0].op_type == "Transpose" else images
    found = np.asarray(list(evaluator.run(None, feeds))[0])
    ours = np.asarray(runner(program)(given)["y"])
    assert found.shape == ours.shape
    difference = np.abs(found.astype(int) - ours.astype(int))
    assert difference.max() <= 1 and np.mean(difference > 0) < 2e-3


def test_what_onnx_cannot_hold_is_refused(tmp_path: Path):
    path = tmp_path / "net.onnx"
    rng = np.random.default_rng(0)
    with pytest.raises(NotExpressible, match="gemmlowp is not onnxruntime's.*StableHLO"):
        write_onnx(MADE["add"](rng), path)
    clamped = dataclasses.replace(conv("int8", function="RELU")(rng), policy="f32_even")
    with pytest.raises(NotExpressible, match="clamp it by a clip behind, or use TFLite"):
        write_onnx(clamped, path)
    softmax = dataclasses.replace(CASES["softmax int8 1.0 0.05"](rng), policy="f32_even")
    with pytest.raises(NotExpressible, match="softmax.*StableHLO holds it"):
        write_onnx(softmax, path)
    assert not list(tmp_path.iterdir())
