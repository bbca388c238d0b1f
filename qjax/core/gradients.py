"""Straight-through building blocks, each with its gradient written out as a `custom_vjp`.

A method whose paper states a gradient writes its own; these are for the parts that papers share.
The forward values are exact (no `x + stop_gradient(q - x)`, which can leave a result one ulp off
its grid).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def round_straight_through(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Round half to even; gradient 1 everywhere.

    Example:
        >>> float(round_straight_through(jnp.float32(2.5)))
        2.0
        >>> float(jax.grad(round_straight_through)(jnp.float32(2.5)))
        1.0
    """
    return jnp.round(x)


round_straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


@jax.custom_vjp
def clip_straight_through(
    x: Float[Array, "*shape"], low: Float[Array, ""] | float, high: Float[Array, ""] | float
) -> Float[Array, "*shape"]:
    """Clip to [low, high]; gradient 1 on the closed interval and 0 outside, none to the bounds.

    Written out because `jnp.clip`'s own gradient at an end point depends on the primitive behind
    it.

    Example:
        >>> slope = jax.vmap(jax.grad(clip_straight_through), (0, None, None))
        >>> slope(jnp.array([-1.0, 0.0, 1.0, 2.0]), 0.0, 1.0).tolist()
        [0.0, 1.0, 1.0, 0.0]
    """
    return jnp.clip(x, low, high)


def _clip_forward(x, low, high):
    return jnp.clip(x, low, high), (x, low, high)


def _clip_backward(saved, g):
    x, low, high = saved
    inside = (x >= low) & (x <= high)
    return (
        jnp.where(inside, g, 0),
        jnp.zeros_like(jnp.asarray(low)),
        jnp.zeros_like(jnp.asarray(high)),
    )


clip_straight_through.defvjp(_clip_forward, _clip_backward)


@jax.custom_vjp
def straight_through(
    surrogate: Float[Array, "*shape"], value: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """`value` forward, the gradient of `surrogate` backward; nothing flows to `value`.

    Unlike `surrogate + stop_gradient(value - surrogate)` the result is `value` to the last bit.

    Example:
        >>> float(jax.grad(lambda x: straight_through(x * x, jnp.round(x * x)))(jnp.float32(3)))
        6.0
    """
    del surrogate
    return value


straight_through.defvjp(lambda surrogate, value: (value, None), lambda _, g: (g, jnp.zeros_like(g)))


def sign(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """+1 where x >= 0, else -1: the sign of the binarization papers, where zero is not a value."""
    return jnp.where(x >= 0, jnp.ones_like(x), -jnp.ones_like(x))


@jax.custom_vjp
def sign_straight_through(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`sign` with gradient 1 everywhere (DoReFa's and BWN's weights).

    Example:
        >>> float(sign_straight_through(jnp.float32(0.0)))
        1.0
        >>> float(jax.grad(sign_straight_through)(jnp.float32(-3.0)))
        1.0
    """
    return sign(x)


sign_straight_through.defvjp(lambda x: (sign(x), None), lambda _, g: (g,))


@jax.custom_vjp
def sign_clipped(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`sign` with gradient 1 for |x| <= 1 and 0 outside (BNN's hard tanh).

    Example:
        >>> jax.vmap(jax.grad(sign_clipped))(jnp.array([-2.0, -1.0, 0.5])).tolist()
        [0.0, 1.0, 1.0]
    """
    return sign(x)


sign_clipped.defvjp(lambda x: (sign(x), x), lambda x, g: (jnp.where(jnp.abs(x) <= 1, g, 0),))
