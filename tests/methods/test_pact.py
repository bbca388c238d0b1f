"""PACT against the reference's vectors: the paper's gradients and not those of a composition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.quantizer import Role
from qjax.methods.pact import SMALLEST_ALPHA, Pact
from tests.methods.golden import TOLERANCE, stored, tensor, value_and_gradient, vectors

VECTORS = vectors("pact.a.")


def numbers(bits: int, alpha: float, decay: float = 2e-4) -> dict[str, jax.Array]:
    """PACT's numbers with a given clip."""
    q = Pact(bits, decay=decay)
    return q.init(jnp.zeros(1), Role("activation", 1)) | {"alpha": jnp.float32(alpha)}


def alpha_gradient(bits: int, alpha: float, x: jax.Array, upstream: jax.Array) -> float:
    """The compiled d <y, upstream> / d alpha."""
    p, q = numbers(bits, alpha), Pact(bits).stripped()
    slope = jax.jit(jax.grad(lambda alpha: jnp.sum(q(p | {"alpha": alpha}, x) * upstream)))
    return float(slope(p["alpha"]))


@pytest.mark.parametrize("name", VECTORS)
def test_below_at_inside_and_above_the_clip(name: str):
    vector = VECTORS[name]
    bits, alpha = vector["bits"], vector["params"]["alpha"]
    q, p = Pact(bits), numbers(bits, alpha)
    x, upstream = tensor(vector, "input"), tensor(vector, "upstream_grad")
    assert x[0] < 0 and {0.0, alpha} <= set(x.tolist()) and x[-1] > alpha
    value, gradient = value_and_gradient(q, p, x, upstream)
    assert stored(q, p, x) == vector["codes"]
    np.testing.assert_allclose(value, vector["output"], atol=TOLERANCE)
    np.testing.assert_array_equal(gradient, np.float32(vector["d_input"]))
    slope = alpha_gradient(bits, alpha, x, upstream)
    np.testing.assert_allclose(slope, vector["d_alpha"], atol=TOLERANCE)


def test_the_vectors_cover_the_usual_widths():
    assert {vector["bits"] for vector in VECTORS.values()} == {1, 2, 3, 4, 8}


def test_the_rounding_residual_gives_alpha_nothing():
    # Eq. 3. A composition of clip, scale and straight-through round would give 0.0167 here.
    assert alpha_gradient(4, 6.0, jnp.asarray([0.3]), jnp.ones(1)) == 0.0


def test_the_decay_is_the_penaltys_gradient():
    p = numbers(4, 3.0, decay=1e-3)
    slopes = jax.grad(lambda alpha: Pact(4).stripped().penalty(p | {"alpha": alpha}))(p["alpha"])
    np.testing.assert_allclose(slopes, 3e-3, rtol=1e-6)
    np.testing.assert_allclose(Pact(4).stripped().penalty(p), 0.5e-3 * 9, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, -1.0, SMALLEST_ALPHA / 10])
def test_a_vanished_clip_is_floored_and_still_learns(alpha: float):
    x = jnp.asarray([-1.0, 0.0, 5e-4, 2e-3])
    p = numbers(4, alpha)
    value, gradient = value_and_gradient(Pact(4), p, x, jnp.ones(4))
    assert np.all(np.isfinite(value)) and float(jnp.max(value)) == pytest.approx(SMALLEST_ALPHA)
    assert gradient.tolist() == [0, 1, 1, 0]
    assert alpha_gradient(4, alpha, x, jnp.ones(4)) == 1.0


def test_the_first_clip_is_the_field_whatever_the_sample():
    p = Pact(4, alpha_init=10.0).init(jnp.asarray([99.0]), Role("activation", 1))
    assert (float(p["alpha"]), int(p["bits"])) == (10.0, 4)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("alpha_init", 0.0, "from 0.001 to 1e+06"),
        ("alpha_init", float("nan"), "from 0.001 to 1e+06"),
        ("decay", -1.0, "from 0 to 1000"),
    ],
)
def test_wrong_fields_name_field_value_and_range(field: str, value: float, allowed: str):
    with pytest.raises(ValueError) as caught:
        Pact(4, **{field: value})
    for part in (f"Pact.{field}", allowed, f"got {value!r}"):
        assert part in str(caught.value)
