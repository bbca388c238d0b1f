"""The integer twin of every layer with weights: one accumulator per weight term, exact in int32.

With operands x = s_x (q - z_x) and w = s_w (v - z_w), a product sum is

    sum x w = (s_x s_w / f) ( sum q e - z_x sum e ),   e = f (v - z_w),

where f is 2 when a zero point is a half-integer (DoReFa) and 1 otherwise, so that e is whole. The
real factor and the constant -z_x sum e join scale and offset on the host. Where e does not fit int8
(8-bit weights off zero) the kernel takes v itself and sum q e = f sum q v - (f z_w) sum q, with the
window sums of q as one more accumulator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.layers.variables import IntegerConstant

INT32 = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The integer operations that a layer supplies.

    Attributes:
        product: (int8 x, int8 kernel, pad_value) -> int32 accumulators (..., o).
        window: (int8 x, pad_value) -> int32 sum of the inputs under each output, (..., g) for
            outputs in g groups that see the same inputs.
    """

    product: Callable[[Array, Array, int], Array]
    window: Callable[[Array, int], Array]


@dataclasses.dataclass(frozen=True)
class WeightPlan:
    """One weight term prepared for an integer kernel; host data only.

    Attributes:
        kernel: int8 operand, channels last.
        double: f of the module's equation, used only when `correction` is set.
        correction: f z_w as int32 `(o,)`, or None when the kernel holds e itself.
        factor: s_w / f, `()` or `(o,)`.
        total: sum of e over all but the last axis, `(o,)`.
        positive, negative: sums of the positive and of the negative e, `(o,)`.
        bits: width of the stored codes.
    """

    kernel: np.ndarray
    double: int
    correction: np.ndarray | None
    factor: np.ndarray
    total: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    bits: int


def plan_weight(term: IntegerTerm) -> WeightPlan:
    """Choose the operand for one weight term (see the module's equation)."""
    codes = np.asarray(term.ints, np.int64)
    zero = term.zero_point.value
    double = 1 if np.all(zero == np.round(zero)) else 2
    assert np.all(double * zero == np.round(double * zero)), (
        "a zero point is a multiple of one half"
    )
    effective = double * codes - np.round(double * zero).astype(np.int64)
    axes = tuple(range(codes.ndim - 1))
    fits = effective.min() >= -128 and effective.max() <= 127
    correction = None
    if not fits:
        correction = np.broadcast_to(np.round(double * zero), codes.shape[-1:]).astype(np.int32)
    return WeightPlan(
        kernel=(effective if fits else codes).astype(np.int8),
        double=double,
        correction=correction,
        factor=np.asarray(term.scale.value / double),
        total=effective.sum(axes),
        positive=np.maximum(effective, 0).sum(axes),
        negative=np.minimum(effective, 0).sum(axes),
        bits=int(term.high - term.low).bit_length(),
    )


def widen(plan: WeightPlan, reach: int, widest: int) -> WeightPlan:
    """The same weights in a finer unit: codes of each channel doubled as often as they may.

    Args:
        plan: left as it is where the kernel holds the stored codes.
        reach: largest magnitude of an input code; sums stay below 2**30.
        widest: largest magnitude of a code to reach; 0 for none.
    """
    if plan.correction is not None:
        return plan
    axes = tuple(range(plan.kernel.ndim - 1))
    largest = np.abs(plan.kernel.astype(np.int64)).max(axes)
    room = np.minimum(
        widest / np.maximum(largest, 1),
        2.0**30 / np.maximum((plan.positive - plan.negative) * reach, 1),
    )
    doublings = np.floor(np.log2(np.maximum(room, 1))).astype(np.int64)
    grown = {name: getattr(plan, name) << doublings for name in ("total", "positive", "negative")}
    kernel = (plan.kernel.astype(np.int64) << doublings).astype(np.int8)
    return dataclasses.replace(
        plan, kernel=kernel, factor=np.ldexp(plan.factor, -doublings), **grown
    )


class IntegerLinear(nnx.Module):
    """Convolution or dense layer in integers; hands on its accumulators as pending codes.

    Args:
        weight: the encoded weight.
        x: what the kernel is fed (abstract): one plain int8 term.
        kernels: the integer operations.
        after: real (factor, offset) behind the product sum: folded BN, bias.
        entry: requantization of the input, when the layer has an input quantizer.
        exit: requantization of the output, when it has an output quantizer.
        widest: see `widen`.

    Raises:
        ValueError: when the accumulator could leave int32.
    """

    def __init__(
        self,
        weight: Codes,
        x: Codes,
        kernels: Kernels,
        after: tuple[np.ndarray, np.ndarray],
        entry: nnx.Module | None = None,
        exit: nnx.Module | None = None,
        widest: int = 0,
    ):
        (operand,) = x.terms
        reach = max(-operand.low, operand.high)
        plans = [widen(plan_weight(term), reach, widest) for term in weight.terms]
        zero = int(operand.zero_point.value)
        factor, offset = after
        self.entry = entry
        self.exit = exit
        self.kernels = kernels
        self.pad_value = zero
        self.weights = nnx.List([IntegerConstant(jnp.asarray(plan.kernel)) for plan in plans])
        self.corrections = tuple(
            None if p.correction is None else HostArray(p.correction) for p in plans
        )
        self.doubles = tuple(plan.double for plan in plans)
        scales = [operand.scale.value * plan.factor * factor for plan in plans]
        self.scales = tuple(HostArray(scale) for scale in scales)
        # Codes whose weights have an offset of their own would need the window sum as a further
        # term.
        assert not np.any(weight.offset.value), "weight codes carry zero points, not offsets"
        self.offset = HostArray(
            offset - sum(s * zero * p.total for s, p in zip(scales, plans, strict=True))
        )
        self.bounds = tuple(_bounds(plan, operand.low, operand.high) for plan in plans)
        self.weight_bits = sum(plan.bits for plan in plans)
        self.operand_bits = (operand.high - operand.low).bit_length()
        self.weight_bytes = sum((plan.kernel.size * plan.bits + 7) // 8 for plan in plans)
        _require_int32(max(self.accumulator_bits))

    @property
    def accumulator_bits(self) -> tuple[int, ...]:
        """Bits of each accumulator, sign included, from the L1 norm of the weights and the range of
        the input.
        """
        return tuple(max(high, -low - 1, 0).bit_length() + 1 for low, high in self.bounds)

    def __call__(self, x: Any) -> Codes:
        """Pending codes of shape (..., o), or codes on the output grid. `x` is `Codes`, or floats
        where `entry` encodes them.
        """
        codes: Codes = x if self.entry is None else self.entry(x)
        q = codes.terms[0].ints
        accumulators = [self._accumulate(q, i) for i in range(len(self.weights))]
        terms = tuple(
            IntegerTerm(acc, scale, HostArray(0.0), low, high)
            for acc, scale, (low, high) in zip(accumulators, self.scales, self.bounds, strict=True)
        )
        pending = Codes(terms, self.offset)
        return pending if self.exit is None else self.exit(pending)

    def _accumulate(self, q: Int[Array, "..."], i: int) -> Int[Array, "..."]:
        acc = self.kernels.product(q, self.weights[i][...], self.pad_value)
        correction = self.corrections[i]
        if correction is None:
            return acc
        shape = (1,) * (acc.ndim - 1) + (-1,)
        zero = jnp.asarray(correction.value.astype(np.int32)).reshape(shape)
        # Each product may wrap; the difference is inside int32 by the bound, and int32 arithmetic
        # is modular.
        sums = self.kernels.window(q, self.pad_value)
        if sums.shape[-1] > 1:
            sums = jnp.repeat(sums, acc.shape[-1] // sums.shape[-1], -1)
        return self.doubles[i] * acc - zero * sums


def _require_int32(bits: int) -> None:
    if bits > 32:
        raise ValueError(
            f"its accumulator could need {bits} bits, more than int32 holds; use fewer bits or a "
            "smaller fan-in"
        )


def _bounds(plan: WeightPlan, low: int, high: int) -> tuple[int, int]:
    least = plan.positive * low + plan.negative * high
    most = plan.positive * high + plan.negative * low
    return int(least.min()), int(most.max())
