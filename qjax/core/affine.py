"""What one requantization has to compute, apart from how: the numbers that every policy reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
HostNumber = (
    np.ndarray | np.float64 | np.int64
)  # numpy turns 0-d arrays into scalars as it computes
_WIDEST_CODE = 2**29  # leaves two bits of an int32 for a saturated sum beside the widest code range
_WIDEST_SPAN = 2.0**48  # output steps; beyond, fewer than 12 fractional bits fit a 64-bit sum


@dataclass(frozen=True, eq=False)
class Affine:
    """One requantization: `code = clip(round(sum_i scales[i] * term_i + offset), low, high)`.

    All of it is known on the host; none of it becomes a leaf of the traced tree. How `round`
    breaks ties, and in which arithmetic, is the policy's.

    Args:
        scales: per term, float64 of shape () or (c,): output steps per integer unit of the term.
            May be negative (a BN gamma below zero), tiny or zero.
        offset: float64 of shape () or (c,), output steps; includes the output zero point.
        bounds: per term, the least and largest value it can take; inside int32.
        low, high: output code range, inclusive, inside +-2**29.
        zero_point: output zero point, in `offset` already; named because some runtimes add it
            before they round and others after.
        zeros: per term, its integer for real zero, in `offset` already; read by the two-operand
            ADD of TFLite alone. Empty means zero for every term.

    Raises:
        ValueError: field, value received and values allowed.

    Example:
        >>> halves = Affine((np.float64(0.5),), np.float64(0.25), ((-8, 7),), low=-2, high=2)
        >>> halves.channels is None, halves.scales[0].shape
        (True, ())
    """

    scales: tuple[HostNumber, ...]
    offset: HostNumber
    bounds: tuple[tuple[int, int], ...]
    low: int
    high: int
    zero_point: int = 0
    zeros: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        scales = tuple(_host(scale, f"scales[{i}]") for i, scale in enumerate(self.scales))
        object.__setattr__(self, "scales", scales)
        object.__setattr__(self, "offset", _host(self.offset, "offset"))
        object.__setattr__(self, "bounds", tuple((int(a), int(b)) for a, b in self.bounds))
        object.__setattr__(self, "zeros", tuple(self.zeros) or (0,) * len(scales))
        self._check_counts()
        self._check_ranges()

    def _check_counts(self) -> None:
        counts = len(self.scales), len(self.bounds), len(self.zeros)
        if counts[0] == 0 or len(set(counts)) > 1:
            raise ValueError(
                "Affine.scales, .bounds and .zeros must have one entry per term and at least one, "
                f"got {counts[0]}, {counts[1]} and {counts[2]}"
            )
        sizes = {a.size for a in (*self.scales, self.offset) if a.ndim}
        if len(sizes) > 1:
            raise ValueError(
                "Affine.scales and .offset must be scalars or agree on the number of channels, "
                f"got {sorted(sizes)} channels"
            )

    def _check_ranges(self) -> None:
        if not -_WIDEST_CODE <= self.low <= self.high <= _WIDEST_CODE:
            raise ValueError(
                f"Affine.low and .high must satisfy -2**29 <= low <= high <= 2**29, "
                f"got low={self.low}, high={self.high}"
            )
        for index, (low, high) in enumerate(self.bounds):
            if not INT32_MIN <= low <= high <= INT32_MAX:
                raise ValueError(
                    f"Affine.bounds[{index}] must be (least, largest) inside int32, "
                    f"got ({low}, {high}); a sum that can leave int32 needs narrower codes"
                )
        with np.errstate(over="ignore"):
            span = np.max(self.span)
        if not span < _WIDEST_SPAN:
            raise ValueError(
                f"Affine.scales must keep the sum of the terms below 2**48 output steps, got "
                f"{span:.3g} from scales up to {max(np.max(np.abs(s)) for s in self.scales):.3g}; "
                "the output grid is far too fine for its input: check its scale"
            )

    @property
    def channels(self) -> int | None:
        """Number of channels, or None when every number is a scalar."""
        return next((a.size for a in (*self.scales, self.offset) if a.ndim), None)

    @property
    def reach(self) -> tuple[int, ...]:
        """Per term, the largest magnitude that it can take."""
        return tuple(max(-low, high) for low, high in self.bounds)

    @property
    def span(self) -> np.ndarray:
        """Output steps, () or (c,): the largest magnitude of the sum of the terms."""
        spans = [np.abs(s) * r for s, r in zip(self.scales, self.reach, strict=True) if r]
        return np.asarray(sum(spans, start=np.zeros(())))

    def int32(self, terms: Sequence[Int[Array, "*shape"]]) -> list[Int32[Array, "*shape"]]:
        """The terms as int32, after checking that they are what the numbers speak of.

        Raises:
            TypeError: a term that is not of an integer dtype.
            ValueError: a wrong number of terms, or a last axis that is not the channels.
        """
        if len(terms) != len(self.scales):
            raise ValueError(f"terms: expected {len(self.scales)}, one per scale, got {len(terms)}")
        for index, term in enumerate(terms):
            if not jnp.issubdtype(term.dtype, jnp.integer):
                raise TypeError(f"terms[{index}] must be integers, got {term.dtype}")
            if term.shape != terms[0].shape:
                raise ValueError(f"terms must share one shape, got {[t.shape for t in terms]}")
        if self.channels is not None and terms[0].shape[-1:] != (self.channels,):
            raise ValueError(
                f"terms must have their {self.channels} channels on the last axis, "
                f"got shape {terms[0].shape}"
            )
        return [term.astype(jnp.int32) for term in terms]


Policy = Callable[[Sequence[Int[Array, "*shape"]], Affine], Int32[Array, "*shape"]]


def _host(value: HostNumber, field: str) -> np.ndarray:
    """A read-only float64 copy of shape () or (c,)."""
    array = np.array(value, np.float64)
    if array.ndim > 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"Affine.{field} must be finite and of shape () or (channels,), "
            f"got shape {array.shape}: {array}"
        )
    array.flags.writeable = False
    return array
