"""Layers that only move numbers."""

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
from qjax.core.windows import Padding, explicit, pad
from qjax.layers.layer import FloatBoundary, Layer, Value


class Reshape(Layer):
    """(n, ...) -> (n, *shape), the last axis varying fastest.

    Args:
        shape: sizes without the batch.
    """

    kind: ClassVar[str] = "shape"
    slots: ClassVar[tuple[str, ...]] = ()
    pending: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, ...]):
        self.shape = tuple(shape)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """The reshaped tensor."""
        return x.reshape(x.shape[0], *self.shape)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """The same on integers; scales by channel need the last axis kept."""
        del policy
        (x,) = inputs
        if not isinstance(x, Codes):
            return FloatBoundary(self)
        numbers = [x.offset, *(n for term in x.terms for n in (term.scale, term.zero_point))]
        if self.shape[-1:] != x.shape[-1:] and any(n.value.ndim for n in numbers):
            raise ValueError(
                f"its input has a scale for each of {x.shape[-1]} channels, which {self.shape} "
                "would mix; put a quantized activation before it, or keep the last axis"
            )
        return IntegerReshape(self.shape)


class IntegerReshape(nnx.Module):
    """The same integers in another shape."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def __call__(self, x: Codes) -> Codes:
        """Codes of shape (n, *shape)."""
        terms = (
            dataclasses.replace(term, ints=term.ints.reshape(term.ints.shape[0], *self.shape))
            for term in x.terms
        )
        return dataclasses.replace(x, terms=tuple(terms))


class Pad(Layer):
    """Zeros around the image.

    Args:
        padding: one number for every side, or ((top, bottom), (left, right)).
    """

    kind: ClassVar[str] = "shape"
    slots: ClassVar[tuple[str, ...]] = ()
    pending: ClassVar[bool] = False

    def __init__(self, padding: int | Padding):
        self.padding = explicit(padding, (1, 1), (1, 1))

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q c"]:
        """The padded tensor."""
        return pad(x, self.padding)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """The same on integers, padding with the code of real zero."""
        del policy
        (x,) = inputs
        if not isinstance(x, Codes):
            return FloatBoundary(self)
        if not x.is_plain():
            raise ValueError(
                "its input is a pending sum; put a quantized activation before the padding"
            )
        return IntegerPad(self.padding)


class IntegerPad(nnx.Module):
    """Codes of real zero around an image of codes."""

    def __init__(self, padding: Padding):
        self.padding = padding

    def __call__(self, x: Codes) -> Codes:
        """The padded codes."""
        (term,) = x.terms
        ints = pad(term.ints, self.padding, int(term.zero_point.value))
        return Codes((dataclasses.replace(term, ints=ints),))


class Flatten(Layer):
    """(n, ...) -> (n, product of the rest), channels varying fastest."""

    kind: ClassVar[str] = "shape"
    slots: ClassVar[tuple[str, ...]] = ()
    pending: ClassVar[bool] = False

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n c"]:
        """The flat tensor."""
        return x.reshape(x.shape[0], -1)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """The same on integers; per-channel scales repeat for every pixel."""
        del policy
        return _IntegerFlatten() if isinstance(inputs[0], Codes) else FloatBoundary(self)


class _IntegerFlatten(nnx.Module):
    def __call__(self, x: Codes) -> Codes:
        repeats = int(np.prod(x.shape[1:-1]))

        def tile(value: HostArray) -> HostArray:
            return value if value.value.ndim == 0 else HostArray(np.tile(value.value, repeats))

        def flat(term: IntegerTerm) -> IntegerTerm:
            ints: Array = term.ints.reshape(term.ints.shape[0], -1)
            return dataclasses.replace(
                term, ints=ints, scale=tile(term.scale), zero_point=tile(term.zero_point)
            )

        return Codes(tuple(flat(term) for term in x.terms), tile(x.offset))


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
