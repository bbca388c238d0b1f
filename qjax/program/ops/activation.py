"""Functions of one tensor: clip (the ReLUs), leaky ReLU, tables (sigmoid, tanh), softmax."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qjax.core import gemmlowp
from qjax.core.fixedpoint import (
    quantize_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
)
from qjax.core.softmax import MOST, SHARE_BITS, softmax_shares
from qjax.program.arithmetic import (
    FLOAT32,
    TFLITE,
    centred,
    centred_bounds,
    ratio_float32,
    rescale,
)
from qjax.program.base import Operator, Site, require_dtype
from qjax.program.onnx.rules import BYTES, leaky_table
from qjax.program.tensor import DTYPES, Shape, code_range


def _ratio(site: Site) -> np.ndarray:
    """S_x / S_y, in float32 where the policy's runtimes compute it so."""
    x, y = site.inputs[0].units.step, site.output.units.step
    return ratio_float32(x, y) if site.policy in (*TFLITE, *FLOAT32) else np.asarray(x / y)


@dataclasses.dataclass(frozen=True)
class Clip(Operator):
    """x on the output's grid and clamped to the output's range: ReLU, ReLU6 and other bounds."""

    kind: ClassVar[str] = "clip"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, site: Site) -> Shape:
        """The input's."""
        (x,) = site.inputs
        require_dtype(x, "int8", "uint8", "int16")
        require_dtype(site.output, x.dtype)
        _ = x.units.step, site.output.units.step
        return x.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """One rescaling."""
        (x,), (value,) = site.inputs, values
        total, bounds = centred(value, x), centred_bounds(x)
        return rescale(site.policy, total, _ratio(site), bounds, site.output)


@dataclasses.dataclass(frozen=True)
class LeakyRelu(Operator):
    """x where x >= 0, alpha * x elsewhere, each scaled down by itself.

    Of bytes under `f32_even` it is onnxruntime's QLinearLeakyRelu (`onnx/rules.py`).

    Attributes:
        alpha: finite; may be negative.
    """

    kind: ClassVar[str] = "leaky_relu"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    alpha: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.alpha, float) or not math.isfinite(self.alpha):
            raise ValueError(f"leaky_relu.alpha must be a finite number, got {self.alpha!r}")

    def infer(self, site: Site) -> Shape:
        """The input's."""
        (x,) = site.inputs
        require_dtype(x, "int8", "uint8", "int16")
        require_dtype(site.output, x.dtype)
        _ = x.units.step, site.output.units.step
        return x.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """Both branches, and a choice."""
        (x,), (value,) = site.inputs, values
        if site.policy == "f32_even" and x.dtype in BYTES:
            table = jnp.asarray(leaky_table(x, self.alpha, site.output))
            return table[value.astype(jnp.uint8).astype(jnp.int32)]
        total, bounds = centred(value, x), centred_bounds(x)
        positive = rescale(site.policy, total, _ratio(site), bounds, site.output)
        negative = rescale(site.policy, total, self._slope(site), bounds, site.output)
        return jnp.where(total >= 0, positive, negative)

    def _slope(self, site: Site) -> np.ndarray:
        """alpha S_x / S_y."""
        x, y = site.inputs[0].units.step, site.output.units.step
        if site.policy not in (*TFLITE, *FLOAT32):
            return np.asarray(self.alpha * x / y)
        product = np.float32(x) * np.float32(self.alpha)
        return np.asarray(product / np.float32(y), np.float64)


@dataclasses.dataclass(frozen=True)
class Lookup(Operator):
    """Any function of one 8-bit code: inputs x and a table of 256 codes, that of the least first.

    Attributes:
        function: what the table is of, for readers.
    """

    kind: ClassVar[str] = "lookup"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    function: str = "table"

    def __post_init__(self) -> None:
        if not isinstance(self.function, str) or not self.function.isidentifier():
            raise ValueError(f"lookup.function must be a word, got {self.function!r}")

    def infer(self, site: Site) -> Shape:
        """The input's."""
        x, table = site.inputs
        require_dtype(x, "int8", "uint8")
        require_dtype(table, site.output.dtype)
        if table.constant.shape != (256,):
            raise ValueError(f"{table} must have 256 codes, got shape {table.shape}")
        low, high = site.output.range
        if not low <= table.range[0] <= table.range[1] <= high:
            raise ValueError(f"{table} of range {table.range} leaves {site.output}'s {low, high}")
        return x.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """The codes looked up."""
        x, table = values
        least, _ = code_range(site.inputs[0].dtype)
        return table[x.astype(jnp.int32) - least]


@dataclasses.dataclass(frozen=True)
class Softmax(Operator):
    """exp(beta x) over its sum along the last axis, whatever the policy.

    An int32 output holds the shares themselves in units of 2**-28 (`core/softmax.py`). An 8-bit one
    is TFLite's: its scale is 1/256, its zero point its least code, and it is computed in gemmlowp's
    fixed point. With d = x - max(x) <= 0 and
    beta S_x 2**26 as an integer multiplier, the exponent is Q5.26; differences that leave that
    range count as zero. Exponentials are summed in Q12.19, so at most 4,096 may be added.

    Attributes:
        beta: positive and finite.
    """

    kind: ClassVar[str] = "softmax"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.beta, float) or not 0 < self.beta < math.inf:
            raise ValueError(f"softmax.beta must be positive and finite, got {self.beta!r}")

    def infer(self, site: Site) -> Shape:
        """The input's."""
        (x,), output = site.inputs, site.output
        require_dtype(x, "int8", "uint8")
        if not x.shape or x.shape[-1] is None or x.shape[-1] > MOST:
            raise ValueError(f"{x} must have 1 to 4096 elements to add up, got shape {x.shape}")
        if output.dtype == "int32":
            if output.range != (0, 2**SHARE_BITS) or x.units.step * self.beta <= 0:
                raise ValueError(f"{output} must declare the range 0 to 2**28, got {output.range}")
            return x.shape
        require_dtype(output, x.dtype)
        least, _ = code_range(output.dtype)
        if abs(output.units.step * 256 - 1) > 1e-3 or output.units.zero != least:
            raise ValueError(
                f"{output} must have scale 1/256 and zero point {least}, got {output.quantization}"
            )
        if self._multiplier(site)[1] < 0:
            raise ValueError(f"{x}: beta times its scale must be at least 2**-27")
        return x.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """Exponentials, their sum, its reciprocal, the products."""
        (x,) = site.inputs
        if site.output.dtype == "int32":
            low, high = x.range
            return softmax_shares(values[0], self.beta * x.units.step, high - low + 1)
        codes = values[0].astype(jnp.int32)
        q31, shift = self._multiplier(site)
        least = -math.floor(31 * 2**26 / 2**shift)
        difference = codes - jnp.max(codes, axis=-1, keepdims=True)
        taken = difference >= least
        # Differences that are not taken would overflow in the shift.
        exponent = jnp.where(taken, difference, 0) << shift
        powers = gemmlowp.exp_on_negative_values(
            saturating_rounding_doubling_high_mul(exponent, q31)
        )
        shares = jnp.where(taken, rounding_divide_by_pot(powers, 12), 0)
        total = jnp.sum(shares, axis=-1, keepdims=True, dtype=jnp.int32)
        scale, bits = gemmlowp.reciprocal(total, integer_bits=12)
        product = saturating_rounding_doubling_high_mul(
            powers, jnp.broadcast_to(scale, powers.shape)
        )
        result = rounding_divide_by_pot(product, bits + (31 - 8))
        zero = site.output.units.zero
        result = jnp.where(taken, result + zero, zero)
        return jnp.clip(result, *site.output.range).astype(DTYPES[site.output.dtype])

    def _multiplier(self, site: Site) -> tuple[int, int]:
        real = min(self.beta * site.inputs[0].units.step * 2**26, 2.0**31 - 1)
        q31, shift = quantize_multiplier(real)
        return int(q31), int(shift)
