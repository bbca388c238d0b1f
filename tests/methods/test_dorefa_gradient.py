"""DoReFa's gradients against the reference's vectors, and their noise."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.codes import decode_terms
from qjax.core.quantizer import Role
from qjax.methods.dorefa_gradient import DoReFaGradient, _marker

FILE = Path(__file__).parents[1] / "vectors" / "golden_training.json"
VECTORS = {
    vector["id"]: vector
    for vector in json.loads(FILE.read_text())["vectors"]
    if vector["id"].startswith("dorefa.g.")
}
SAMPLE = jnp.asarray(VECTORS["dorefa.g.k4.noise"]["input"], jnp.float32)


@pytest.mark.parametrize("name", VECTORS)
def test_values(name: str) -> None:
    vector = VECTORS[name]
    g, u = jnp.asarray(vector["input"]), jnp.asarray(vector["params"]["sigma"])
    forward, backward = jax.vjp(lambda x: _marker(x, jnp.int32(vector["bits"]), u), 7 * g)
    np.testing.assert_array_equal(forward, 7 * g)
    np.testing.assert_allclose(backward(g)[0], vector["output"], rtol=2e-6)


@pytest.mark.parametrize("name", [name for name in VECTORS if name.endswith("nonoise")])
def test_without_a_key_there_is_no_noise(name: str) -> None:
    vector = VECTORS[name]
    q = DoReFaGradient(bits=vector["bits"])
    g = jnp.asarray(vector["input"])
    p = q.init(g, Role("error", 4))
    (without_noise,) = jax.vjp(lambda x: q(p, x), g)[1](g)
    np.testing.assert_allclose(without_noise, vector["output"], rtol=2e-6)
    np.testing.assert_array_equal(decode_terms(q.codes(p, g)), without_noise)


def drawn(keys: jax.Array, bits: int) -> jax.Array:
    """The quantized sample under each key."""
    q = DoReFaGradient(bits=bits)
    p = q.init(SAMPLE, Role("error", 4))
    return jax.vmap(lambda key: jax.vjp(lambda x: q(p, x, key), SAMPLE)[1](SAMPLE)[0])(keys)


def test_noise_is_fresh_unbiased_and_per_element() -> None:
    values = np.asarray(drawn(jax.random.split(jax.random.key(0), 4000), 4))
    largest = np.max(np.abs(SAMPLE), axis=1, keepdims=True)
    step = np.broadcast_to(2 * largest / 15, SAMPLE.shape)
    inside = np.abs(SAMPLE) < largest
    # A value between two levels has a deviation of at most half a step; four of them over the mean.
    assert np.all((np.abs(values.mean(0) - SAMPLE) <= 2 * step / np.sqrt(4000) + 1e-6)[inside])
    assert np.ptp(values[:, 0, 1]) > 0 and np.ptp(values[:, 1, 2]) > 0
    assert abs(np.corrcoef(values[:, 0, 1], values[:, 1, 2])[0, 1]) < 0.1


def test_the_batch_axis_has_one_maximum_a_sample() -> None:
    values = drawn(jax.random.split(jax.random.key(1), 1), 3)[0]
    alone = jnp.max(jnp.abs(values), axis=1)
    np.testing.assert_allclose(alone, jnp.max(jnp.abs(SAMPLE), axis=1), rtol=1e-6)


def test_a_dead_sample_stays_dead() -> None:
    q = DoReFaGradient(bits=4)
    p = q.init(SAMPLE, Role("error", 4))
    g = jnp.zeros((2, 3)).at[1].set(1.0)
    slope = jax.vjp(lambda x: q(p, x, jax.random.key(2)), jnp.ones((2, 3)))[1](g)[0]
    np.testing.assert_array_equal(slope[0], np.zeros(3))
    assert np.all(np.isfinite(slope))


def test_one_compilation_serves_all_widths() -> None:
    traces = []

    @jax.jit
    def run(p: dict, x: jax.Array, key: jax.Array) -> jax.Array:
        traces.append(x)
        return jax.grad(lambda x: jnp.sum(DoReFaGradient(None)(p, x, key) ** 2))(x)

    for bits in (2, 6, 8):
        run(DoReFaGradient(bits).init(SAMPLE, Role("error", 4)), SAMPLE, jax.random.key(bits))
    assert len(traces) == 1


@pytest.mark.parametrize("bits", [0, 9])
def test_wrong_bits_are_refused(bits: int) -> None:
    with pytest.raises(
        ValueError, match=r"DoReFaGradient\.bits must be a whole number from 1 to 8"
    ):
        DoReFaGradient(bits=bits)
