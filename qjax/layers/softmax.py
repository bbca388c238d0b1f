"""Softmax over the last axis."""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import Policy
from qjax.core.softmax import SHARE_BITS, softmax_shares
from qjax.layers.join import Then
from qjax.layers.layer import FloatBoundary, Layer, Value, landing
from qjax.layers.slots import FloatSlot, Slot
from qjax.layers.table import require_codes


class Softmax(Layer):
    """`output(softmax(input(x)))` over the last axis.

    In integers the exponentials come from a table, so it needs codes: quantize `input`, or put a
    quantized activation before it. A classifier needs no softmax: the class is that of the logits.
    """

    kind: ClassVar[str] = "act"
    slots: ClassVar[tuple[str, ...]] = ("input", "output")

    input: FloatSlot | Slot
    output: FloatSlot | Slot

    def __init__(self) -> None:
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
        """The shares, each tensor through its slot."""
        return self.output(jax.nn.softmax(self.input(x), -1))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Shares as pending integers of 2**-28; the next quantizer rounds them."""
        (x,) = inputs
        entry = landing(self.input, x, policy)
        if entry is None and not isinstance(x, Codes):
            return FloatBoundary(self)
        fed = jax.eval_shape(entry, x) if entry is not None else x
        require_codes(fed)
        return Then(IntegerSoftmax(), landing(self.output, fed, policy), entry)


class IntegerSoftmax(nnx.Module):
    """Codes in, one pending term of shares out."""

    def __call__(self, x: Codes) -> Codes:
        """Shares of the last axis."""
        (term,) = x.terms
        shares = softmax_shares(term.ints, float(term.scale.value), term.high - term.low + 1)
        scale = HostArray(2.0**-SHARE_BITS)
        return Codes((IntegerTerm(shares, scale, HostArray(0.0), 0, 2**SHARE_BITS),))
