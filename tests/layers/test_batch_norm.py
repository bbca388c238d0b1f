"""Batch normalization beside a convolution: its arithmetic and its statistics."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.layers.norm import BatchNorm


def filled(**values: list[float]) -> BatchNorm:
    """A normalization of two channels with these numbers."""
    norm = BatchNorm(2)
    for name, value in values.items():
        getattr(norm, name)[...] = jnp.asarray(value)
    return norm


def test_evaluation_uses_running_statistics_and_keeps_them():
    norm = filled(scale=[2.0, -1.0], bias=[0.5, 0.0], mean=[1.0, 2.0], var=[4.0, 0.25])
    norm.eval()
    before = jax.tree.leaves(nnx.state(norm))
    y = norm.normalize(jnp.ones((1, 2, 2, 2)))
    factor, offset = norm.after()
    np.testing.assert_allclose(y[0, 0, 0], factor + offset, rtol=1e-6)
    for old, new in zip(before, jax.tree.leaves(nnx.state(norm)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_normalizes_the_batch_and_follows_it():
    norm = BatchNorm(2, momentum=0.75)
    x = np.random.default_rng(0).normal([3.0, -1.0], [2.0, 0.1], (8, 5, 5, 2))
    y = np.asarray(norm.normalize(jnp.asarray(x, jnp.float32)))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-3)
    np.testing.assert_allclose(norm.mean[...], 0.25 * x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(norm.var[...], 0.75 + 0.25 * x.var((0, 1, 2)), rtol=1e-4)
