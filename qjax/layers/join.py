"""Layers that join or thin out tensors: residual addition, concatenation, the parameter-free
shortcut.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import Policy
from qjax.layers.layer import FloatBoundary, Layer, Value, any_float, landing
from qjax.layers.slots import FloatSlot, Slot


class Add(Layer):
    """Residual addition. In integers the terms join; rounding waits for the next quantizer."""

    kind: ClassVar[str] = "add"
    slots: ClassVar[tuple[str, ...]] = ("output",)

    output: FloatSlot | Slot

    def __init__(self) -> None:
        self.bind_float_slots()

    def __call__(
        self, x: Float[Array, "*shape"], y: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """`x + y`, through the slot."""
        return self.output(x + y)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Joined terms."""
        if any_float(inputs):
            return FloatBoundary(self)
        return Then(_Joined(), landing(self.output, inputs[0], policy))


class Sub(Layer):
    """Difference. In integers the terms of `y` join with their scales negated."""

    kind: ClassVar[str] = "add"
    slots: ClassVar[tuple[str, ...]] = ("output",)

    output: FloatSlot | Slot

    def __init__(self) -> None:
        self.bind_float_slots()

    def __call__(
        self, x: Float[Array, "*shape"], y: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """`x - y`, through the slot."""
        return self.output(x - y)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Joined terms."""
        if any_float(inputs):
            return FloatBoundary(self)
        return Then(_Joined(negate=True), landing(self.output, inputs[0], policy))


class _Joined(nnx.Module):
    """Sum (or difference) of pending codes: their terms side by side."""

    def __init__(self, negate: bool = False):
        self.sign = -1.0 if negate else 1.0

    def __call__(self, x: Codes, y: Codes) -> Codes:
        signed = (
            dataclasses.replace(term, scale=HostArray(self.sign * term.scale.value))
            for term in y.terms
        )
        offset = HostArray(x.offset.value + self.sign * y.offset.value)
        return Codes(x.terms + tuple(signed), offset)


class Then(nnx.Module):
    """An integer operation and, where the slots are quantized, the roundings around it."""

    def __init__(
        self,
        operation: nnx.Module,
        rounding: nnx.Module | None,
        entry: nnx.Module | None = None,
    ):
        self.operation = operation
        self.exit = rounding
        self.entry = entry

    def __call__(self, *inputs: Codes) -> Codes:
        """Pending codes, or codes on the output grid."""
        if self.entry is not None:
            inputs = (self.entry(*inputs),)  # pyright: ignore[reportCallIssue]
        y = self.operation(*inputs)  # pyright: ignore[reportCallIssue]
        return y if self.exit is None else self.exit(y)  # pyright: ignore[reportCallIssue]


class Concat(Layer):
    """Concatenation along channels. Integer inputs must be single terms; per-channel scales sit
    side by side.
    """

    kind: ClassVar[str] = "concat"
    slots: ClassVar[tuple[str, ...]] = ("output",)

    output: FloatSlot | Slot

    def __init__(self) -> None:
        self.bind_float_slots()

    def __call__(self, *inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """Inputs of equal leading shape, joined on the last axis."""
        return self.output(jnp.concatenate(inputs, axis=-1))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Integers side by side with per-channel scales; plain codes on equal grids stay plain."""
        if any_float(inputs):
            return FloatBoundary(self)
        codes = [x for x in inputs if isinstance(x, Codes)]
        if any(len(x.terms) != 1 for x in codes):
            raise ValueError(
                "an input is a pending residual sum; put a quantized activation before the "
                "concatenation"
            )
        return Then(_SideBySide(), landing(self.output, inputs[0], policy))


def _channels(x: Codes, value: np.ndarray) -> np.ndarray:
    return np.broadcast_to(value, x.shape[-1:])


class _SideBySide(nnx.Module):
    def __call__(self, *inputs: Codes) -> Codes:
        first = [x.terms[0] for x in inputs]
        dtype = jnp.int8 if all(term.ints.dtype == jnp.int8 for term in first) else jnp.int32
        ints = jnp.concatenate([term.ints.astype(dtype) for term in first], axis=-1)
        low, high = min(term.low for term in first), max(term.high for term in first)
        parts = [(x.terms[0].scale, x.terms[0].zero_point, x.offset) for x in inputs]
        if len(set(parts)) == 1 and all(part.value.ndim == 0 for part in parts[0]):
            return Codes(
                (dataclasses.replace(first[0], ints=ints, low=low, high=high),), inputs[0].offset
            )
        scale, zero = (
            np.concatenate([_channels(x, getattr(x.terms[0], name).value) for x in inputs])
            for name in ("scale", "zero_point")
        )
        offset = np.concatenate([_channels(x, x.offset.value) for x in inputs])
        return Codes(
            (IntegerTerm(ints, HostArray(scale), HostArray(zero), low, high),), HostArray(offset)
        )


class Mul(Layer):
    """Element by element product, as a gate has it; an axis of size 1 is repeated.

    In integers both factors must be codes: their product is one exact int32 term.
    """

    kind: ClassVar[str] = "add"
    slots: ClassVar[tuple[str, ...]] = ("output",)

    output: FloatSlot | Slot

    def __init__(self) -> None:
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x * y` for tensors with as many axes, through the slot."""
        return self.output(x * y)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """The product of the codes less their zero points."""
        if any_float(inputs):
            return FloatBoundary(self)
        codes = [x for x in inputs if isinstance(x, Codes)]
        if not all(x.is_plain() for x in codes):
            raise ValueError(
                "a factor is a pending sum, not codes on one grid; put an activation with an "
                "`output` quantizer before the product"
            )
        return Then(_Product(), landing(self.output, inputs[0], policy))


class _Product(nnx.Module):
    def __call__(self, x: Codes, y: Codes) -> Codes:
        (a,), (b,) = x.terms, y.terms
        zeros = int(a.zero_point.value), int(b.zero_point.value)
        ints = (a.ints.astype(jnp.int32) - zeros[0]) * (b.ints.astype(jnp.int32) - zeros[1])
        ends = [
            (left - zeros[0]) * (right - zeros[1])
            for left in (a.low, a.high)
            for right in (b.low, b.high)
        ]
        scale = HostArray(a.scale.value * b.scale.value)
        return Codes((IntegerTerm(ints, scale, HostArray(0.0), min(ends), max(ends)),))
