"""Batch normalization by powers of two: values, gradients, and an integer form that only shifts."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.layers.norm import BatchNorm
from qjax.layers.shift_norm import ShiftNorm, power_factor
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


def test_training_normalizes_by_the_batch_and_moves_the_statistics() -> None:
    made = norm()
    y = jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, (4096, 2)), jnp.float32)
    found = np.asarray(call(made, y))
    mean, deviation = np.asarray(y).mean(0), np.asarray(y).std(0)
    exact = np.asarray(made.scale[...]) / deviation
    power = np.sign(exact) * 2 ** np.rint(np.log2(np.abs(exact)))
    np.testing.assert_allclose(found, (np.asarray(y) - mean) * power + [0.25, 1], atol=1e-5)
    np.testing.assert_allclose(made.mean[...], [2.7 + 0.1 * mean[0], -0.9 + 0.1 * mean[1]], 1e-5)


def test_the_gradient_goes_straight_through_in_the_logarithm() -> None:
    scale, var = jnp.array([1.5, -0.7, 0.0]), jnp.array([4.0, 1.0, 1.0])
    slope = jax.grad(lambda s: power_factor(s, var, 0.0).sum())(scale)
    # d AP2(f) / ds = AP2(f) / f * df / ds, and 1 / sigma where nothing says otherwise.
    np.testing.assert_allclose(slope, [1.0 / 1.5, -0.5 / -0.7, 1.0], rtol=1e-6)


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
