"""Layers that only move numbers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import Policy
from qjax.layers.layer import FloatBoundary, Layer, Value


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
