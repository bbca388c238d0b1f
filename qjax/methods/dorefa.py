"""DoReFa-Net: low bit width convolutional networks with low bit width gradients.

Zhou, Wu, Ni, Zhou, Wen, Zou. arXiv 1606.06160 (2016). Released code: tensorpack,
examples/DoReFa-Net.

    Q_k(r)  = round((2^k - 1) r) / (2^k - 1),  r in [0, 1]                                  (Eq. 5)
    weights, k >= 2:  w_q = 2 Q_k( tanh(w) / (2 max|tanh(w)|) + 1/2 ) - 1                   (Eq. 9)
    weights, k = 1:   w_q = sign(w) mean|w|, one mean for the layer                         (Eq. 8)
    activations:      a_q = Q_k( clip(x, 0, 1) )                                            (Eq. 11)

Gradients: Q_k is straight-through; clip passes [0, 1]; the maximum is differentiated, as in the
released code; at one bit `dw = g`.
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


def _unit_interval(w: Float[Array, "*shape"], detach: bool) -> Float[Array, "*shape"]:
    """tanh(w) / (2 max|tanh(w)|) + 1/2; an all-zero tensor gives 1/2 everywhere instead of 0/0."""
    t = jnp.tanh(w)
    largest = jnp.max(jnp.abs(t))
    largest = jax.lax.stop_gradient(largest) if detach else largest
    # A product and barriers, for one rounding in every program: XLA kept a quotient only where its
    # gradient stood beside it and took the reciprocal elsewhere; one code in 147,456 moved.
    half = jax.lax.optimization_barrier(0.5 / jnp.where(largest > 0, largest, 1))
    return jax.lax.optimization_barrier(t * half + 0.5)


@dataclasses.dataclass(frozen=True)
class DoReFaWeight(Quantizer):
    """DoReFa weights: 2^k levels (2i - n) / n, i = 0..n, n = 2^k - 1; none of them is zero.

    Forward Eq. 9 (k >= 2) or Eq. 8 (k = 1). Backward, with t = tanh(w), M = max|t|: `dw = g (1 -
    t^2) / M`, and at the arg-max m additionally `- sign(t_m) (1 - t_m^2) sum_j(g_j t_j) / M^2`
    unless `detach_maximum`; k = 1: `dw = g`.

    Integer form: the zero point is n/2, a half-integer (real zero lies between two codes). Up to 7
    bits the doubled odd integers 2i - n fit int8; at 8 bits the kernel uses 2 sum(i a) + sum(a).

    Attributes:
        bits: k, 1 to 8, traced.
        detach_maximum: leave out the maximum's own gradient, as larq; the released code keeps it.

    Differences from the paper: an all-zero tensor, undefined there, gives the code beside zero.
    First and last layers are the recipe's business.

    Example:
        >>> q = DoReFaWeight(bits=2)
        >>> w = jnp.array([-1.0, 0.2, 0.9])
        >>> p = q.init(w, Role("weight", 3))
        >>> print(q(p, w).round(4))
        [-1.      0.3333  1.    ]
        >>> print(jax.grad(lambda w: q(p, w).sum())(w).round(4))
        [0.6616 1.2619 0.6393]
    """

    bits: int | None = 4
    detach_maximum: bool = False

    reference: ClassVar[str] = "zhou2016dorefa"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced"}
    not_idempotent: ClassVar[str] = "tanh bends a quantized weight once more"
    rescales: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("DoReFaWeight", self.bits)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only: the range is recomputed from the weights at every step."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """Codes i in 0..n, scale 2/n, zero point n/2; at one bit 0 and 1, scale 2 mean|w|."""
        return (self._term(p, x, _unit_interval(x, self.detach_maximum)),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated weight, shape of `x`."""
        unit = _unit_interval(x, self.detach_maximum)
        value = decode_terms((self._term(p, x, unit),))
        return straight_through(jnp.where(p["bits"] == 1, x, 2 * unit - 1), value)

    def _term(self, p: Numbers, x: Float[Array, "*shape"], unit: Float[Array, "*shape"]) -> Term:
        n = top_code(p["bits"])
        binary = p["bits"] == 1
        codes = jnp.where(binary, (sign(x) + 1) / 2, jnp.round(n * unit))
        magnitude = jnp.where(binary, jnp.mean(jnp.abs(x)), 1.0)
        return Term(codes, jax.lax.optimization_barrier(magnitude * 2 / n), n / 2, 0.0, n)


@dataclasses.dataclass(frozen=True)
class DoReFaActivation(Quantizer):
    """DoReFa activations: 2^k levels 0, 1/n, .., 1 with n = 2^k - 1; replaces the ReLU.

    Forward `round(n clip(x, 0, 1)) / n` (Eq. 11); backward 1 on the closed interval [0, 1], else 0.

    Attributes:
        bits: k, 1 to 8, traced. One bit gives {0, 1} with the switch at 0.5.

    Differences from the paper: none known. (The released SVHN models use a clipped absolute value,
    by PACT's account.)

    Example:
        >>> q = DoReFaActivation(bits=2)
        >>> p = q.init(jnp.zeros(1), Role("activation", 1))
        >>> print(q(p, jnp.array([-0.4, 0.25, 1.4])).round(4))
        [0.     0.3333 1.    ]
        >>> jax.grad(lambda x: q(p, x).sum())(jnp.array([-0.4, 0.25, 1.4])).tolist()
        [0.0, 1.0, 0.0]
    """

    bits: int | None = 4

    reference: ClassVar[str] = "zhou2016dorefa"
    roles: ClassVar[tuple[str, ...]] = ("activation",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced"}
    rectifies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("DoReFaActivation", self.bits)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only: the range [0, 1] is fixed."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """Codes 0..n, scale 1/n; Eq. 5 as it stands, since x / (1/n) misses the tie at 1/2."""
        n = top_code(p["bits"])
        return (Term(jnp.round(n * jnp.clip(x, 0, 1)), 1 / n, 0.0, 0.0, n),)

    def __call__(self, p: Numbers, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The simulated activation, shape of `x`."""
        return straight_through(clip_straight_through(x, 0.0, 1.0), decode_terms(self.codes(p, x)))
