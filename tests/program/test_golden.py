"""TFLite's operators against the golden vectors: one program of one operator each."""

import numpy as np
import pytest

from qjax.core.host import HostArray
from qjax.core.tables import code_table, logistic, tanh
from qjax.core.windows import explicit
from qjax.program.base import Operator
from qjax.program.ops import (
    Add,
    AveragePool,
    Concat,
    Conv2D,
    Dense,
    Lookup,
    Mean,
    Softmax,
    TransposeConv2D,
)
from qjax.program.program import Program
from qjax.program.run import runner
from qjax.program.tensor import DTYPES, Quantization, Tensor, code_range
from tests.core.oracle import golden

OPS = golden("ops")
# Float activations, which no integer program has.
BUILT = [case for case in OPS if case["op"] != "hybrid_fully_connected"]


def units(scale, zero, axis: int | None = None) -> Quantization:
    """A quantization from JSON; one scale in a list is one for the tensor."""
    scales = np.ravel(scale)
    if scales.size == 1:
        return Quantization(HostArray(scales[0]), HostArray(zero))
    return Quantization(HostArray(scales), HostArray(zero), axis)


def activation(case: dict, name: str) -> Tensor:
    values = np.asarray(case[name], DTYPES[case["dtype"]])
    given = f"{name}_scale" in case
    grid = units(case[f"{name}_scale"], case.get(f"{name}_zero_point", 0)) if given else ONE
    return Tensor(name, values.shape, case["dtype"], grid)


ONE = Quantization(HostArray(1.0), HostArray(0))


def output(case: dict) -> Tensor:
    shape = np.shape(case["expected"])
    if "y_scale" not in case:
        return Tensor("y", shape, case["dtype"], ONE)
    grid = units(case["y_scale"], case["y_zero_point"])
    low, high = code_range(case["dtype"])
    if case.get("activation", "NONE") != "NONE":
        low = max(low, grid.zero)
    if case.get("activation") == "RELU6":
        high = min(high, grid.zero + round(6 / case["y_scale"]))
    return Tensor("y", shape, case["dtype"], grid, low, high)


def weight_tensors(case: dict, order: tuple[int, ...]) -> list[Tensor]:
    """Weights with the output channels last, and the bias."""
    kernel = np.asarray(case["w"], DTYPES[case["dtype"]]).transpose(order)
    grid = units(case["w_scale"], case["w_zero_point"], kernel.ndim - 1)
    bias = np.asarray(case["bias"], np.int32)
    return [
        Tensor("w", kernel.shape, case["dtype"], grid, data=kernel),
        Tensor("b", bias.shape, "int32", data=bias),
    ]


def convolution(case: dict) -> tuple[Operator, list[Tensor]]:
    depthwise = case["op"] == "depthwise_conv_2d"
    constants = weight_tensors(case, (1, 2, 0, 3) if depthwise else (1, 2, 3, 0))
    _, height, width, channels = np.shape(case["x"])
    kh, kw, *_ = constants[0].constant.shape
    strides = (case["stride"], case["stride"])
    padding = explicit(case["padding"], (height, width), (kh, kw), strides)
    groups = channels if depthwise else 1
    return Conv2D(("x", "w", "b"), "y", strides, padding, groups=groups), constants


def transposed(case: dict) -> tuple[Operator, list[Tensor]]:
    size = np.shape(case["expected"])[1:3]
    operator = TransposeConv2D(("x", "w", "b"), "y", (case["stride"],) * 2, (0, 0), size)
    return operator, weight_tensors(case, (1, 2, 3, 0))


def pool(case: dict) -> tuple[Operator, list[Tensor]]:
    window, strides = (case["filter"],) * 2, (case["stride"],) * 2
    padding = explicit(case["padding"], np.shape(case["x"])[1:3], window, strides)
    return AveragePool(("x",), "y", window, strides, padding), []


def table(case: dict) -> tuple[Operator, list[Tensor]]:
    function = {"logistic": logistic, "tanh": tanh}[case["op"]]
    grids = [(case[f"{name}_scale"], case[f"{name}_zero_point"]) for name in "xy"]
    codes = code_table(function, DTYPES[case["dtype"]], grids[0], grids[1])
    constant = Tensor("table", codes.shape, case["dtype"], data=codes)
    return Lookup(("x", "table"), "y", case["op"]), [constant]


MAKERS = {
    "conv_2d": convolution,
    "depthwise_conv_2d": convolution,
    "transpose_conv_2x2_stride2": transposed,
    "fully_connected": lambda case: (Dense(("x", "w", "b"), "y"), weight_tensors(case, (1, 0))),
    "add": lambda case: (Add(("x1", "x2"), "y"), []),
    "average_pool_2d": pool,
    "mean_hw": lambda case: (Mean(("x",), "y", (1, 2)), []),
    "softmax": lambda case: (Softmax(("x",), "y", case["beta"]), []),
    "logistic": table,
    "tanh": table,
    "concatenation": lambda case: (Concat(("x1", "x2"), "y", case["axis"]), []),
}


def codes(case: dict, policy: str) -> np.ndarray:
    """The operator's output under a policy."""
    operator, constants = MAKERS[case["op"]](case)
    names = [name for name in ("x", "x1", "x2") if name in case]
    tensors = [activation(case, name) for name in names]
    program = Program(
        tuple(names), ("y",), (*tensors, output(case), *constants), (operator,), policy
    )
    values = {name: np.asarray(case[name], DTYPES[case["dtype"]]) for name in names}
    return np.asarray(runner(program)(values)["y"])


@pytest.mark.parametrize("case", BUILT, ids=lambda case: f"{case['op']} {case['desc']}")
def test_codes_equal_the_golden_ones(case: dict):
    np.testing.assert_array_equal(codes(case, "gemmlowp"), np.asarray(case["expected"]))


@pytest.mark.parametrize(
    ("policy", "key"),
    [("q31", "expected_single_rounding"), ("f32_even", "expected_float_requant_half_even")],
)
def test_other_policies_equal_their_golden_codes(policy: str, key: str):
    cases = [case for case in BUILT if key in case]
    assert len(cases) >= 9
    for case in cases:
        np.testing.assert_array_equal(codes(case, policy), np.asarray(case[key]), case["desc"])


def test_every_operator_of_the_vectors_is_built():
    assert {case["op"] for case in BUILT} == set(MAKERS)
