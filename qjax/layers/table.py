"""Activation functions that integers look up: sigmoid, tanh and others, 256 codes in, codes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.codes import Codes, int8_shift
from qjax.core.requantize import Policy
from qjax.layers.join import Then
from qjax.layers.layer import FloatBoundary, Layer, Value, landing
from qjax.layers.slots import AnyError, FloatSlot, Requantize, Slot
from qjax.layers.variables import IntegerConstant

CURVES: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "sigmoid": jax.nn.sigmoid,
        "tanh": jnp.tanh,
        "silu": jax.nn.silu,
        "gelu": jax.nn.gelu,
        "hard_sigmoid": jax.nn.hard_sigmoid,
        "hard_swish": jax.nn.hard_swish,
    }
)


class TableAct(Layer):
    """`output(error(function(input(x))))`, in integers a table of 256 codes.

    The table needs codes to look up: quantize `input`, or put a quantized activation before it.

    Args:
        function: one of `CURVES`.
    """

    kind: ClassVar[str] = "act"
    slots: ClassVar[tuple[str, ...]] = ("input", "output", "error")
    pending: ClassVar[bool] = False

    input: FloatSlot | Slot
    output: FloatSlot | Slot
    error: AnyError

    def __init__(self, function: str = "sigmoid"):
        if function not in CURVES:
            raise ValueError(f"TableAct.function must be one of {sorted(CURVES)}, got {function!r}")
        self.function = function
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The activation, each tensor through its slot."""
        return self.output(self.error(CURVES[self.function](self.input(x))))

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """A table, each of its codes computed as the simulation computes it."""
        (x,) = inputs
        entry = landing(self.input, x, policy)
        float_input = entry is None and not isinstance(x, Codes)
        if float_input or not isinstance(self.output, Slot):
            return FloatBoundary(self)
        fed = jax.eval_shape(entry, x) if entry is not None else x
        require_codes(fed)
        table = _table(fed, CURVES[self.function], self.output)
        grid = Requantize(self.output.grid(), policy)
        return Then(IntegerTable(table, grid, self.function), None, entry)


def require_codes(x: Codes) -> None:
    """Raise unless a table can be indexed with these.

    Raises:
        ValueError: pending sums.
    """
    if not x.is_plain():
        raise ValueError(
            "its input is a pending sum, not codes on one grid; give this layer an `input` "
            "quantizer, or put an activation with an `output` quantizer before it"
        )


def _table(x: Codes, function: Callable[[Array], Array], slot: Slot) -> np.ndarray:
    """Output codes of the 256 stored input codes, least first."""
    (term,) = x.terms
    steps = np.arange(-128, 128) - float(term.zero_point.value)
    real = jnp.asarray(steps, jnp.float32) * jnp.float32(term.scale.value)
    (codes,) = slot.quantizer.codes(slot.values(), function(real))
    grid = slot.grid()
    return np.asarray(codes.codes, np.int64) - int8_shift(grid.low, grid.high)


class IntegerTable(nnx.Module):
    """A table of int8 codes.

    Args:
        table: 256 codes, that of -128 first.
        landing: the grid that they are on.
        function: what it is a table of, for readers.
    """

    def __init__(self, table: np.ndarray, landing: Requantize, function: str):
        self.table = IntegerConstant(jnp.asarray(table, jnp.int8))
        self.landing = landing
        self.function = function

    def __call__(self, x: Codes) -> Codes:
        """The codes looked up."""
        (term,) = x.terms
        return self.landing.wrap(self.table[...][term.ints.astype(jnp.int32) + 128])
