"""Activation function and the quantizer behind it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import jax
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.requantize import Policy
from qjax.layers.layer import FloatBoundary, Layer, Value, any_float, landing
from qjax.layers.slots import AnyError, FloatSlot, Slot

FUNCTIONS = {
    "relu": (jax.nn.relu, 0.0, float("inf")),
    "relu6": (jax.nn.relu6, 0.0, 6.0),
    "identity": (lambda x: x, float("-inf"), float("inf")),
    "leaky_relu": (partial(jax.nn.leaky_relu, negative_slope=0.1), float("-inf"), float("inf")),
}
"""Function, and the real bounds that it clips to: what its integer form merges into the clamp. The
slope of `leaky_relu` is Darknet's; it is no clamp, so its integer form stays float.
"""


class Act(Layer):
    """`output(error(function(x)))`.

    A quantizer whose grid begins at zero (PACT, DoReFa) replaces the function's lower half: `relu`
    is left out before it, so that the gradient at zero is the paper's.

    Args:
        function: "relu", "relu6", "identity" or "leaky_relu".
    """

    kind: ClassVar[str] = "act"
    slots: ClassVar[tuple[str, ...]] = ("output", "error")

    output: FloatSlot | Slot
    error: AnyError

    def __init__(self, function: str = "relu"):
        if function not in FUNCTIONS:
            raise ValueError(f"Act.function must be one of {sorted(FUNCTIONS)}, got {function!r}")
        self.function = function
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The activation, through its slots."""
        return self.output(self.error(self.before(x)))

    def before(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The float function, unless the quantizer stands in for it."""
        rectified = isinstance(self.output, Slot) and self.output.quantizer.rectifies
        return x if rectified and self.function == "relu" else FUNCTIONS[self.function][0](x)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """One requantization whose clamp holds the function's bounds."""
        (x,) = inputs
        if self.function == "leaky_relu":
            return FloatBoundary(self)
        _, floor, ceiling = FUNCTIONS[self.function]
        twin = landing(self.output, x, policy, self.before, floor, ceiling)
        if twin is not None:
            return twin
        if any_float(inputs):
            return FloatBoundary(self)
        raise ValueError(
            "it has no `output` quantizer, so its integer form has no grid to round to; add a "
            "rule that sets `output`"
        )
