"""DoReFa weights without their tanh: what the ablation of `dorefa.py` compares with.

Zhou, Wu, Ni, Zhou, Wen, Zou. arXiv 1606.06160 (2016) puts tanh(w) / (2 max|tanh(w)|) + 1/2 into Q_k
and does not say why. In its place, with Q_k as there:

    linear:  w_q = 2 Q_k( w / (2 max|w|) + 1/2 ) - 1,        with `keep_scale` times max|w|
    clip:    w_q = 2 Q_k( clip(w, -1, 1) / 2 + 1/2 ) - 1     (as WRPN, arXiv 1709.01134, clips)
    k = 1:   w_q = sign(w) mean|w|, as there

Gradients: Q_k is straight-through; the clip passes [-1, 1]; the maximum is differentiated as in
`dorefa.py`, with `keep_scale` it is held and the gradient is 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.core.codes import Term, decode_terms
from qjax.core.gradients import clip_straight_through, sign, straight_through
from qjax.core.grid import check_bits, top_code, traced_bits
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable


@dataclasses.dataclass(frozen=True)
class DoReFaLinearWeight(Quantizer):
    """DoReFa's 2^k weight levels, reached by a straight line instead of tanh.

    Attributes:
        bits: k, 1 to 8, traced.
        clip: clip at -1 and 1 instead of dividing by the largest weight.
        keep_scale: multiply back by the largest weight, so that the weights keep their magnitude
            where no normalization follows.

    Differences from the paper: the missing tanh is the point. `clip` has WRPN's range with DoReFa's
    levels, none of them zero.

    Example:
        >>> q = DoReFaLinearWeight(bits=2)
        >>> w = jnp.array([-0.5, 0.125, 0.375])
        >>> p = q.init(w, Role("weight", 3))
        >>> print(q(p, w).round(4))
        [-1.      0.3333  1.    ]
        >>> jax.grad(lambda w: q(p, w)[1])(w).tolist()
        [0.5, 2.0, 0.0]
    """

    bits: int | None = 4
    clip: bool = False
    keep_scale: bool = False

    reference: ClassVar[str] = "zhou2016dorefa"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced"}
    not_idempotent: ClassVar[str] = "at one bit the mean of quantized weights is not theirs"

    def __post_init__(self) -> None:
        check_bits("DoReFaLinearWeight", self.bits)
        if self.clip and self.keep_scale:
            raise ValueError(
                "DoReFaLinearWeight.keep_scale must be false where clip is true, got true: a fixed "
                "clip has no scale to keep"
            )
        check_hashable(self)

    @property
    def rescales(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether decoded weights have another magnitude than the weights."""
        return not (self.clip or self.keep_scale)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only: the range is fixed, or recomputed from the weights at every step."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """Codes i in 0..n, scale 2/n, zero point n/2; at one bit 0 and 1, scale 2 mean|w|."""
        return (self._term(p, x, self._unit_interval(x)),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated weight, shape of `x`."""
        unit = self._unit_interval(x)
        value = decode_terms((self._term(p, x, unit),))
        line = (2 * unit - 1) * self._magnitude(x)
        return straight_through(jnp.where(p["bits"] == 1, x, line), value)

    def _unit_interval(self, w: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.clip:
            return jax.lax.optimization_barrier(clip_straight_through(w, -1.0, 1.0) * 0.5 + 0.5)
        largest = jnp.max(jnp.abs(w))
        largest = jax.lax.stop_gradient(largest) if self.keep_scale else largest
        # A product and barriers, for one rounding in every program, as in `dorefa.py`.
        half = jax.lax.optimization_barrier(0.5 / jnp.where(largest > 0, largest, 1))
        return jax.lax.optimization_barrier(w * half + 0.5)

    def _magnitude(self, w: Float[Array, "*shape"]) -> Array:
        """What the levels between -1 and 1 are multiplied by."""
        if not self.keep_scale:
            return jnp.ones(())
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(w)))
        return jnp.where(largest > 0, largest, 1)

    def _term(self, p: Numbers, x: Float[Array, "*shape"], unit: Float[Array, "*shape"]) -> Term:
        n = top_code(p["bits"])
        binary = p["bits"] == 1
        codes = jnp.where(binary, (sign(x) + 1) / 2, jnp.round(n * unit))
        magnitude = jnp.where(binary, jnp.mean(jnp.abs(x)), self._magnitude(x))
        return Term(codes, jax.lax.optimization_barrier(magnitude * 2 / n), n / 2, 0.0, n)
