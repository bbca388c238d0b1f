"""Rounded gradients: to nearest by hand, stochastic on average."""

import jax
import jax.numpy as jnp
import numpy as np

from qjax.core.quantizer import Role
from qjax.methods.limited_precision import LimitedGradient

X = jnp.ones((1, 6))


def backward(q: LimitedGradient, g: jax.Array, key: jax.Array | None) -> np.ndarray:
    p = q.init(X, Role("error", 6))
    return np.asarray(jax.grad(lambda x: jnp.sum(q(p, x, key) * g))(X))


def test_nearest_by_hand():
    # Largest 6 on codes -3..3: the step is 2. 0.9 / 2 rounds to 0, 1 / 2 up to 1, -1 / 2 to 0.
    g = jnp.array([[6.0, -6.0, 0.9, 1.0, -1.0, 3.5]])
    found = backward(LimitedGradient(3, unbiased=False), g, jax.random.key(0))
    np.testing.assert_array_equal(found, [[6, -6, 0, 2, 0, 4]])


def test_stochastic_lies_beside_and_is_unbiased():
    # 0.9 of a step of 2 is 0 or 2: over n keys the mean's deviation is 2 sqrt(p (1 - p) / n).
    g = jnp.array([[6.0, -6.0, 0.9, 1.0, -1.0, 3.5]])
    keys = jax.random.split(jax.random.key(1), 2000)
    found = jax.vmap(lambda key: jax.grad(_loss)(X, g, key))(keys)
    np.testing.assert_array_equal(np.unique(found[:, 0, 2]), [0, 2])
    np.testing.assert_array_equal(np.unique(found[:, 0, :2]), [-6, 6])
    assert np.abs(np.mean(found, 0) - g).max() < 4 * 2 * 0.5 / 2000**0.5


def _loss(x: jax.Array, g: jax.Array, key: jax.Array) -> jax.Array:
    q = LimitedGradient(3)
    return jnp.sum(q(q.init(x, Role("error", 6)), x, key) * g)


def test_a_gradient_of_zeros_stays_zero():
    zeros = jnp.zeros((1, 6))
    for unbiased in (False, True):
        found = backward(LimitedGradient(8, unbiased), zeros, jax.random.key(0))
        np.testing.assert_array_equal(found, 0)
