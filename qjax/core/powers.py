"""Powers of two near a number: the scales that cost a shift."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def nearest_power(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """2^round(log2 x), exactly, for x > 0; the switch lies at sqrt(2) 2^n.

    At zero the result is one half, so that 0 / nearest_power(0) is 0: a dead tensor stays dead.

    Example:
        >>> nearest_power(jnp.array([0.7, 0.71, 1.4, 3.0])).tolist()
        [0.5, 1.0, 1.0, 4.0]
    """
    # A logarithm in float32 may miss the switch; a mantissa and one comparison, which is also how
    # hardware does it (leading zeros), do not.
    mantissa, exponent = jnp.frexp(x)
    return jnp.ldexp(jnp.ones_like(x), exponent - (mantissa < math.sqrt(0.5)))


def power_above(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """2^ceil(log2 x), exactly, for x > 0: the least power of two that is not below x.

    Example:
        >>> power_above(jnp.array([0.25, 0.3, 1.0, 3.0])).tolist()
        [0.25, 0.5, 1.0, 4.0]
    """
    mantissa, exponent = jnp.frexp(x)
    return jnp.ldexp(jnp.ones_like(x), exponent - (mantissa == 0.5))
