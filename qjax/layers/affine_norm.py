"""Batch normalization that stands alone: before an activation, with no convolution in front.

He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", arXiv 1603.05027: the
pre-activation order normalizes a residual sum, which no kernel could absorb. In integers it
computes nothing: its factor and offset join the scales of the pending terms, and the next quantizer
rounds.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.codes import Codes
from qjax.core.host import HostArray
from qjax.core.requantize import Policy
from qjax.layers.join import Then
from qjax.layers.layer import FloatBoundary, Layer, Value, any_float, landing
from qjax.layers.norm import BatchNorm
from qjax.layers.shift_norm import ShiftNorm
from qjax.layers.slots import FloatSlot, Slot


class Norm(Layer):
    """Batch normalization over the last axis of any tensor; behind a convolution use `ConvBN`.

    Args:
        features: channels c, the last axis.
    """

    kind: ClassVar[str] = "norm"
    slots: ClassVar[tuple[str, ...]] = ("output",)

    output: FloatSlot | Slot

    def __init__(self, features: int):
        self.statistics: BatchNorm | ShiftNorm = BatchNorm(features)
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "*shape c"]) -> Float[Array, "*shape c"]:
        """The normalized tensor, through the slot."""
        return self.output(self.statistics.normalize(x))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """The pending terms with the factor in their scales."""
        if any_float(inputs):
            return FloatBoundary(self)
        factor, offset = self.statistics.after()
        return Then(_Rescaled(factor, offset), landing(self.output, inputs[0], policy))


class _Rescaled(nnx.Module):
    """Codes of `x * factor + offset`: the same integers."""

    def __init__(self, factor: np.ndarray, offset: np.ndarray):
        self.factor = HostArray(factor)
        self.offset = HostArray(offset)

    def __call__(self, x: Codes) -> Codes:
        factor, offset = self.factor.value, self.offset.value
        terms = (
            dataclasses.replace(term, scale=HostArray(term.scale.value * factor))
            for term in x.terms
        )
        return Codes(tuple(terms), HostArray(x.offset.value * factor + offset))
