"""SAWB: statistics-aware weight binning (the weight half of "Accurate and efficient 2-bit quantized
neural networks").

Choi, Venkataramani, Srinivasan, Gopalakrishnan, Wang, Chuang. arXiv 1807.06964, SysML 2019.

    alpha_w = c1 sqrt(mean(w^2)) - c2 mean|w|
    w_q     = alpha_w ( 2 round(n (clip(w / alpha_w, -1, 1)/2 + 1/2)) / n - 1 ),  n = 2^k - 1

The coefficients, fitted over six weight distributions, are those of IBM's fms-model-optimizer; a
third-party source, since the paper prints only the 2-bit pair (3.2, -2.1). An alpha_w below zero is
replaced by max|w|, as there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.core.codes import Term, decode_terms
from qjax.core.gradients import clip_straight_through, straight_through
from qjax.core.grid import check_bits, top_code
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable

COEFFICIENTS = {
    2: (3.12, 2.064),
    3: (7.509, 6.892),
    4: (12.68, 12.80),
    5: (17.74, 18.64),
    8: (31.76, 35.04),
}
"""(c1, c2) by bit width, 2^k levels without zero."""

ZERO_ALIGNED = {2: (2.6, 1.71), 4: (12.035, 12.03), 7: (28.24, 30.81), 8: (31.76, 35.04)}
"""(c1, c2) by bit width, 2^k - 1 levels with zero."""


@dataclasses.dataclass(frozen=True)
class Sawb(Quantizer):
    """SAWB weights, one clip per tensor recomputed from its first two absolute moments.

    Forward as above; with `zero_aligned` the 2^k - 1 levels `alpha_w i / (2^(k-1) - 1)`, which
    standard integer kernels take. Backward `dw = g` for |w| <= alpha_w, else 0 ("SAWB+",
    `pass_all`, passes everywhere); alpha_w is a statistic and receives no gradient.

    Attributes:
        bits: 2, 3, 4, 5 or 8 (zero aligned: 2, 4, 7 or 8); traced, with the coefficients that
            belong to it.
        zero_aligned: whether real zero is a level.
        pass_all: pass the gradient outside the clip too.

    Differences from the paper: coefficients from a later implementation (see the module); widths
    without published coefficients are refused.

    Example:
        >>> q = Sawb(bits=2)
        >>> w = jnp.array([-0.9, -0.07, 0.02, 0.58])
        >>> p = q.init(w, Role("weight", 4))
        >>> [round(float(v), 3) for v in q(p, w)]
        [-0.864, -0.288, 0.288, 0.864]
        >>> jax.grad(lambda w: q(p, w).sum())(w).tolist()
        [0.0, 1.0, 1.0, 1.0]
    """

    bits: int | None = 4
    zero_aligned: bool = False
    pass_all: bool = False

    reference: ClassVar[str] = "choi2019sawb"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced", "coefficients": "traced"}
    not_idempotent: ClassVar[str] = "a quantized weight has other moments, hence another clip"

    def __post_init__(self) -> None:
        check_bits("Sawb", self.bits, low=2)
        table = ZERO_ALIGNED if self.zero_aligned else COEFFICIENTS
        if self.bits is not None and self.bits not in table:
            raise ValueError(
                f"Sawb.bits must be one of {sorted(table)} (published coefficients), got "
                f"{self.bits!r}"
            )
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width and its two coefficients."""
        del x, role
        assert self.bits is not None, "bits were moved into the traced numbers already"
        table = ZERO_ALIGNED if self.zero_aligned else COEFFICIENTS
        return {
            "bits": jnp.int32(self.bits),
            "coefficients": jnp.asarray(table[self.bits], jnp.float32),
        }

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """Codes 0..n around n/2, or -m..m with m = 2^(k-1) - 1 when zero aligned."""
        return (self._term(p, x, self._clip(p, x)),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated weight, shape of `x`."""
        alpha = self._clip(p, x)
        surrogate = x if self.pass_all else clip_straight_through(x, -alpha, alpha)
        return straight_through(surrogate, decode_terms((self._term(p, x, alpha),)))

    def _clip(self, p: Numbers, x: Float[Array, "..."]) -> Float[Array, ""]:
        magnitude = jnp.abs(jax.lax.stop_gradient(x))
        c1, c2 = p["coefficients"][0], p["coefficients"][1]
        alpha = c1 * jnp.sqrt(jnp.mean(jnp.square(magnitude))) - c2 * jnp.mean(magnitude)
        alpha = jnp.where(alpha > 0, alpha, jnp.max(magnitude))
        return jax.lax.optimization_barrier(jnp.where(alpha > 0, alpha, 1.0))

    def _term(self, p: Numbers, x: Float[Array, "*shape"], alpha: Float[Array, ""]) -> Term:
        if self.zero_aligned:
            m = top_code(p["bits"] - 1)
            unit = jax.lax.optimization_barrier(jnp.clip(x / alpha, -1, 1))
            return Term(jnp.round(m * unit), alpha / m, 0.0, -m, m)
        n = top_code(p["bits"])
        unit = jax.lax.optimization_barrier(jnp.clip(x / alpha, -1, 1) / 2 + 0.5)
        return Term(jnp.round(n * unit), 2 * alpha / n, n / 2, 0.0, n)
