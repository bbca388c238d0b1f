"""Between float32 numbers and codes: a runtime's division, tie by tie."""

import numpy as np
import pytest

from qjax.core.host import HostArray
from qjax.core.tables import round_half_away
from qjax.program import ops
from qjax.program.onnx.session import session
from qjax.program.program import Program
from qjax.program.run import run, runner
from qjax.program.tensor import Quantization, Tensor

PIXELS = (np.arange(256) / np.float32(255)).astype(np.float32)
ROUND = {"gemmlowp": round_half_away, "f32_even": np.round}


def quantize(step: np.floating, zero: int, policy: str) -> Program:
    units = Quantization(HostArray(np.float32(step)), HostArray(zero))
    x, y = Tensor("x", (None,), "float32"), Tensor("y", (None,), "int8", units)
    return Program(("x",), ("y",), (x, y), (ops.Quantize(("x",), "y"),), policy)


@pytest.mark.parametrize("policy", ROUND)
@pytest.mark.parametrize("pixels", range(1, 12))
def test_a_pixel_gets_the_code_of_the_true_quotient(pixels: int, policy: str):
    # At 2/255 and 4/255 every second and every fourth pixel is a tie, or beside one in float32.
    step = np.float32(pixels / 255)
    expected = np.clip(ROUND[policy](PIXELS / step) - 128, -128, 127)
    program = quantize(step, -128, policy)
    np.testing.assert_array_equal(np.asarray(runner(program)(PIXELS)["y"]), expected)
    np.testing.assert_array_equal(np.asarray(run(program, PIXELS)["y"]), expected)


def test_the_tie_that_a_reciprocal_moves():
    x, step = PIXELS[3:4], np.float32(2 / 255)
    assert x / step == 1.5 != x * (np.float32(1) / step)
    assert run(quantize(step, 0, "f32_even"), x)["y"].tolist() == [2]


@pytest.mark.parametrize("pixels", [2, 4])
def test_a_pixel_gets_the_code_of_onnxruntime(pixels: int):
    onnx = pytest.importorskip("onnx", reason="comes with qjax[export]")
    pytest.importorskip("onnxruntime", reason="comes with qjax[export]")
    step = np.float32(pixels / 255)
    make, kind = onnx.helper, onnx.TensorProto
    node = make.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    graph = make.make_graph(
        [node],
        "g",
        [make.make_tensor_value_info("x", kind.FLOAT, [256])],
        [make.make_tensor_value_info("y", kind.INT8, [256])],
        [make.make_tensor("s", kind.FLOAT, [], [step]), make.make_tensor("z", kind.INT8, [], [0])],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    (theirs,) = session(model.SerializeToString(), optimized=False).run(None, {"x": PIXELS})
    ours = run(quantize(step, 0, "f32_even"), PIXELS)["y"]
    np.testing.assert_array_equal(np.asarray(ours), theirs)
