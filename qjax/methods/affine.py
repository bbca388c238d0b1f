"""Affine (min-max) quantization: symmetric and asymmetric, per tensor and per channel,
moving-average ranges.

Jacob et al., arXiv 1712.05877 (CVPR 2018), section 3; Krishnamoorthi's white paper, arXiv
1806.08342, section 2.

    asymmetric:  s = (b - a) / (2^k - 1),  Z = round(-a / s),   q = clip(round(x / s) + Z, 0, 2^k -
    1)
    symmetric:   s = max|x| / (2^(k-1) - 1),                    q = clip(round(x / s), -(2^(k-1) -
    1), 2^(k-1) - 1)

with a = min(min x, 0) and b = max(max x, 0), so that real zero is a code. Gradient: 1 inside the
range that the grid covers, 0 outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.calibration.ema import EmaMinMax
from qjax.calibration.estimator import Estimator
from qjax.core.codes import Term, decode_terms
from qjax.core.gradients import straight_through
from qjax.core.grid import check_bits, signed_range, top_code, traced_bits, uniform_codes
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable


def _parameters(
    low: Array, high: Array, bits: Array, symmetric: bool
) -> tuple[Array, Array, Array, Array]:
    """Scale, zero point and code range of a real range; a range of zero width gets scale 1."""
    if symmetric:
        least, most = signed_range(bits, narrow=True)
        width = jnp.maximum(jnp.abs(low), jnp.abs(high))
        scale = jnp.where(width > 0, width, 1.0) / most
        return jax.lax.optimization_barrier(scale), jnp.zeros_like(scale), least, most
    n = top_code(bits)
    low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    scale = jax.lax.optimization_barrier(jnp.where(high > low, high - low, 1.0) / n)
    return scale, jnp.clip(jnp.round(-low / scale), 0, n), jnp.zeros_like(n), n


def _simulate(x: Float[Array, "*shape"], term: Term) -> Float[Array, "*shape"]:
    """Decoded codes, with gradient 1 on the real range of the grid.

    The range ends a hair further out, 2^-10 of a step: its last bit would decide about the largest
    weight otherwise, which is an end itself.
    """
    ends = (term.low - 2**-10, term.high + 2**-10)
    first, last = (term.scale * (end - term.zero_point) for end in ends)
    inside = jax.lax.stop_gradient((x >= first) & (x <= last))
    return straight_through(jnp.where(inside, x, 0), jax.lax.stop_gradient(decode_terms((term,))))


@dataclasses.dataclass(frozen=True)
class AffineWeight(Quantizer):
    """Min-max weights: the range is that of the weights at every step.

    Attributes:
        bits: k, 2 to 8, traced.
        symmetric: real zero at code 0 and the range -(2^(k-1)-1)..2^(k-1)-1 (the most negative code
            unused, as int8 kernels ask); otherwise codes 0..2^k-1 with a nudged zero point.
        per_channel: one scale (and zero point) per output channel, the last axis.

    Differences from the paper: ties round half to even (TensorFlow's kernels: away from zero).

    Example:
        >>> q = AffineWeight(bits=2)
        >>> w = jnp.array([-1.0, 0.2, 0.6])
        >>> p = q.init(w, Role("weight", 3))
        >>> q(p, w).tolist()
        [-1.0, 0.0, 1.0]
        >>> jax.grad(lambda w: q(p, w).sum())(w).tolist()
        [1.0, 1.0, 1.0]
    """

    bits: int | None = 8
    symmetric: bool = True
    per_channel: bool = False

    reference: ClassVar[str] = "jacob2018integer"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced"}

    def __post_init__(self) -> None:
        check_bits("AffineWeight", self.bits, low=2)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only: the range is taken from the weights at every step."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term; scale and zero point of shape `()` or `(c,)`."""
        axes = tuple(range(x.ndim - 1)) if self.per_channel else None
        still = jax.lax.stop_gradient(x)
        scale, zero, low, high = _parameters(
            still.min(axes), still.max(axes), p["bits"], self.symmetric
        )
        shape = (1,) * (x.ndim - 1) + (-1,) if self.per_channel else ()
        codes = uniform_codes(x, scale.reshape(shape), zero.reshape(shape), low, high)
        return (Term(codes, scale, zero, low, high),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated weight, shape of `x`."""
        return _simulate(x, _broadcast(self.codes(p, x)[0], x.ndim))


def _broadcast(term: Term, ndim: int) -> Term:
    """Per-channel numbers with explicit leading axes (rank promotion is an error under test)."""

    def widen(value: Array | float) -> Array:
        value = jnp.asarray(value)
        return value.reshape((1,) * (ndim - 1) + (-1,)) if value.ndim else value

    return term._replace(scale=widen(term.scale), zero_point=widen(term.zero_point))


@dataclasses.dataclass(frozen=True)
class AffineActivation(Quantizer):
    """Affine activations with a range that an estimator follows during training.

    Attributes:
        bits: k, 2 to 8, traced.
        symmetric: codes -(2^(k-1)-1)..2^(k-1)-1 around zero; otherwise 0..2^k-1 with a nudged zero
            point, which after a ReLU spends no code on negative numbers.
        estimator: follows the range (see `qjax/calibration/`).

    Differences from the paper: ties round half to even; no delayed start (a property of the phase).

    Example:
        >>> q = AffineActivation(bits=2)
        >>> p = q.init(jnp.array([0.0, 3.0]), Role("activation", 2))
        >>> q(p, jnp.array([-1.0, 1.2, 9.0])).tolist()
        [0.0, 1.0, 3.0]
        >>> jax.grad(lambda x: q(p, x).sum())(jnp.array([-1.0, 1.2, 9.0])).tolist()
        [0.0, 1.0, 0.0]
    """

    bits: int | None = 8
    symmetric: bool = False
    estimator: Estimator = EmaMinMax()

    reference: ClassVar[str] = "jacob2018integer"
    roles: ClassVar[tuple[str, ...]] = ("activation",)
    kinds: ClassVar[Mapping[str, Kind]] = {
        "bits": "traced",
        "low": "statistic",
        "high": "statistic",
    }

    def __post_init__(self) -> None:
        check_bits("AffineActivation", self.bits, low=2)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The range of the first sample."""
        del role
        low, high = self.estimator.first(x)
        return {"bits": traced_bits(self.bits), "low": low, "high": high}

    def observe(self, p: Numbers, x: Float[Array, "..."]) -> dict[str, Array]:
        """The range after one more training batch."""
        low, high = self.estimator.update(p["low"], p["high"], jax.lax.stop_gradient(x))
        return {"low": low, "high": high}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term with scalar scale and whole zero point."""
        scale, zero, low, high = _parameters(p["low"], p["high"], p["bits"], self.symmetric)
        return (Term(uniform_codes(x, scale, zero, low, high), scale, zero, low, high),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated activation, shape of `x`."""
        return _simulate(x, self.codes(p, x)[0])
