"""Codes: what a quantized tensor is, as integers.

A real tensor is written as a short sum of *scale x integer array* plus an offset,

    value = sum_i scale_i * (ints_i - zero_point_i) + offset.

One term covers every uniform grid; several cover residual sums whose parts have different scales,
and weights such as TTQ's. `Term` is the traced form that simulation computes with (codes are
float32 there, so that gradients and float kernels apply); `Codes` is the integer form, whose only
leaves are the integer arrays.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from qjax.core.host import HostArray


class Term(NamedTuple):
    """One term of a quantized tensor while it is traced: `scale * (codes - zero_point)`.

    Attributes:
        codes: whole numbers in float32, the tensor's shape, within [low, high].
        scale: real units per code, shape `()` or broadcastable along the last axis.
        zero_point: the code of real zero, a multiple of one half; shape as `scale`.
        low, high: the declared code range, scalars.
    """

    codes: Float[Array, "..."]
    scale: Float[Array, "..."]
    zero_point: Float[Array, "..."] | float
    low: Num[Array, ""] | float
    high: Num[Array, ""] | float


def decode_terms(terms: tuple[Term, ...]) -> Float[Array, "..."]:
    """The real tensor that traced terms stand for: sum of scale * (codes - zero_point).

    Example:
        >>> float(decode_terms((Term(jnp.float32(3), jnp.float32(0.5), 1.0, 0.0, 3.0),)))
        1.0
    """
    ndim = terms[0].codes.ndim
    return sum(
        along_channels(term.scale, ndim) * (term.codes - along_channels(term.zero_point, ndim))
        for term in terms
    )  # pyright: ignore[reportReturnType]


def along_channels(value: Array | float, ndim: int) -> Array:
    """A per-channel number `(c,)` with the leading axes that a tensor of `ndim` axes needs."""
    value = jnp.asarray(value)
    return value.reshape((1,) * (ndim - 1) + (-1,)) if value.ndim == 1 and ndim > 1 else value


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class IntegerTerm:
    """One term in integers: `scale * (ints - zero_point)`.

    Attributes:
        ints: int8 codes or int32 accumulators, any shape; the only leaf.
        scale: real units per integer, `()` or `(c,)` along the last axis; may be negative (a BN
            gamma below zero).
        zero_point: the stored integer of real zero, a multiple of one half; shape as `scale`.
        low, high: least and largest value that `ints` can hold.
    """

    # Any: a pytree node also holds tracers, abstract values and whatever a transformation puts in.
    ints: Any
    scale: HostArray = dataclasses.field(metadata={"static": True})
    zero_point: HostArray = dataclasses.field(metadata={"static": True})
    low: int = dataclasses.field(metadata={"static": True})
    high: int = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Codes:
    """A quantized tensor: `sum_i scale_i * (ints_i - zero_point_i) + offset`.

    Invariants: every term has the same shape; `low <= ints <= high` elementwise; scales and offset
    are host constants, never leaves.

    Attributes:
        terms: one or more `IntegerTerm`.
        offset: real units, `()` or `(c,)` along the last axis.
    """

    terms: tuple[IntegerTerm, ...]
    offset: HostArray = dataclasses.field(default=HostArray(0.0), metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that the codes stand for."""
        return self.terms[0].ints.shape

    def decode(self) -> np.ndarray:
        """The real tensor in float64, on the host: for tests, logs and laws, not for the integer
        program.
        """
        total = np.zeros(self.shape) + self.offset.value
        for term in self.terms:
            total = total + term.scale.value * (
                np.asarray(term.ints, np.float64) - term.zero_point.value
            )
        return total

    def is_plain(self) -> bool:
        """Whether these are operands for an integer kernel: one int8 term, one scale for all, real
        zero a code.
        """
        if len(self.terms) != 1:
            return False
        term = self.terms[0]
        per_tensor = term.scale.value.ndim == 0 and term.zero_point.value.ndim == 0
        if term.ints.dtype != jnp.int8 or not per_tensor or np.any(self.offset.value):
            return False
        zero = float(term.zero_point.value)
        return zero.is_integer() and term.low <= zero <= term.high


def int8_shift(low: int, high: int) -> int:
    """What to subtract so that codes in [low, high] fit int8: 0, or 128 for unsigned 8-bit.

    Raises:
        ValueError: when the range is wider than 256 values or cannot be shifted into int8.

    Example:
        >>> int8_shift(0, 15), int8_shift(0, 255), int8_shift(-128, 127)
        (0, 128, 0)
    """
    if low >= -128 and high <= 127:
        return 0
    if low >= 0 and high <= 255:
        return 128
    raise ValueError(
        f"code range [{low}, {high}] does not fit an 8-bit container; use at most 8 bits, or a "
        "grid inside [-128, 127] or [0, 255]"
    )
