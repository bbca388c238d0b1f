"""TWN: ternary weight networks.

Li, Zhang, Liu. arXiv 1605.04711 (2016). Released code: fengfu-chris/caffe-twns.

    Delta = 0.7 mean|w|                         (the paper's approximation of the best threshold)
    t     = 1 for w > Delta, -1 for w < -Delta, else 0
    alpha = mean of |w| over |w| > Delta
    w_q   = alpha t,    backward dw = g

Delta and alpha are those of the whole layer. A product with t is an addition, a subtraction or
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.core.codes import Term, decode_terms
from qjax.core.gradients import straight_through
from qjax.core.grid import check_bits, check_number, traced_bits
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable


@dataclasses.dataclass(frozen=True)
class Twn(Quantizer):
    """TWN weights: alpha times -1, 0 or 1, from the weights themselves at every step.

    Forward as above; backward `dw = g` for every weight, none to Delta and alpha.

    Attributes:
        bits: 2, traced: what a ternary code takes.
        threshold: Delta as a multiple of mean|w|, in (0, 1), traced; 0.7 in the paper.

    Differences from the paper: a tensor of zeros, for which alpha is 0/0, gets alpha = 1 (the
    released code adds 1e-6 to the count).

    Example:
        >>> q = Twn()
        >>> w = jnp.array([-1.0, 0.25, 0.5, 0.0])
        >>> p = q.init(w, Role("weight", 4))
        >>> q(p, w).tolist()
        [-0.75, 0.0, 0.75, 0.0]
        >>> jax.grad(lambda w: q(p, w).sum())(w).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    bits: int | None = 2
    threshold: float | None = 0.7

    reference: ClassVar[str] = "li2016twn"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced", "threshold": "traced"}

    def __post_init__(self) -> None:
        check_bits("Twn", self.bits, low=2, high=2)
        check_number("Twn", "threshold", self.threshold, 1e-3, 0.999)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """Bit width and threshold; Delta and alpha follow the weights."""
        del x, role
        return {"bits": traced_bits(self.bits), "threshold": jnp.float32(self.threshold)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """Codes -1, 0, 1 with scale alpha."""
        size = jnp.abs(jax.lax.stop_gradient(x))
        delta = jax.lax.optimization_barrier(p["threshold"] * jnp.mean(size))
        kept = size > delta
        count = jnp.sum(kept, dtype=jnp.float32)
        alpha = jnp.sum(jnp.where(kept, size, 0)) / jnp.maximum(count, 1)
        alpha = jax.lax.optimization_barrier(jnp.where(count > 0, alpha, 1.0))
        return (Term(jnp.where(kept, jnp.sign(x), 0), alpha, 0.0, -1.0, 1.0),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated weight, shape of `x`."""
        return straight_through(x, decode_terms(self.codes(p, x)))
