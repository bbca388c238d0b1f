"""Slots: the places in a layer where a tensor may be quantized, and what can be bound there.

| binding | what it does to the tensor | where |
|---|---|---|
| `FloatSlot` | nothing | float models, and tensors that a rule leaves in float |
| `Slot` | simulates a quantizer, with its numbers as state | after `quantize` |
| `Watched` | nothing; its quantizer's statistics follow | phases that quantize later |
| `ErrorSlot` | nothing; quantizes the gradient that flows back through it | after `quantize` |
| `Requantize` | integers in, integer codes on one grid out | after `integerize` |
| `Encode` | float in, integer codes out: where a float first layer ends | after `integerize` |
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from qjax.core.codes import Codes, IntegerTerm, int8_shift
from qjax.core.grid import Grid
from qjax.core.host import HostArray
from qjax.core.quantizer import Quantizer
from qjax.core.requantize import Affine, Policy
from qjax.layers.variables import KINDS, Noise


class FloatSlot(nnx.Module):
    """The tensor passes unchanged."""

    def __call__(self, x: Array) -> Array:
        """`x` itself."""
        return x

    def linear(self, op: Callable[[Array, Array], Array], x: Array, w: Array) -> Array:
        """`op(x, w)`: the layer's linear operation on float operands, in the precision of `x`."""
        return op(x, w.astype(x.dtype))

    def penalty(self) -> Float[Array, ""]:
        """No loss term."""
        return jnp.zeros(())


class Slot(nnx.Module):
    """A quantizer bound to one tensor, with its numbers. It computes in float32, and hands on the
    precision of its input.

    Args:
        quantizer: stripped of its traced hyper-parameters; static.
        numbers: what `quantizer.init` returned; kept as `Learned`, `Statistic` and `Traced`
            variables.
        key: first random key of a stochastic quantizer; each training pass splits it, so that the
            noise follows from this key and the number of passes alone.
    """

    def __init__(
        self, quantizer: Quantizer, numbers: dict[str, Array], key: PRNGKeyArray | None = None
    ):
        self.quantizer = quantizer.stripped()
        self.numbers = nnx.Dict(
            {name: KINDS[quantizer.kinds[name]](value) for name, value in numbers.items()}
        )
        start = jax.random.key(0) if key is None else key
        self.noise = Noise(start) if quantizer.stochastic else None
        # NNX's own words for training and evaluation: statistics, noise.
        self.use_running_average = False
        self.deterministic = False

    def values(self) -> dict[str, Array]:
        """The numbers as plain arrays."""
        return {name: variable[...] for name, variable in self.numbers.items()}

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated tensor; in training the statistics see `x` first."""
        wide = x.astype(jnp.float32)
        self.observe(wide)
        return self.quantizer(self.values(), wide, **self._noise()).astype(x.dtype)

    def observe(self, x: Float[Array, "*shape"]) -> None:
        """In training, let the statistics see a float32 tensor."""
        if not self.use_running_average:
            for name, value in self.quantizer.observe(self.values(), x).items():
                self.numbers[name][...] = value

    def _noise(self) -> dict[str, PRNGKeyArray | None]:
        """The further argument of a stochastic quantizer."""
        if self.noise is None:
            return {}
        if self.deterministic:
            return {"key": None}
        kept, fresh = jax.random.split(self.noise[...])
        self.noise[...] = kept
        return {"key": fresh}

    def linear(self, op: Callable[[Array, Array], Array], x: Array, w: Array) -> Array:
        """`op(x, simulated w)`, or what the method makes of both operands (its own `linear`)."""
        own = getattr(self.quantizer, "linear", None)
        if own is None:
            return op(x, self(w).astype(x.dtype))
        wide = x.astype(jnp.float32)
        return own(op, wide, w, self.values(), **self._noise()).astype(x.dtype)

    def penalty(self) -> Float[Array, ""]:
        """The method's loss term."""
        return self.quantizer.penalty(self.values())

    def grid(self) -> Grid:
        """The grid of an activation, from the present numbers."""
        return self.quantizer.grid(self.values())

    def encode(self, x: Array) -> Codes:
        """The integer form of a concrete tensor."""
        return self.quantizer.encode(self.values(), x)


class Watched(nnx.Module):
    """A tensor that stays float while the statistics of its quantizer follow it.

    Args:
        watched: the slot that takes over when the tensor is quantized.
    """

    def __init__(self, watched: Slot):
        self.watched = watched

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`x` itself."""
        self.watched.observe(x.astype(jnp.float32))
        return x

    def linear(self, op: Callable[[Array, Array], Array], x: Array, w: Array) -> Array:
        """`op(x, w)` in float."""
        return op(x, self(w).astype(x.dtype))


AnySlot = FloatSlot | Slot | Watched


class ErrorSlot(nnx.Module):
    """The identity, whose quantizer acts on the gradient: a backward signal has no integer form.

    Args:
        slot: a quantizer of the role `error`, the identity forward.
    """

    def __init__(self, slot: Slot):
        self.slot = slot

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`x` itself."""
        return self.slot(x)


AnyError = FloatSlot | ErrorSlot


class Requantize(nnx.Module):
    """Pending integers in, int8 codes on one grid out; the only place where an integer network
    rounds.

    Args:
        grid: where the codes live.
        policy: arithmetic of the rounding (`core/requantize.py`).
        floor, ceiling: real bounds of an activation function merged into the clamp (ReLU: floor 0;
            ReLU6: 0 and 6).
        slope: of the function below real zero, in (0, 1]: a leaky ReLU takes the larger of two
            roundings, of x and of slope * x.
    """

    def __init__(
        self,
        grid: Grid,
        policy: Policy,
        floor: float = -np.inf,
        ceiling: float = np.inf,
        slope: float = 1.0,
    ):
        if not float(grid.zero_point).is_integer():
            raise ValueError(f"an activation grid needs a whole zero point, got {grid.zero_point}")
        self.grid = grid
        self.policy = policy
        self.slope = slope
        shift = int8_shift(grid.low, grid.high)
        self.zero_point = int(grid.zero_point) - shift
        # A ReLU after the rounding equals one before it: rounding is monotone and real zero is a
        # code.
        low, high = (
            float(np.round(bound / grid.scale)) + grid.zero_point for bound in (floor, ceiling)
        )
        self.low = int(max(grid.low, low)) - shift
        self.high = int(min(grid.high, high)) - shift

    def affine(self, x: Codes, slope: float = 1.0) -> Affine:
        """What must be computed, in output steps, for `slope` times the tensor."""
        scale = self.grid.scale / slope
        scales = tuple(term.scale.value / scale for term in x.terms)
        zeros = sum(s * term.zero_point.value for s, term in zip(scales, x.terms, strict=True))
        return Affine(
            scales=scales,
            offset=np.asarray(x.offset.value / scale - zeros + self.zero_point),
            bounds=tuple((term.low, term.high) for term in x.terms),
            low=self.low,
            high=self.high,
            zero_point=self.zero_point,
            zeros=_whole_zeros(x),
        )

    def __call__(self, x: Codes) -> Codes:
        """Codes of the same shape: one int8 term with a scalar scale."""
        terms = [term.ints for term in x.terms]
        codes = self.policy(terms, self.affine(x))
        if self.slope != 1:
            codes = jnp.maximum(codes, self.policy(terms, self.affine(x, self.slope)))
        return self.wrap(codes.astype(jnp.int8))

    def exact(self, x: Codes) -> np.ndarray:
        """The output in steps before it is rounded and clamped, in float64 on the host."""
        affine = self.affine(x)
        steps = np.zeros(x.shape) + affine.offset
        for scale, term in zip(affine.scales, x.terms, strict=True):
            steps = steps + scale * np.asarray(term.ints, np.float64)
        zero = self.zero_point
        return np.maximum(steps, zero + self.slope * (steps - zero))

    def wrap(self, ints: Array) -> Codes:
        """Integers that lie on the grid already, as `Codes`."""
        scale, zero = HostArray(self.grid.scale), HostArray(self.zero_point)
        return Codes((IntegerTerm(ints, scale, zero, self.low, self.high),))


def _whole_zeros(x: Codes) -> tuple[int, ...]:
    """Each term's integer for real zero, for policies that subtract it first (TFLite's ADD)."""
    zeros = [term.zero_point.value for term in x.terms]
    if all(zero.ndim == 0 and float(zero).is_integer() for zero in zeros):
        return tuple(int(zero) for zero in zeros)
    return ()


class Encode(nnx.Module):
    """Float in, codes out: the border where a float first layer ends and the integer part
    begins.
    """

    def __init__(self, slot: Slot, before: Callable[[Array], Array]):
        self.slot = slot
        self.before = before
        self.landing = Requantize(slot.grid(), policy=_never)

    def __call__(self, x: Float[Array, "*shape"]) -> Codes:
        """The codes that simulation computes, as int8."""
        (term,) = self.slot.quantizer.codes(self.slot.values(), self.before(x))
        shift = int8_shift(self.landing.grid.low, self.landing.grid.high)
        return self.landing.wrap((term.codes - shift).astype(jnp.int8))


def _never(terms: object, affine: object) -> Array:
    raise AssertionError("a landing grid is never requantized to")


def decode_float32(x: Codes) -> Float[Array, "..."]:
    """Codes as float32, traced: the border where a float last layer begins (not part of the integer
    program).
    """

    def widened(value: HostArray) -> np.ndarray:
        lead = (1,) * (len(x.shape) - 1)
        return value.value.astype(np.float32).reshape((*lead, -1) if value.value.ndim else ())

    total = jnp.zeros(x.shape, jnp.float32) + widened(x.offset)
    for term in x.terms:
        ints = term.ints.astype(jnp.float32) - widened(term.zero_point)
        total = total + widened(term.scale) * ints
    return total
