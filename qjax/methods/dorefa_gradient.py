"""DoReFa-Net: low bit width gradients. Weights and activations are in `dorefa.py`.

Zhou, Wu, Ni, Zhou, Wen, Zou. arXiv 1606.06160 (2016). Released code: tensorpack,
examples/DoReFa-Net.

    Q_k(r)  = round((2^k - 1) r) / (2^k - 1),  r in [0, 1]                                  (Eq. 5)
    f_k(dr) = 2 M ( Q_k( dr / (2 M) + 1/2 + N ) - 1/2 )                                    (Eq. 12)
    N       = u / (2^k - 1),  u ~ U(-1/2, 1/2), one draw an element

M is max|dr| over every axis but the batch's: one number a sample. The quantizer stands on the
output of a convolution, before batch normalization, so that both products of its backward pass take
gradients of k bits. Forward it is the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from qjax.core.codes import Term, decode_terms
from qjax.core.grid import check_bits, top_code, traced_bits
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable


def _term(
    g: Float[Array, "*shape"], bits: Int[Array, ""], u: Float[Array, "*shape"] | float
) -> Term:
    """Codes 0..2^k - 1 of a gradient, batch first, with one scale a sample."""
    n = top_code(bits)
    largest = jnp.max(jnp.abs(g), axis=tuple(range(1, g.ndim)), keepdims=True)
    unit = g / jnp.where(largest > 0, 2 * largest, 1) + 0.5 + u / n
    return Term(jnp.round(n * jnp.clip(unit, 0, 1)), 2 * largest / n, n / 2, 0.0, n)


@jax.custom_vjp
def _marker(
    x: Float[Array, "*shape"], bits: Int[Array, ""], u: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    del bits, u
    return x


def _backward(saved, g):
    bits, u = saved
    return decode_terms((_term(g, bits, u),)), None, jnp.zeros_like(u)


_marker.defvjp(lambda x, bits, u: (x, (bits, u)), _backward)


@dataclasses.dataclass(frozen=True)
class DoReFaGradient(Quantizer):
    """DoReFa gradients: 2^k levels (2i - n) M / n, i = 0..n, n = 2^k - 1; none of them is zero.

    Forward the identity, backward f_k (Eq. 12) with fresh noise at every step, unbiased except
    where the sum leaves [0, 1] and is clipped.

    Attributes:
        bits: k (the paper's G), 1 to 8, traced. The paper's networks take 4 to 8; below 4 bits most
            of them do not converge.

    Differences from the paper: the clip after the noise is the released code's; a sample without
    gradient, 0/0 there, stays without.

    Example:
        >>> q = DoReFaGradient(bits=2)
        >>> x = jnp.ones((1, 4))
        >>> p = q.init(x, Role("error", 4))
        >>> q(p, x, jax.random.key(0)).tolist()
        [[1.0, 1.0, 1.0, 1.0]]
        >>> direction = jnp.array([[3.0, -3.0, 1.0, 0.0]])
        >>> loss = lambda x: jnp.sum(q(p, x, jax.random.key(0)) * direction)
        >>> jax.grad(loss)(x).tolist()
        [[3.0, -3.0, 1.0, -1.0]]
    """

    bits: int | None = 6

    reference: ClassVar[str] = "zhou2016dorefa"
    roles: ClassVar[tuple[str, ...]] = ("error",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced"}
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("DoReFaGradient", self.bits)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "n ..."]) -> tuple[Term, ...]:
        """One term for a gradient, without noise; its scale is one a sample."""
        return (_term(x, p["bits"], 0.0),)

    def __call__(
        self, p: Numbers, x: Float[Array, "*shape"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "*shape"]:
        """`x` itself; what flows back through it is quantized, without noise where no key is."""
        draws = jnp.zeros(x.shape) if key is None else jax.random.uniform(key, x.shape) - 0.5
        return _marker(x, p["bits"], draws)
