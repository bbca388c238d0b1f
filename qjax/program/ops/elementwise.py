"""Two operands, element by element: sum, difference, product, larger and smaller one.

Operands of different shapes are broadcast against each other as NumPy does. Sum and difference
under `gemmlowp` and `q31` follow TFLite's kernels: with t = 2 max(S_1, S_2),

    a = scale_down((q_1 - Z_1) << 20, S_1 / t),  b likewise,
    y = scale_down(a +- b, t / (2**20 S_y)) + Z_y

(a left shift of 15 for int16), where `scale_down` multiplies by a fixed-point number and rounds.
The sum of bytes under `f32_even` is onnxruntime's QLinearAdd, their product its QLinearMul
(`onnx/rules.py`).
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qjax.core.affine import Affine
from qjax.core.fixedpoint import (
    multiply_by_quantized_multiplier,
    multiply_by_quantized_multiplier_single_rounding,
    quantize_multiplier,
)
from qjax.core.requantize import policy
from qjax.program.arithmetic import (
    FLOAT32,
    TFLITE,
    centred,
    centred_bounds,
    land,
    multiplier,
    require_int32,
    rescale,
)
from qjax.program.base import Operator, Site, require_dtype, require_same_units
from qjax.program.onnx.rules import BYTES, product_table, sum_table
from qjax.program.tensor import DTYPES, Shape, Tensor

_CODES = ("int8", "uint8", "int16")
_SCALE_DOWN = {
    "gemmlowp": multiply_by_quantized_multiplier,
    "q31": multiply_by_quantized_multiplier_single_rounding,
}


def broadcast_shape(one: Tensor, other: Tensor) -> Shape:
    """NumPy's rule for two shapes, the batch matching itself and 1.

    Raises:
        ValueError: naming both tensors.
    """
    rank = max(len(one.shape), len(other.shape))
    first, second = ((1,) * (rank - len(t.shape)) + t.shape for t in (one, other))
    sizes = []
    for a, b in zip(first, second, strict=True):
        if a != b and a != 1 and b != 1:
            raise ValueError(
                f"{one} of shape {one.shape} and {other} of shape {other.shape} do not broadcast"
            )
        sizes.append(b if a == 1 else a)
    return tuple(sizes)


def _aligned(site: Site, *values: Array) -> tuple[Array, Array]:
    """Both operands with the output's number of axes."""
    rank = len(site.output.shape)
    left, right = (value.reshape((1,) * (rank - value.ndim) + value.shape) for value in values)
    return left, right


def _check(site: Site) -> None:
    """Raise unless the codes are all of one type, each tensor on one grid."""
    for tensor in (*site.inputs, site.output):
        require_dtype(tensor, *_CODES)
        require_dtype(tensor, site.output.dtype)
        _ = tensor.units.step, tensor.units.zero


def _check_one_grid(site: Site) -> None:
    """Raise unless all codes are on the output's grid."""
    for tensor in site.inputs:
        require_same_units(tensor, site.output)


@dataclasses.dataclass(frozen=True)
class Add(Operator):
    """y = x_1 + x_2, requantized."""

    kind: ClassVar[str] = "add"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, site: Site) -> Shape:
        """The broadcast shape."""
        _check(site)
        return broadcast_shape(*site.inputs)

    def compute(self, site: Site, *values: Array) -> Array:
        """See the module."""
        return _sum(site, values, sign=1)


@dataclasses.dataclass(frozen=True)
class Sub(Operator):
    """y = x_1 - x_2, requantized."""

    kind: ClassVar[str] = "sub"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, site: Site) -> Shape:
        """The broadcast shape."""
        _check(site)
        return broadcast_shape(*site.inputs)

    def compute(self, site: Site, *values: Array) -> Array:
        """See the module."""
        return _sum(site, values, sign=-1)


def _looked_up(table: np.ndarray, left: Array, right: Array) -> Array:
    """What a (256, 256) table has for the bytes of both operands."""
    rows, columns = (value.astype(jnp.uint8).astype(jnp.int32) for value in (left, right))
    return jnp.asarray(table.reshape(-1))[256 * rows + columns]


def _sum(site: Site, values: tuple[Array, ...], sign: int) -> Array:
    left, right = _aligned(site, *values)
    if site.policy in TFLITE:
        return _tflite_sum(site, left, right, sign)
    if site.policy == "f32_even" and sign == 1 and site.output.dtype in BYTES:
        return _looked_up(sum_table(site.inputs[0], site.inputs[1], site.output), left, right)
    scales = [
        multiplier(site.policy, t.units.step, 1.0, site.output.units.step, per_tensor=True)
        for t in site.inputs
    ]
    scales[1] = sign * scales[1]
    zeros = tuple(tensor.units.zero for tensor in site.inputs)
    zero = site.output.units.zero
    offset = zero - sum(s * z for s, z in zip(scales, zeros, strict=True))
    low, high = site.output.range
    affine = Affine(
        tuple(scales),
        np.asarray(offset, np.float64),
        tuple(tensor.range for tensor in site.inputs),
        low,
        high,
        zero_point=zero,
        zeros=zeros,
    )
    terms = [term.astype(jnp.int32) for term in jnp.broadcast_arrays(left, right)]
    return policy(site.policy)(terms, affine).astype(DTYPES[site.output.dtype])


def _tflite_sum(site: Site, left: Array, right: Array, sign: int) -> Array:
    shift = 15 if site.output.dtype == "int16" else 20
    first, second = (tensor.units.step for tensor in site.inputs)
    twice = 2 * max(first, second)
    scale_down = _SCALE_DOWN[site.policy]

    def grown(value: Array, tensor: Tensor, scale: float) -> Array:
        return scale_down(centred(value, tensor) << shift, *quantize_multiplier(scale / twice))

    one = grown(left, site.inputs[0], first)
    other = grown(right, site.inputs[1], second)
    output = quantize_multiplier(twice / (2**shift * site.output.units.step))
    return land(scale_down(one + sign * other, *output), site.output)


@dataclasses.dataclass(frozen=True)
class Mul(Operator):
    """y = x_1 * x_2, requantized."""

    kind: ClassVar[str] = "mul"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, site: Site) -> Shape:
        """The broadcast shape."""
        bounds = require_int32(str(site.output), self._bounds(site))
        if site.output.dtype != "int32":
            _check(site)
            return broadcast_shape(*site.inputs)
        for tensor in site.inputs:
            require_dtype(tensor, "int8", "uint8")
        low, high = site.output.range
        if not low <= bounds[0] <= bounds[1] <= high or site.output.units.zero:
            raise ValueError(
                f"{site.output} must have zero point 0 and declare the range {bounds}, got "
                f"{(low, high)}"
            )
        return broadcast_shape(*site.inputs)

    def compute(self, site: Site, *values: Array) -> Array:
        """The product of the codes less their zero points, scaled down."""
        if site.policy == "f32_even" and site.output.dtype in BYTES:
            table = product_table(site.inputs[0], site.inputs[1], site.output)
            return _looked_up(table, *_aligned(site, *values))
        left, right = (
            centred(value, tensor)
            for value, tensor in zip(_aligned(site, *values), site.inputs, strict=True)
        )
        if site.output.dtype == "int32":
            return left * right
        steps = [tensor.units.step for tensor in (*site.inputs, site.output)]
        if site.policy in (*TFLITE, *FLOAT32):
            # TFLite's kernel, too, computes this one in float32 throughout.
            product, output = np.float32(steps[0]) * np.float32(steps[1]), np.float32(steps[2])
            scale = np.asarray(product / output, np.float64)
        else:
            scale = np.asarray(steps[0] * steps[1] / steps[2])
        return rescale(site.policy, left * right, scale, self._bounds(site), site.output)

    def _bounds(self, site: Site) -> tuple[int, int]:
        one, other = (centred_bounds(tensor) for tensor in site.inputs)
        ends = [a * b for a in one for b in other]
        return min(ends), max(ends)


@dataclasses.dataclass(frozen=True)
class Maximum(Operator):
    """The larger of two codes on one grid."""

    kind: ClassVar[str] = "maximum"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, site: Site) -> Shape:
        """The broadcast shape."""
        _check_one_grid(site)
        return broadcast_shape(*site.inputs)

    def compute(self, site: Site, *values: Array) -> Array:
        """Clamped to the output's range."""
        return jnp.clip(jnp.maximum(*_aligned(site, *values)), *site.output.range)


@dataclasses.dataclass(frozen=True)
class Minimum(Operator):
    """The smaller of two codes on one grid."""

    kind: ClassVar[str] = "minimum"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, site: Site) -> Shape:
        """The broadcast shape."""
        _check_one_grid(site)
        return broadcast_shape(*site.inputs)

    def compute(self, site: Site, *values: Array) -> Array:
        """Clamped to the output's range."""
        return jnp.clip(jnp.minimum(*_aligned(site, *values)), *site.output.range)
