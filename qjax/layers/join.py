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


class _Joined(nnx.Module):
    """Sum of pending codes: their terms side by side."""

    def __call__(self, x: Codes, y: Codes) -> Codes:
        return Codes(x.terms + y.terms, HostArray(x.offset.value + y.offset.value))


class Then(nnx.Module):
    """An integer operation and, where the slot is quantized, the rounding behind it."""

    def __init__(self, operation: nnx.Module, rounding: nnx.Module | None):
        self.operation = operation
        self.exit = rounding

    def __call__(self, *inputs: Codes) -> Codes:
        """Pending codes, or codes on the output grid."""
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


class Subsample(Layer):
    """The parameter-free shortcut of He et al. (option A): every `stride`-th pixel, channels padded
    with zeros.

    Args:
        stride: step in both directions.
        features: channels after padding, half of the new ones on each side.
    """

    kind: ClassVar[str] = "shape"
    slots: ClassVar[tuple[str, ...]] = ()
    pending: ClassVar[bool] = False

    def __init__(self, stride: int, features: int):
        self.stride = stride
        self.features = features

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q o"]:
        """The thinned tensor."""
        return self.thin(x, 0)

    def thin(self, x: Array, zero: int) -> Array:
        """Subsample and pad with `zero`."""
        more = self.features - x.shape[-1]
        thinned = x[:, :: self.stride, :: self.stride, :]
        widths = ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2))
        return jnp.pad(thinned, widths, constant_values=jnp.asarray(zero, x.dtype))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """The same on integers, padding with the code of real zero."""
        del policy
        (x,) = inputs
        if not isinstance(x, Codes):
            return FloatBoundary(self)
        if not x.is_plain():
            raise ValueError(
                "its input is a pending sum; put a quantized activation before the shortcut"
            )
        return _IntegerSubsample(self)


class _IntegerSubsample(nnx.Module):
    def __init__(self, layer: Subsample):
        self.layer = layer

    def __call__(self, x: Codes) -> Codes:
        (term,) = x.terms
        ints = self.layer.thin(term.ints, int(term.zero_point.value))
        return Codes((dataclasses.replace(term, ints=ints),))
