"""ELQ: objective and scales against the reference's vectors; held weights stay where they are."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qjax.core.quantizer import Role
from qjax.methods.elq import ElqWeight, best_scale, objective
from qjax.methods.elq_partition import HoldPart, hold

FILE = Path(__file__).parents[1] / "vectors" / "golden_deployment.json"
VECTOR = json.loads(FILE.read_text())["other_methods"]["elq_objective"]
W = jnp.asarray(VECTOR["W"], jnp.float32)
GRADIENT = jnp.asarray(VECTOR["dL_dW"], jnp.float32)
ROWS = {row["quantizer"]: row for row in VECTOR["rows"]}


@pytest.mark.parametrize("name", ROWS)
def test_objective(name: str) -> None:
    row = ROWS[name]
    w_hat = jnp.asarray(row["W_hat"], jnp.float32)
    terms = [
        float(objective(W, w_hat, GRADIENT, *weights)) for weights in ((1, 0), (0, 1), (0.5, 1))
    ]
    names = ("L_p=|<grad,W_hat-W>|", "E=||W-W_hat||^2", "J(a1=0.5)=a1*L_p+E")
    np.testing.assert_allclose(terms, [row[name] for name in names], rtol=1e-5)


@pytest.mark.parametrize("name", ["ternary thr 0.35", "binary"])
def test_least_error(name: str) -> None:
    # A threshold of 0.35 is the better of the two in the vector and the best there is.
    row = ROWS[name]
    q = ElqWeight(bits=1 if name == "binary" else 2)
    p = q.init(W, Role("weight", 6))
    np.testing.assert_allclose(p["alpha"], row["alpha"], rtol=1e-6)
    np.testing.assert_allclose(q(p, W), row["W_hat"], rtol=1e-6)


def test_no_other_scale_has_a_smaller_error() -> None:
    w = jax.random.normal(jax.random.key(0), (200,))
    alpha = best_scale(w, ternary=True)
    q = ElqWeight(bits=2)
    p = q.init(w, Role("weight", 200))

    def error(scale: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(w - q(p | {"alpha": scale}, w)))

    scales = jnp.linspace(0.2, 3.0, 400)
    assert float(error(alpha)) <= float(jnp.min(jax.vmap(error)(scales)))


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("portion", [0.0, 0.5])
def test_gradient(bits: int, portion: float) -> None:
    q = ElqWeight(bits=bits, loss_weight=0.5, error_weight=0.25)
    p = q.init(W, Role("weight", 6))
    p = hold(q, p, W, portion) if portion else p
    held = np.asarray(p["held"])
    assert held.sum() == 3 * (portion > 0)
    assert not portion or np.abs(W)[held].min() > np.abs(W)[~held].max()
    w_hat = np.asarray(q(p | {"whole": jnp.asarray(True)}, W))
    t = np.sum((np.asarray(GRADIENT) * (w_hat - W))[~held])
    expected = GRADIENT * (1 - 0.5 * np.sign(t)) + 0.5 * (W - w_hat)
    slope = jax.grad(lambda w: jnp.sum(q(p, w) * GRADIENT))(W)
    np.testing.assert_allclose(slope, np.where(held, 0, expected), atol=1e-7)


def test_held_weights_keep_their_values_and_free_ones_are_float() -> None:
    q = ElqWeight(bits=2)
    p = q.init(W, Role("weight", 6))
    moved = W * 0.5 - 0.2
    half = hold(q, p, W, 0.5)
    held = np.asarray(half["held"])
    np.testing.assert_array_equal(q(half, moved)[held], q(p, W)[held])
    np.testing.assert_array_equal(q(half, moved)[~held], moved[~held])
    more = hold(q, half, moved, 0.75)
    assert np.all(np.asarray(more["held"])[held]) and np.sum(more["held"]) == 5
    np.testing.assert_array_equal(q(more, W)[held], q(p, W)[held])
    np.testing.assert_array_equal(hold(q, more, W, 0.5)["held"], more["held"])


@pytest.mark.parametrize("bits", [1, 2])
def test_a_full_partition_is_what_is_encoded(bits: int) -> None:
    q = ElqWeight(bits=bits)
    p = hold(q, q.init(W, Role("weight", 6)), W, 1.0)
    np.testing.assert_allclose(q(p, W + 3.0), q.encode(p, W - 2.0).decode(), rtol=1e-6)
    assert len(np.unique(q(p, W))) == bits + 1


def test_decay_and_momentum_cannot_move_held_weights() -> None:
    q = ElqWeight(bits=2)
    w = jax.random.normal(jax.random.key(1), (8, 5))
    p = hold(q, q.init(w, Role("weight", 40)), w, 0.5)
    held, start = np.asarray(p["held"]), q(p, w)
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.3, momentum=0.9))
    state = optimizer.init(w)
    for step in range(5):
        x = jax.random.normal(jax.random.key(step), (16, 8))
        slope = jax.grad(lambda w: jnp.mean(jnp.square(x @ q(p, w) - 1)))(w)  # noqa: B023
        updates, state = optimizer.update(slope, state, w)
        w = optax.apply_updates(w, updates)
        assert isinstance(w, jax.Array)
    assert np.all(np.asarray(w != 0)[held]) and np.all(np.asarray(q(p, w))[~held] == w[~held])
    np.testing.assert_array_equal(np.asarray(q(p, w))[held], np.asarray(start)[held])


@pytest.mark.parametrize("portion", [0.0, 1.5])
def test_wrong_portions_are_refused(portion: float) -> None:
    with pytest.raises(ValueError, match=rf"HoldPart\.portion must be in \(0, 1\], got {portion}"):
        HoldPart(portion)
