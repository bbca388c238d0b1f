"""Small quantizers that need a random key or the progress of the training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qjax.core.codes import Term, decode_terms
from qjax.core.gradients import straight_through
from qjax.core.quantizer import Kind, Quantizer


@dataclasses.dataclass(frozen=True)
class StochasticWeight(Quantizer):
    """Weights on a grid of step 1/8, rounded up with the fraction's probability in training."""

    reference: ClassVar[str] = "test-stochastic"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = {}
    stochastic: ClassVar[bool] = True

    def init(self, x, role):
        del x, role
        return {}

    def codes(self, p, x, key=None):
        del p
        shift = 0.5 if key is None else jax.random.uniform(key, x.shape)
        return (Term(jnp.clip(jnp.floor(8 * x + shift), -7, 7), jnp.float32(1 / 8), 0.0, -7, 7),)

    def __call__(self, p, x, key=None):
        return straight_through(x, decode_terms(self.codes(p, x, key)))


@dataclasses.dataclass(frozen=True)
class SignError(Quantizer):
    """Gradients of which the sign is left, times a random factor of the whole tensor."""

    reference: ClassVar[str] = "test-error"
    roles: ClassVar[tuple[str, ...]] = ("error",)
    kinds: ClassVar[Mapping[str, Kind]] = {}
    stochastic: ClassVar[bool] = True

    def init(self, x, role):
        del x, role
        return {}

    def codes(self, p, x):
        del p
        return (Term(jnp.sign(x), jnp.float32(1), 0.0, -1, 1),)

    def __call__(self, p, x, key=None):
        factor = jnp.float32(1) if key is None else jax.random.uniform(key, minval=1.0, maxval=2.0)
        return _sign_behind(x, factor)


@jax.custom_vjp
def _sign_behind(x: Array, factor: Array) -> Array:
    del factor
    return x


_sign_behind.defvjp(
    lambda x, factor: (x, factor), lambda factor, g: (factor * jnp.sign(g), jnp.zeros_like(factor))
)


@dataclasses.dataclass(frozen=True)
class AnnealedWeight(Quantizer):
    """Weights that move from float to a grid of step 1/8 as training proceeds."""

    reference: ClassVar[str] = "test-annealed"
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    kinds: ClassVar[Mapping[str, Kind]] = {"share": "progress"}

    def init(self, x, role):
        del x, role
        return {"share": jnp.zeros(())}

    def codes(self, p, x):
        del p
        codes = jnp.clip(jnp.round(8 * x), -7, 7)
        return (Term(codes, jnp.float32(1 / 8), 0.0, -7, 7),)

    def __call__(self, p, x):
        (term,) = self.codes(p, x)
        return straight_through(x, x + p["share"] * (decode_terms((term,)) - x))
