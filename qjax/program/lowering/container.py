"""What a format gives a network's codes to live in, and how its runtime computes."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from qjax.core.tables import Function, code_table, logistic, tanh
from qjax.program.onnx.rules import sigmoid_table
from qjax.program.tensor import DTYPES, Tensor, code_range


class Curve(NamedTuple):
    """A function of one code that a format computes.

    Attributes:
        word: of its table.
        table: codes by that of the operand, least first, from operand and result.
        step, zero: scale and zero point of the result.
    """

    word: str
    table: Callable[[Tensor, Tensor], np.ndarray]
    step: float
    zero: int


def _tflite(function: Function, x: Tensor, output: Tensor) -> np.ndarray:
    grids = [(tensor.units.step, tensor.units.zero) for tensor in (x, output)]
    return code_table(function, DTYPES[x.dtype], grids[0], grids[1])


def _onnx_sigmoid(x: Tensor, output: Tensor) -> np.ndarray:
    # That is by the byte.
    return np.roll(sigmoid_table(x, output), code_range(x.dtype)[0])


@dataclasses.dataclass(frozen=True)
class Container:
    """One format.

    Attributes:
        name: for messages.
        policy: the arithmetic of its runtime, a name of `core/requantize.py`.
        dtype: of activations.
        at_top: whether codes of fewer than 8 bits are moved to the upper end of `dtype`, so that
            its saturation clamps them from above and a fused ReLU from below; otherwise they begin
            at its lower end.
        widest: narrow weight codes are multiplied by a power of two up to this magnitude, which
            costs nothing in an int8 tensor and makes the unit of the int32 bias as much finer.
        fuses_relu: whether convolutions, dense layers and additions clamp at real zero.
        explicit_padding: whether a convolution may pad each side as it likes; otherwise as SAME or
            VALID, and other paddings become an operator.
        dense_scaling: of `ops.Dense`.
        keeps_axes: whether a mean over the image leaves axes of one, which a reshape then drops.
        holds: words of the operators that not every format has.
        curves: functions of one code that it has, by name.
        real_logits: whether logits leave as real numbers: codes would not say their scale.
    """

    name: str
    policy: str
    dtype: str
    at_top: bool
    widest: int
    fuses_relu: bool
    explicit_padding: bool
    dense_scaling: str
    keeps_axes: bool
    holds: frozenset[str]
    curves: Mapping[str, Curve]
    real_logits: bool

    @property
    def range(self) -> tuple[int, int]:
        """Least and largest code of an activation."""
        return code_range(self.dtype)

    def shift(self, codes: Tensor) -> int:
        """What is added to the network's codes on the way into this format."""
        low, high = codes.range
        return self.range[1] - high if self.at_top else self.range[0] - low


TFLITE = Container(
    name="TFLite",
    policy="gemmlowp",
    dtype="int8",
    at_top=True,
    widest=127,
    fuses_relu=True,
    explicit_padding=False,
    dense_scaling="float64",
    keeps_axes=False,
    holds=frozenset({"sub", "mul", "maximum", "softmax", "transpose_conv2d"}),
    curves={
        "sigmoid": Curve("logistic", partial(_tflite, logistic), 1 / 256, -128),
        "tanh": Curve("tanh", partial(_tflite, tanh), 1 / 128, 0),
    },
    real_logits=False,
)
"""Full-integer .tflite files, as LiteRT's reference kernels run them."""

ONNX = Container(
    name="ONNX",
    policy="f32_even",
    dtype="uint8",
    at_top=False,
    # Two products of an unsigned and a signed byte then fit an int16, as CPUs without VNNI need.
    widest=64,
    fuses_relu=False,
    explicit_padding=True,
    dense_scaling="policy",
    keeps_axes=True,
    holds=frozenset({"mul"}),
    curves={"sigmoid": Curve("logistic", _onnx_sigmoid, 1 / 256, 0)},
    real_logits=True,
)
"""ONNX files of QLinear operators, unsigned activations and signed weights, as onnxruntime."""
