"""Files in QDQ form: the integer operators that onnxruntime makes of them, and its codes."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qjax.program.comparison import RuntimeUnfit, compare_onnx
from qjax.program.onnx.file import read_file
from qjax.program.onnx.fold import folded
from qjax.program.onnx.read import read_onnx, translate
from qjax.program.run import runner
from qjax.program.tensor import Tensor
from tests.program.test_files import damaged

onnx = pytest.importorskip("onnx", reason="it reads and writes the files; qjax[export] has it")
onnxruntime = pytest.importorskip("onnxruntime", reason="the reference; it comes with qjax[export]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402  (where onnx is there)

SIDES = (3, 8, 8)


def drawn(inputs: Sequence[Tensor], start: int, count: int) -> list[np.ndarray]:
    """Normal numbers, or any codes."""
    rng = np.random.default_rng(start)
    (tensor,) = inputs
    shape = (count, *(1 if size is None else size for size in tensor.shape))
    if tensor.dtype == "float32":
        return [rng.normal(0, 1, shape).astype(np.float32)]
    low, high = tensor.range
    return [rng.integers(low, high + 1, shape).astype(tensor.dtype)]


def save(path: Path, nodes: list, constants: dict, shape=SIDES, version: int = 17) -> Path:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    given = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, given)
    imports = [helper.make_opsetid("", version)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def network(folder: Path) -> Path:
    """A float network with an operator of every kind."""
    rng = np.random.default_rng(0)
    shapes = {
        "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (8, 8, 1, 1),
        "b3": (8,), "w4": (16, 10), "b4": (10,), "w5": (10, 6), "b5": (6,),
    }  # fmt: skip
    constants = {n: rng.normal(0, 0.3, s).astype(np.float32) for n, s in shapes.items()}
    window: Any = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["m1"], **window),
        helper.make_node("Conv", ["m1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("LeakyRelu", ["c2"], ["l2"], alpha=0.1),
        helper.make_node("Conv", ["l2", "w3", "b3"], ["c3"]),
        helper.make_node("Add", ["c3", "m1"], ["a3"]),
        helper.make_node("Relu", ["a3"], ["r3"]),
        helper.make_node("Mul", ["r3", "m1"], ["p3"]),
        helper.make_node("AveragePool", ["p3"], ["v3"], **window),
        helper.make_node("Sigmoid", ["v3"], ["s3"]),
        helper.make_node("Concat", ["v3", "s3"], ["k3"], axis=1),
        helper.make_node("GlobalAveragePool", ["k3"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y0"]),
        helper.make_node("MatMul", ["y0", "w5"], ["y1"]),
        helper.make_node("Add", ["y1", "b5"], ["y"]),
    ]
    return save(folder / "float.onnx", nodes, constants)


@pytest.fixture(scope="module", params=["uint8", "int8"])
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What onnxruntime's own quantizer writes: U8S8 by channel, and its default, S8S8."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(1)
            self.batches = [rng.normal(0, 1, (8, *SIDES)).astype(np.float32) for _ in range(3)]

        def get_next(self) -> dict | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return {"x": self.batches.pop()} if self.batches else None

    folder = tmp_path_factory.mktemp(request.param)
    unsigned = {"activation_type": QuantType.QUInt8, "per_channel": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            network(folder), folder / f"{request.param}.onnx", Reader(),
            # 7 bits: exact on processors without VNNI.
            reduce_range=True, **(unsigned if request.param == "uint8" else {}),
        )  # fmt: skip
    return folder / f"{request.param}.onnx"


def check(path: Path, samples: int = 20) -> list[str]:
    """Compare every operator; returns their words."""
    try:
        result = compare_onnx(path, samples, drawn)
    except RuntimeUnfit as error:
        pytest.skip(str(error))
    assert not result.unsupported
    assert [row for row in result.results if row.mismatched or not row.compared] == []
    return [row.kind for row in result.results]


def test_what_the_quantizer_writes_is_integer_operators(quantized: Path):
    assert check(quantized, 60) == [
        "quantize", "conv2d", "max_pool", "conv2d", "leaky_relu", "conv2d", "add", "mul",
        "average_pool", "lookup", "concat", "mean", "reshape", "dense", "dense", "add",
        "dequantize",
    ]  # fmt: skip


def test_the_whole_equals_onnxruntime_on_the_file_as_it_is(quantized: Path):
    """With its optimizations on, and int8 kept (on x86 it goes to uint8, and partly to float)."""
    check(quantized, 1)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    x = np.random.default_rng(2).normal(0, 1, (200, *SIDES)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        str(quantized), options, providers=["CPUExecutionProvider"]
    )
    program = read_onnx(quantized)
    found = runner(program)({"x": x.transpose(0, 2, 3, 1)})[program.outputs[0]]
    np.testing.assert_array_equal(found, session.run(None, {"x": x})[0])


class Groups:
    """Writes operators between QuantizeLinear and DequantizeLinear, uint8."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.constants: dict[str, Any] = {}

    def grid(self, name: str, scale: Any, zero: int | None, dtype: type = np.uint8) -> list[str]:
        self.constants[f"{name}.scale"] = np.float32(scale)
        if zero is None:
            return [f"{name}.scale"]
        self.constants[f"{name}.zero"] = dtype(zero)
        return [f"{name}.scale", f"{name}.zero"]

    def pair(self, source: str, name: str, scale: float = 0.05, zero: int | None = 0) -> str:
        """Quantize a float tensor and read it back."""
        units = self.grid(name, scale, zero)
        self.node("QuantizeLinear", [source, *units], f"{name}.codes")
        return self.node("DequantizeLinear", [f"{name}.codes", *units], name)

    def weights(self, name: str, *shape: int, bias: float = 0, zero: int | None = 0) -> list[str]:
        """Weights on 7 bits, and a bias for inputs of the scale `bias`."""
        rng = np.random.default_rng(3)
        self.constants[f"{name}.codes"] = rng.integers(-64, 65, shape).astype(np.int8)
        units = self.grid(name, 0.0113, zero, np.int8)
        found = [self.node("DequantizeLinear", [f"{name}.codes", *units], name)]
        if bias:
            codes = rng.integers(-9000, 9000, shape[0]).astype(np.int32)
            self.constants[f"{name}.bias.codes"] = codes
            units = self.grid(f"{name}.bias", np.float32(bias) * np.float32(0.0113), None)
            codes = f"{name}.bias.codes"
            found.append(self.node("DequantizeLinear", [codes, *units], f"{name}.bias"))
        return found

    def node(self, kind: str, inputs: list[str], name: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name


def clamped(g: Groups) -> list[str]:
    """A ReLU6 on a grid that reaches further on both sides."""
    g.pair("x", "q", 0.02, 128)
    g.node("Conv", ["q", *g.weights("w", 4, 3, 3, 3, bias=0.02)], "c")
    g.constants |= {"low": np.float32(0), "high": np.float32(6)}
    g.pair(g.node("Clip", ["c", "low", "high"], "r"), "y", 0.04, 100)
    return ["quantize", "conv2d", "clip", "dequantize"]


def rectified(g: Groups) -> list[str]:
    """A ReLU that the grid makes anyway, and the pool behind it, before the rounding."""
    g.pair("x", "q", 0.02, 128)
    g.node("Conv", ["q", *g.weights("w", 4, 3, 3, 3, bias=0.02)], "c")
    g.node("MaxPool", [g.node("Relu", ["c"], "r")], "m", kernel_shape=[2, 2])
    g.pair("m", "y", 0.04, 0)
    return ["quantize", "conv2d", "max_pool", "dequantize"]


def alone(g: Groups) -> list[str]:
    """ReLUs of codes: on one grid, and onto another."""
    g.pair("x", "q", 0.02, 128)
    g.pair(g.node("Relu", ["q"], "r"), "p", 0.02, 128)
    g.pair(g.node("Relu", ["p"], "s"), "y", 0.013, 3)
    return ["quantize", "clip", "requantize", "clip", "dequantize"]


def passed(g: Groups) -> list[str]:
    """Nothing quantizes what the pool and the reshape give; weights have no zero point."""
    g.pair("x", "q", 0.02, 128)
    g.node("MaxPool", ["q"], "m", kernel_shape=[8, 8])
    g.node("Flatten", ["m"], "f")
    g.node("Gemm", ["f", *g.weights("w", 5, 3, bias=0.02, zero=None)], "d", transB=1)
    g.pair("d", "y", 0.05, None)
    return ["quantize", "max_pool", "reshape", "dense", "dequantize"]


@pytest.mark.parametrize("make", [clamped, rectified, alone, passed])
def test_a_group_equals_onnxruntime_and_its_own_float_form(make, tmp_path: Path):
    groups = Groups()
    kinds = make(groups)
    path = save(tmp_path / "net.onnx", groups.nodes, groups.constants)
    assert check(path) == kinds
    x = np.random.default_rng(4).normal(0, 1, (50, *SIDES)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = runner(read_onnx(path))({"x": x.transpose(0, 2, 3, 1)})["y"]
    found = found.transpose(0, 3, 1, 2) if found.ndim == 4 else found
    steps = np.abs(found - session.run(None, {"x": x})[0]) / groups.constants["y.scale"]
    # Floats round their sums, so that a code at a tie may be another.
    assert steps.max() < 1.01 and np.mean(steps > 0.5) < 1e-3


def other_bias(g: Groups) -> str:
    g.pair("x", "q", 0.02, 128)
    g.node("Conv", ["q", *g.weights("w", 4, 3, 3, 3, bias=0.03)], "c")
    g.pair("c", "y")
    return "Conv .*'c': no operator .*the scale 'w.bias.scale' of its bias is not"


def read_twice(g: Groups) -> str:
    g.pair("x", "q", 0.02, 128)
    g.node("Conv", ["q", *g.weights("w", 3, 3, 1, 1)], "c")
    g.pair("c", "p")
    g.node("Add", ["c", "p"], "y")
    return "Conv .*its result is not read by one QuantizeLinear alone"


def no_grid(g: Groups) -> str:
    g.pair("x", "q", 0.02, 128)
    g.node("Add", ["q", "x"], "a")
    g.pair("a", "y")
    return "Add .*its operand 2, 'x', is not a DequantizeLinear's"


def another_axis(g: Groups) -> str:
    g.pair("x", "q", 0.02, 128)
    g.node("Conv", ["q", *g.weights("w", 3, 3, 1, 1)], "c")
    g.constants |= {"w.scale": np.full(3, 0.1, np.float32), "w.zero": np.zeros(3, np.int8)}
    g.pair("c", "y")
    return "scales 'w.scale' run along axis 1 of 'w.codes'"


def unknown(g: Groups) -> str:
    g.pair("x", "q", 0.02, 128)
    g.pair(g.node("Softmax", ["q"], "s"), "y")
    return "operator Softmax version 17, output tensor 's': no operator of a program computes it"


@pytest.mark.parametrize("make", [other_bias, read_twice, no_grid, another_axis, unknown])
def test_what_is_no_group_says_why(make, tmp_path: Path):
    groups = Groups()
    message = make(groups)
    path = save(tmp_path / "net.onnx", groups.nodes, groups.constants)
    with pytest.raises(ValueError, match=message):
        read_onnx(path)


def test_a_file_without_groups_stays_as_it_is(tmp_path: Path):
    groups = Groups()
    groups.pair("x", "q")
    groups.pair("q", "y")
    file = read_file(save(tmp_path / "net.onnx", groups.nodes, groups.constants))
    assert folded(file).nodes == file.nodes and folded(file).content == file.content


def test_damaged_files_are_errors_and_nothing_else(quantized: Path, tmp_path: Path):
    rng = np.random.default_rng(0)
    path = tmp_path / "net.onnx"
    content = quantized.read_bytes()
    refused = 0
    for _ in range(60):
        path.write_bytes(damaged(content, rng))
        started = time.process_time()
        try:
            refused += bool(translate(read_file(path)).unsupported)
        except ValueError:
            refused += 1
        assert time.process_time() - started < 5
    assert refused > 15
