"""Between real numbers and codes, and from one grid to another."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from qjax.core.affine import Affine
from qjax.core.host import HostArray
from qjax.core.requantize import policy
from qjax.program.arithmetic import TFLITE, centred, centred_bounds, multiplier, rescale
from qjax.program.base import Operator, Site, require_dtype, require_whole
from qjax.program.onnx.rules import BYTES, requantize_table
from qjax.program.tensor import DTYPES, Shape


@dataclasses.dataclass(frozen=True)
class Quantize(Operator):
    """Codes of float32 numbers: clip(round(x / S) + Z).

    Ties go away from zero under TFLite's policies, to even under the others.
    """

    kind: ClassVar[str] = "quantize"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, site: Site) -> Shape:
        """The input's."""
        (x,) = site.inputs
        require_dtype(x, "float32")
        require_dtype(site.output, "int8", "uint8", "int16")
        return x.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """The codes."""
        units, (low, high) = site.output.units, site.output.range
        # XLA makes a division by one broadcast number a product with its reciprocal, which moves
        # ties (3/255 over 2/255 is then above 1.5); what it cannot see through, it divides by.
        step = lax.optimization_barrier(jnp.full_like(values[0], units.step))
        steps = values[0] / step
        if site.policy in TFLITE:
            whole = jnp.trunc(steps)
            whole = whole + jnp.where(jnp.abs(steps - whole) >= 0.5, jnp.sign(steps), 0.0)
        else:
            whole = jnp.round(steps)
        # Clamped before the conversion: a float beyond int32 has no integer.
        clamped = jnp.clip(whole, low - units.zero, high - units.zero)
        return (clamped.astype(jnp.int32) + units.zero).astype(DTYPES[site.output.dtype])


@dataclasses.dataclass(frozen=True)
class Dequantize(Operator):
    """float32 numbers of codes: S (q - Z)."""

    kind: ClassVar[str] = "dequantize"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, site: Site) -> Shape:
        """The input's."""
        (x,) = site.inputs
        require_dtype(x, "int8", "uint8", "int16")
        require_dtype(site.output, "float32")
        _ = x.units.step
        return x.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """The numbers."""
        (x,) = site.inputs
        return centred(values[0], x).astype(jnp.float32) * jnp.float32(x.units.step)


@dataclasses.dataclass(frozen=True)
class Requantize(Operator):
    """Codes or sums onto the output's grid: clip(round(sum_i scales[i] * x_i + offset), low, high).

    Without `scales` it has one input, and the numbers are those of the tensors' own scales and zero
    points (bytes under `f32_even`: see `onnx/rules.py`). With them they are the integer
    network's own: several terms that meet on one grid, batch normalization folded in, a bias in
    `offset`.

    Attributes:
        scales: per input, output steps per integer, () or (c,) along the last axis.
        offset: output steps, () or (c,); the output's zero point included.
        zeros: per input, its integer for real zero, for policies that subtract it first; empty for
            zero everywhere.
        rule: the policy of this rounding alone; empty for the program's.
    """

    kind: ClassVar[str] = "requantize"
    arity: ClassVar[tuple[int, int]] = (1, 64)

    scales: tuple[HostArray, ...] = ()
    offset: HostArray = HostArray(0.0)
    zeros: tuple[int, ...] = ()
    rule: str = ""

    def __post_init__(self) -> None:
        numbers = (*self.scales, self.offset) if isinstance(self.scales, tuple) else (self.scales,)
        if not all(isinstance(number, HostArray) for number in numbers):
            raise ValueError(f"requantize.scales and .offset must be numbers, got {numbers}")
        require_whole("requantize", "zeros", self.zeros, -(2**31), 2**31 - 1)
        if self.rule:
            policy(self.rule)
        wanted = len(self.inputs) if self.scales or len(self.inputs) > 1 else 0
        if len(self.scales) != wanted:
            raise ValueError(
                f"requantize.scales must have one entry for each of {len(self.inputs)} inputs, got "
                f"{len(self.scales)}"
            )

    def infer(self, site: Site) -> Shape:
        """The inputs' one shape."""
        first = site.inputs[0]
        for tensor in site.inputs:
            require_dtype(tensor, "int8", "uint8", "int16", "int32")
            if tensor.shape != first.shape:
                raise ValueError(f"{tensor} must have the shape {first.shape} of {first}")
        require_dtype(site.output, "int8", "uint8", "int16", "int32")
        if self.scales:
            affine = self.affine(site)
            if affine.channels not in (None, first.shape[-1] if first.shape else None):
                raise ValueError(
                    f"requantize.scales must be for the channels of {first} of shape "
                    f"{first.shape}, got {affine.channels}"
                )
        else:
            _ = first.units.step, site.output.units.step
        return first.shape

    def affine(self, site: Site) -> Affine:
        """The numbers, as the policies read them."""
        low, high = site.output.range
        return Affine(
            tuple(scale.value for scale in self.scales),
            self.offset.value,
            tuple(tensor.range for tensor in site.inputs),
            low,
            high,
            zero_point=site.output.units.zero,
            zeros=self.zeros,
        )

    def compute(self, site: Site, *values: Array) -> Array:
        """The codes."""
        if self.scales:
            codes = policy(self.rule or site.policy)(values, self.affine(site))
            return codes.astype(DTYPES[site.output.dtype])
        (x,), output = site.inputs, site.output
        if site.policy == "f32_even" and x.dtype in BYTES and output.dtype in BYTES:
            table = jnp.asarray(requantize_table(x, output))
            return table[values[0].astype(jnp.uint8).astype(jnp.int32)]
        scale = multiplier(site.policy, x.units.step, 1.0, output.units.step, per_tensor=False)
        return rescale(site.policy, centred(values[0], x), scale, centred_bounds(x), output)


@dataclasses.dataclass(frozen=True)
class Recentre(Operator):
    """uint8 codes less 128 as int8, or back: the same numbers on the type that kernels take."""

    kind: ClassVar[str] = "recentre"
    arity: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, site: Site) -> Shape:
        """The input's."""
        (x,) = site.inputs
        require_dtype(x, "int8", "uint8")
        require_dtype(site.output, "uint8" if x.dtype == "int8" else "int8")
        return x.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """The top bit turned over."""
        (x,) = values
        flipped = x.astype(jnp.uint8) ^ jnp.uint8(128)
        return flipped.astype(DTYPES[site.output.dtype])
