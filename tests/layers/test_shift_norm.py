"""Batch normalization by powers of two: values, gradients, and an integer form that only shifts."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.layers.norm import BatchNorm
from qjax.layers.shift_norm import ShiftNorm
from qjax.layers.slots import FloatSlot
from qjax.models.preact_resnet import PreActResNet
from qjax.surgery import fold_batch_norm
from qjax.training.state import split


def norm() -> ShiftNorm:
    """Factors 1.5 / 2 = 0.75 and -0.7 / 1."""
    made = ShiftNorm(BatchNorm(2, epsilon=0.0))
    for name, values in (
        ("scale", [1.5, -0.7]),
        ("bias", [0.25, 1.0]),
        ("mean", [3.0, -1.0]),
        ("var", [4.0, 1.0]),
    ):
        getattr(made, name)[...] = jnp.asarray(values, jnp.float32)
    return made


def call(made: ShiftNorm, y: jax.Array) -> jax.Array:
    """The layer's product is `y`."""
    return made(FloatSlot(), FloatSlot(), lambda x, w: x, y, jnp.zeros(()))


def test_held_statistics_by_hand() -> None:
    made = norm()
    made.eval()
    # 0.75 rounds to 1 (above sqrt(1/2)), 0.7 to 1/2.
    found = call(made, jnp.array([[5.0, 1.0]]))
    assert found.tolist() == [[(5 - 3) * 1.0 + 0.25, (1 + 1) * -0.5 + 1]]
    factor, offset = made.after()
    assert factor.tolist() == [1.0, -0.5] and offset.tolist() == [-2.75, 0.5]


def test_training_is_batch_normalization_times_what_rounding_changes() -> None:
    made = norm()
    plain = BatchNorm(2, epsilon=0.0)
    for name in ("scale", "bias", "mean", "var"):
        getattr(plain, name)[...] = getattr(made, name)[...]
    y = jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, (4096, 2)), jnp.float32)
    found, exact = (np.asarray(m.normalize(y)) for m in (made, plain))
    # 0.9 * 4 + 0.1 * 9 and 0.9 * 1 + 0.1 * 9, nearly.
    np.testing.assert_allclose(made.var[...], [4.5, 1.8], rtol=0.05)
    np.testing.assert_array_equal(made.var[...], plain.var[...])
    held = np.array([1.5, -0.7]) / np.sqrt(np.asarray(made.var[...], np.float64))
    ratio = 2 ** np.rint(np.log2(np.abs(held))) / np.abs(held)
    bias = np.asarray(made.bias[...])
    np.testing.assert_allclose(found - bias, (exact - bias) * ratio, atol=1e-5)


def test_the_gradient_is_that_of_batch_normalization_times_the_same() -> None:
    y = jnp.asarray(np.random.default_rng(1).normal(2.0, 3.0, (64, 2)), jnp.float32)
    upstream = jnp.asarray(np.random.default_rng(2).normal(size=(64, 2)), jnp.float32)

    def slope(made) -> jax.Array:
        graph, state = nnx.split(made)
        call = lambda y: jnp.sum(nnx.merge(graph, state, copy=True).normalize(y) * upstream)  # noqa: E731
        return jax.grad(call)(y)

    plain, made = BatchNorm(2), ShiftNorm(BatchNorm(2))
    after = nnx.clone(made)
    after.normalize(y)
    held = 1 / np.sqrt(np.asarray(after.var[...], np.float64) + made.epsilon)
    ratio = 2 ** np.rint(np.log2(held)) / held
    np.testing.assert_allclose(slope(made), np.asarray(slope(plain)) * ratio, atol=1e-6)


def test_held_statistics_pass_a_gradient_to_gamma() -> None:
    made = norm()
    made.eval()
    graph, state = nnx.split(made)
    y = jnp.array([[5.0, 1.0]])

    def total(scale: jax.Array) -> jax.Array:
        copy = nnx.merge(graph, state, copy=True)
        copy.scale[...] = scale
        return copy.normalize(y).sum()

    # r (y - mean) / sigma with r = 1 / 0.75 and 0.5 / 0.7.
    found = jax.grad(total)(made.scale[...])
    np.testing.assert_allclose(found, [2 / 2 / 0.75, 2 * 0.5 / 0.7], rtol=1e-6)


def test_normalizations_that_stand_alone_are_replaced_too_and_can_be_frozen() -> None:
    model = fold_batch_norm(PreActResNet(18, classes=2, width=1 / 16, rngs=nnx.Rngs(0)), ShiftNorm)
    kinds = [type(m) for _, m in nnx.iter_modules(model)]
    assert ShiftNorm in kinds and BatchNorm not in kinds
    graphs, trainable, _ = split(model, ["batch_norm"])
    frozen = nnx.merge(graphs.train, trainable, split(model, ["batch_norm"])[2])
    norms = [m for _, m in nnx.iter_modules(frozen) if isinstance(m, ShiftNorm)]
    assert norms and all(m.use_running_average for m in norms)
    paths = [path[-1] for path, _ in nnx.to_flat_state(trainable)]
    assert "kernel" in paths and "scale" not in paths
