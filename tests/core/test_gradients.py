"""Straight-through parts: exact values forward, the stated gradient backward, at the ends too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from qjax.core.gradients import (
    clip_straight_through,
    round_straight_through,
    sign,
    sign_clipped,
    sign_straight_through,
    straight_through,
)
from tests.strategies import tensors

X = np.array([-2.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, 2.5], np.float32)
"""Below, at, inside and above [-1, 1], and three ties."""


def slopes(function, *rest: float) -> list[float]:
    """The gradient at each element of X, eager and compiled."""
    single = jax.grad(function)
    eager = [float(single(x, *rest)) for x in jnp.asarray(X)]
    compiled = jax.jit(jax.vmap(single, in_axes=(0, *(None for _ in rest))))(jnp.asarray(X), *rest)
    assert np.asarray(compiled).tolist() == eager
    return eager


@pytest.mark.parametrize(
    ("function", "rest", "values", "gradient"),
    [
        (round_straight_through, (), [-2, -1, 0, 0, 0, 0, 1, 2, 2], [1] * 9),
        (sign, (), [-1, -1, -1, 1, 1, 1, 1, 1, 1], [0] * 9),
        (sign_straight_through, (), [-1, -1, -1, 1, 1, 1, 1, 1, 1], [1] * 9),
        (sign_clipped, (), [-1, -1, -1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 0, 0]),
        (
            clip_straight_through,
            (-1.0, 1.0),
            [-1, -1, -0.5, 0, 0, 0.5, 1, 1, 1],
            [0, 1, 1, 1, 1, 1, 1, 0, 0],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_values_and_gradients(function, rest, values, gradient):
    assert np.asarray(function(jnp.asarray(X), *rest)).tolist() == values
    assert slopes(function, *rest) == gradient


def test_upstream_gradients_pass_as_they_are():
    upstream = jnp.linspace(-3.0, 3.0, len(X))
    for function in (round_straight_through, sign_straight_through):
        (gradient,) = jax.vjp(function, jnp.asarray(X))[1](upstream)
        np.testing.assert_array_equal(gradient, upstream)


def test_the_bounds_of_a_clip_receive_nothing():
    for argument in (1, 2):
        bounds = jax.grad(lambda *a: jnp.sum(clip_straight_through(*a)), argument)
        assert float(bounds(jnp.asarray(X), jnp.float32(-1), jnp.float32(1))) == 0.0


@given(tensors((8,)), tensors((8,)))
def test_straight_through_is_the_value_to_the_last_bit(surrogate: np.ndarray, value: np.ndarray):
    joined = jax.jit(straight_through)(surrogate, value)
    np.testing.assert_array_equal(np.asarray(joined), value)


def test_straight_through_has_the_surrogates_gradient_alone():
    def joined(x, y):
        return jnp.sum(straight_through(x**2, 3 * y))

    to_surrogate, to_value = jax.grad(joined, (0, 1))(jnp.asarray(X), jnp.asarray(X))
    np.testing.assert_array_equal(to_surrogate, 2 * X)
    np.testing.assert_array_equal(to_value, 0 * X)
