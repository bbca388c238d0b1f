"""Activation functions that round as they are computed: ReLUs, clips, leaky ReLU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import jax
from flax import nnx
from jaxtyping import Array, Float

from qjax.core.requantize import Policy
from qjax.layers.layer import FloatBoundary, Layer, Value, landing
from qjax.layers.slots import AnyError, FloatSlot, Slot

_INF = float("inf")
FUNCTIONS = {
    "relu": (jax.nn.relu, 0.0, _INF, 1.0),
    "relu6": (jax.nn.relu6, 0.0, 6.0, 1.0),
    "identity": (lambda x: x, -_INF, _INF, 1.0),
    "leaky_relu": (partial(jax.nn.leaky_relu, negative_slope=0.1), -_INF, _INF, 0.1),
}
"""Function, the real bounds that it clips to, its slope below zero: what its integer form merges
into the rounding. The slope of `leaky_relu` is Darknet's; `LeakyRelu` takes any.
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
    pending: ClassVar[bool] = False

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
        _, floor, ceiling, slope = FUNCTIONS[self.function]
        return _rounded(self, inputs, policy, self.before, floor, ceiling, slope)


class Clip(Layer):
    """`output(error(clip(x, low, high)))`: bounds of one's own, where `Act` has those of ReLUs.

    Args:
        low, high: real units, low <= 0 <= high, so that zero stays zero.
    """

    kind: ClassVar[str] = "act"
    slots: ClassVar[tuple[str, ...]] = ("output", "error")
    pending: ClassVar[bool] = False

    output: FloatSlot | Slot
    error: AnyError

    def __init__(self, low: float, high: float):
        if not low <= 0 <= high or low == high:
            raise ValueError(f"Clip.low and .high must enclose zero, got {low} and {high}")
        self.low = low
        self.high = high
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The clipped tensor, through its slots."""
        return self.output(self.error(self.before(x)))

    def before(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The float function."""
        return jax.numpy.clip(x, self.low, self.high)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """One requantization with these bounds in its clamp."""
        return _rounded(self, inputs, policy, self.before, self.low, self.high)


class LeakyRelu(Layer):
    """`output(error(x))` where x >= 0, `output(error(slope * x))` below.

    Args:
        slope: in (0, 1).
    """

    kind: ClassVar[str] = "act"
    slots: ClassVar[tuple[str, ...]] = ("output", "error")
    pending: ClassVar[bool] = False

    output: FloatSlot | Slot
    error: AnyError

    def __init__(self, slope: float = 0.01):
        if not 0 < slope < 1:
            raise ValueError(f"LeakyRelu.slope must be between 0 and 1, got {slope}")
        self.slope = slope
        self.bind_float_slots()

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The activation, through its slots."""
        return self.output(self.error(self.before(x)))

    def before(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The float function."""
        return jax.nn.leaky_relu(x, self.slope)

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """Two requantizations, of x and of slope * x, and the larger code."""
        return _rounded(self, inputs, policy, self.before, slope=self.slope)


def _rounded(
    layer: Act | Clip | LeakyRelu,
    inputs: tuple[Value, ...],
    policy: Policy,
    before: Callable[[Array], Array],
    floor: float = float("-inf"),
    ceiling: float = float("inf"),
    slope: float = 1.0,
) -> nnx.Module:
    """The twin of a function that requantizes as it is computed; float without a grid to round to,
    which a rule must have asked for (`Recipe.resolve`).
    """
    (x,) = inputs
    twin = landing(layer.output, x, policy, before, floor, ceiling, slope)
    return FloatBoundary(layer) if twin is None else twin
