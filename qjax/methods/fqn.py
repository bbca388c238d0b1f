"""FQN: fully quantized network for object detection.

Li, Wang, Liang, Qin, Yan, Fan. CVPR 2019. No official code.

    q     = clip(round(x / S) + Z, 0, 2^b - 1),   x_q = S (q - Z)
    S     = (high - low) / (2^b - 1),   Z = round(-low / S),   low <= 0 <= high
    weights:      low, high = min(w_c, 0), max(w_c, 0) of each output channel c
    activations:  low, high = percentiles 1 - gamma and gamma over batches, one range a tensor

Every layer is quantized, and every activation from the image on. Batch normalization is folded and
frozen: `FqnWeight` receives gamma w / sqrt(var + eps); the chain rule through the fold updates w.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.calibration.estimator import Estimator
from qjax.calibration.percentile import Percentile
from qjax.core.codes import Term, decode_terms
from qjax.core.gradients import straight_through
from qjax.core.grid import check_bits, top_code, traced_bits, uniform_codes
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable

Kinds = Mapping[str, Kind]


def _term(x: Float[Array, "*shape"], low: Array, high: Array, bits: Array) -> Term:
    """Codes of a range with zero in it; a range of zero width gets scale 1 / (2^b - 1)."""
    n = top_code(bits)
    low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    scale = jax.lax.optimization_barrier(jnp.where(high > low, high - low, 1.0) / n)
    zero = jnp.clip(jnp.round(-low / scale), 0, n)
    return Term(uniform_codes(x, scale, zero, 0.0, n), scale, zero, 0.0, n)


def _simulate(x: Float[Array, "*shape"], term: Term) -> Float[Array, "*shape"]:
    """Decoded codes, with gradient 1 where the code was not clipped and 0 elsewhere."""
    unclipped = jnp.round(jax.lax.stop_gradient(x) / term.scale) + term.zero_point
    inside = (unclipped >= term.low) & (unclipped <= term.high)
    return straight_through(jnp.where(inside, x, 0), jax.lax.stop_gradient(decode_terms((term,))))


@dataclasses.dataclass(frozen=True)
class FqnWeight(Quantizer):
    """FQN weights: asymmetric, one range for each output channel (the last axis), zero a code.

    Forward as above with the range of the weights themselves at every step. Backward 1 where the
    code is not clipped: everywhere, since rounding Z moves the range by half a step at most.

    Attributes:
        bits: b, 2 to 8, traced; 4 in the paper.

    Differences from the paper: ties round half to even (the paper does not say).

    Example:
        >>> q = FqnWeight(bits=2)
        >>> w = jnp.array([[-1.0, 0.0], [0.2, 0.4], [2.0, 1.5]])
        >>> p = q.init(w, Role("weight", 6))
        >>> q(p, w).T.tolist()
        [[-1.0, 0.0, 2.0], [0.0, 0.5, 1.5]]
        >>> jax.grad(lambda w: q(p, w).sum())(w).T.tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    bits: int | None = 4

    reference: ClassVar[str] = "li2019fqn"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Kinds] = {"bits": "traced"}

    def __post_init__(self) -> None:
        check_bits("FqnWeight", self.bits, low=2)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only: the ranges are taken from the weights at every step."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term; scale and zero point of shape `(c,)`."""
        term = self._term(p, x)
        scale, zero = term.scale.ravel(), jnp.asarray(term.zero_point).ravel()
        return (term._replace(scale=scale, zero_point=zero),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated weight, shape of `x`."""
        return _simulate(x, self._term(p, x))

    def _term(self, p: Numbers, x: Float[Array, "*shape"]) -> Term:
        still, axes = jax.lax.stop_gradient(x), tuple(range(x.ndim - 1))
        return _term(x, still.min(axes, keepdims=True), still.max(axes, keepdims=True), p["bits"])


@dataclasses.dataclass(frozen=True)
class FqnActivation(Quantizer):
    """FQN activations: asymmetric, one range a tensor that an estimator follows.

    Forward as above; backward 1 where the code is not clipped, else 0.

    Attributes:
        bits: b, 2 to 8, traced; 4 in the paper.
        estimator: `Percentile` as in the paper, or `EmaMinMax` for the ablation without clipping.

    Differences from the paper: see `Percentile`; ties round half to even.

    Example:
        >>> q = FqnActivation(bits=2, estimator=Percentile(gamma=1.0))
        >>> p = q.init(jnp.array([-1.0, 2.0]), Role("activation", 2))
        >>> q(p, jnp.array([-0.6, 0.4, 9.0])).tolist()
        [-1.0, 0.0, 2.0]
        >>> jax.grad(lambda x: q(p, x).sum())(jnp.array([-0.6, 0.4, 9.0])).tolist()
        [1.0, 1.0, 0.0]
    """

    bits: int | None = 4
    estimator: Estimator = Percentile()

    reference: ClassVar[str] = "li2019fqn"
    roles: ClassVar[tuple[str, ...]] = ("activation",)
    kinds: ClassVar[Kinds] = {"bits": "traced", "low": "statistic", "high": "statistic"}

    def __post_init__(self) -> None:
        check_bits("FqnActivation", self.bits, low=2)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The range of the first sample."""
        del role
        low, high = self.estimator.first(x)
        return {"bits": traced_bits(self.bits), "low": low, "high": high}

    def observe(self, p: Numbers, x: Float[Array, "..."]) -> dict[str, Array]:
        """The range after one more training batch."""
        seen = self.estimator.update(p["low"], p["high"], jax.lax.stop_gradient(x))
        return dict(zip(("low", "high"), seen, strict=True))

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term with scalar scale and whole zero point."""
        return (_term(x, p["low"], p["high"], p["bits"]),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated activation, shape of `x`."""
        return _simulate(x, _term(x, p["low"], p["high"], p["bits"]))
