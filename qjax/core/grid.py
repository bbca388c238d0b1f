"""Grids: which integer codes exist and which real numbers they stand for."""

from __future__ import annotations

import dataclasses
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Grid:
    """A uniform grid on the host: code q in [low, high] stands for `scale * (q - zero_point)`.

    Attributes:
        scale: real units per code, positive.
        zero_point: the code of real zero; whole for every grid an activation may use.
        low, high: inclusive code range, at most 256 codes.
    """

    scale: float
    zero_point: float
    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ValueError(
                f"Grid.scale must be positive and finite, got {self.scale}; the tensor may be dead"
            )
        if self.low >= self.high:
            raise ValueError(f"Grid.low must be below Grid.high, got [{self.low}, {self.high}]")


def check_bits(owner: str, bits: object, low: int = 1, high: int = 8) -> None:
    """Raise unless `bits` is a whole number in [low, high]; None means "moved into the traced
    numbers".

    Raises:
        ValueError: naming the field, the value and the range.
    """
    if bits is None:
        return
    try:
        whole = operator.index(bits)  # pyright: ignore[reportArgumentType]
    except TypeError:
        whole = None
    if whole is None or isinstance(bits, bool) or not low <= whole <= high:
        raise ValueError(
            f"{owner}.bits must be a whole number from {low} to {high}, got {bits!r}; "
            "for an unquantized tensor choose qjax.methods.none.NoQuantizer"
        )


def check_number(owner: str, field: str, value: object, low: float, high: float) -> None:
    """Raise unless `value` is a finite number in [low, high]; None means "moved into the traced
    numbers".
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(
            f"{owner}.{field} must be a number from {low:g} to {high:g}, got {value!r}"
        )


def traced_bits(bits: int | None) -> Int[Array, ""]:
    """A validated bit width as the traced number that quantizers read."""
    assert bits is not None, "bits were moved into the traced numbers already"
    return jnp.asarray(bits, jnp.int32)


def top_code(bits: Int[Array, ""]) -> Float[Array, ""]:
    """2^bits - 1, the largest unsigned code, from a traced bit width.

    By an integer shift: `exp2` is inexact at 13 and 15 bits.

    Example:
        >>> float(top_code(jnp.int32(4)))
        15.0
    """
    return (jnp.left_shift(1, bits) - 1).astype(jnp.float32)


def signed_range(bits: Int[Array, ""], narrow: bool) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Two's-complement code range of a traced bit width; `narrow` drops the most negative code.

    Example:
        >>> [float(v) for v in signed_range(jnp.int32(4), narrow=True)]
        [-7.0, 7.0]
    """
    half = jnp.left_shift(1, bits - 1)
    low = 1 - half if narrow else -half
    return low.astype(jnp.float32), (half - 1).astype(jnp.float32)


def uniform_codes(
    x: Float[Array, "*shape"],
    scale: Float[Array, "..."],
    zero_point: Float[Array, "..."] | float,
    low: Float[Array, ""] | float,
    high: Float[Array, ""] | float,
) -> Float[Array, "*shape"]:
    """`clip(round(x / scale) + zero_point, low, high)`: the one rounding of the framework, half to
    even.

    The barrier keeps the scale from being fused into the division, so that every program that
    computes these codes (simulation, encode, diagnostics) rounds the same quotient.

    Example:
        >>> uniform_codes(jnp.array([0.25, 0.75, 9.0]), jnp.float32(0.5), 0.0, 0.0, 3.0).tolist()
        [0.0, 2.0, 3.0]
    """
    scale = jax.lax.optimization_barrier(scale)
    return jnp.clip(jnp.round(x / scale) + zero_point, low, high)
