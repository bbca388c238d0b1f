"""Deep learning with limited numerical precision: rounding of what flows back.

Gupta, Agrawal, Gopalakrishnan, Narayanan. ICML 2015, arXiv 1502.02551.

    nearest:     Round(x) = floor(x / e + 1/2) e                                         (section 3)
    stochastic:  Round(x) = (floor(x / e) + Bernoulli(x / e - floor(x / e))) e, unbiased
    both saturate at the ends of the format

The paper's format is a fixed <IL, FL> for the whole network. Gradients of a layer need another one
in every layer and at every epoch, so here the step e follows the largest magnitude of the tensor,
e = max|x| / (2^(k-1) - 1): the plain min-max quantizer, whose rounding is what is compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from qjax.core.codes import Term, decode_terms
from qjax.core.grid import check_bits, signed_range, traced_bits
from qjax.core.quantizer import Kind, Numbers, Quantizer, Role, check_hashable


def _term(
    g: Float[Array, "*shape"], bits: Int[Array, ""], u: Float[Array, "*shape"] | float
) -> Term:
    """Codes of floor(g / e + u): to nearest at u = 1/2, stochastic at uniform u."""
    low, high = signed_range(bits, narrow=True)
    largest = jnp.max(jnp.abs(g))
    step = jnp.where(largest > 0, largest, 1) / high
    return Term(jnp.clip(jnp.floor(g / step + u), low, high), step, 0.0, low, high)


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
class LimitedGradient(Quantizer):
    """Gradients on the symmetric grid of their own largest magnitude, codes -(2^(k-1) - 1)..2^(k-1)
    - 1, one step a tensor.

    Forward the identity, backward the rounding.

    Attributes:
        bits: k, 2 to 8, traced.
        unbiased: round stochastically; False rounds to nearest, so that everything below half a
            step vanishes.

    Differences from the paper: the step follows the tensor (see the module).

    Example:
        >>> q = LimitedGradient(bits=3, unbiased=False)
        >>> x = jnp.ones((1, 4))
        >>> p = q.init(x, Role("error", 4))
        >>> direction = jnp.array([[3.0, -1.75, 0.25, 0.75]])
        >>> q(p, x).tolist()
        [[1.0, 1.0, 1.0, 1.0]]
        >>> jax.grad(lambda x: jnp.sum(q(p, x, None) * direction))(x).tolist()
        [[3.0, -2.0, 0.0, 1.0]]
    """

    bits: int | None = 8
    unbiased: bool = True

    reference: ClassVar[str] = "gupta2015limited"
    roles: ClassVar[tuple[str, ...]] = ("error",)
    kinds: ClassVar[Mapping[str, Kind]] = {"bits": "traced"}
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("LimitedGradient", self.bits, low=2)
        check_hashable(self)

    def init(self, x: Float[Array, "..."], role: Role) -> dict[str, Array]:
        """The bit width only."""
        del x, role
        return {"bits": traced_bits(self.bits)}

    def codes(self, p: Numbers, x: Float[Array, "*shape"]) -> tuple[Term, ...]:
        """One term for a gradient, rounded to nearest."""
        return (_term(x, p["bits"], 0.5),)

    def __call__(
        self, p: Numbers, x: Float[Array, "*shape"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "*shape"]:
        """`x` itself; what flows back through it is quantized, to nearest where no key is."""
        if self.unbiased and key is not None:
            return _marker(x, p["bits"], jax.random.uniform(key, x.shape))
        return _marker(x, p["bits"], jnp.full(x.shape, 0.5))
