"""What surgery and conversion ask of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from flax import nnx
from jaxtyping import Array

from qjax.core.codes import Codes
from qjax.core.requantize import Policy
from qjax.layers.slots import Encode, FloatSlot, Requantize, Slot, decode_float32

Value = Any
"""What flows between layers: a float array in training, `Codes` in integer inference, or either of
them abstractly. A model's `__call__` is annotated with it, since one wiring serves every form."""


class Layer(nnx.Module):
    """Base of the layers that rules match.

    Attributes:
        kind: the word that a rule's `kind` field names: conv, dense, norm, act, add, concat, pool,
            shape.
        slots: names of the slots it has.
        pending: whether its integer result waits for a rounding (sums, joins), unlike codes that
            are only chosen or moved.
    """

    kind: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]
    pending: ClassVar[bool] = True

    def bind_float_slots(self) -> None:
        """Start with every slot in float."""
        for name in self.slots:
            setattr(self, name, FloatSlot())

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """Multiply-accumulates for one sample, given the output shape with its batch axis; 0
        without weights.
        """
        del output_shape
        return 0

    def integer(self, inputs: tuple[Value, ...], policy: Policy) -> nnx.Module:
        """The integer twin for inputs of these kinds (abstract arrays or abstract `Codes`)."""
        raise NotImplementedError(f"{type(self).__name__} has no integer form")


class FloatBoundary(nnx.Module):
    """A layer that stays float inside a converted network: codes are decoded before it."""

    def __init__(self, layer: Layer):
        self.layer = layer

    def __call__(self, *inputs: Value) -> Array:
        """The layer's float output."""
        return self.layer(*(decode_float32(x) if isinstance(x, Codes) else x for x in inputs))  # pyright: ignore


def any_float(inputs: tuple[Value, ...]) -> bool:
    """Whether some input is a float array rather than codes."""
    return any(not isinstance(x, Codes) for x in inputs)


def landing(
    slot: FloatSlot | Slot,
    x: Value,
    policy: Policy,
    before: Callable[[Array], Array] = lambda x: x,
    floor: float = float("-inf"),
    ceiling: float = float("inf"),
    slope: float = 1.0,
) -> Requantize | Encode | None:
    """The integer twin of a slot for input `x`: None when the slot is float."""
    if not isinstance(slot, Slot):
        return None
    if isinstance(x, Codes):
        return Requantize(slot.grid(), policy, floor, ceiling, slope)
    return Encode(slot, before)
