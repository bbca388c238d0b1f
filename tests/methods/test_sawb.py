"""SAWB against the reference's vectors: the clip from two moments, a mask for the gradient."""

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.quantizer import Role
from qjax.methods.sawb import COEFFICIENTS, ZERO_ALIGNED, Sawb
from tests.methods.golden import TOLERANCE, stored, tensor, value_and_gradient, vectors

VECTORS = vectors("sawb.")


def quantizer(vector: dict, pass_all: bool = False) -> Sawb:
    """The quantizer that a vector speaks of."""
    return Sawb(vector["bits"], zero_aligned="zero_aligned" in vector["id"], pass_all=pass_all)


@pytest.mark.parametrize("name", VECTORS)
def test_codes_and_values(name: str):
    vector = VECTORS[name]
    q, x = quantizer(vector), tensor(vector, "input")
    p = q.init(x, Role("weight", x.size))
    value, _ = value_and_gradient(q, p, x, x)
    np.testing.assert_allclose(value, vector["output"], atol=TOLERANCE)
    codes = np.array(stored(q, p, x))
    if q.zero_aligned:
        assert codes.tolist() == vector["signed_codes"]
    else:
        assert codes.tolist() == vector["codes"]
        assert (2 * codes - (2 ** vector["bits"] - 1)).tolist() == vector["signed_codes"]


@pytest.mark.parametrize("name", VECTORS)
def test_the_clip_is_the_published_combination(name: str):
    vector = VECTORS[name]
    table = ZERO_ALIGNED if quantizer(vector).zero_aligned else COEFFICIENTS
    c1, c2 = table[vector["bits"]]
    assert (c1, -c2) == (vector["params"]["c1"], vector["params"]["c2"])
    x = np.asarray(vector["input"])
    alpha = c1 * np.sqrt(np.mean(x**2)) - c2 * np.mean(np.abs(x))
    np.testing.assert_allclose(alpha, vector["params"]["alpha"], rtol=1e-6)


@pytest.mark.parametrize("name", VECTORS)
def test_the_gradient_passes_inside_the_clip(name: str):
    vector = VECTORS[name]
    x = tensor(vector, "input")
    upstream = jnp.linspace(-1.0, 2.0, x.size)
    inside = np.abs(np.asarray(vector["input"])) <= vector["params"]["alpha"]
    for pass_all, expected in ((False, np.where(inside, upstream, 0)), (True, upstream)):
        q = quantizer(vector, pass_all)
        p = q.init(x, Role("weight", x.size))
        _, gradient = value_and_gradient(q, p, x, upstream)
        np.testing.assert_array_equal(gradient, expected)


def test_the_vectors_hold_weights_beyond_the_clip():
    alphas = [vector["params"]["alpha"] for vector in VECTORS.values()]
    assert any(
        np.max(np.abs(v["input"])) > a for v, a in zip(VECTORS.values(), alphas, strict=True)
    )


@pytest.mark.parametrize("zero_aligned", [False, True])
def test_a_negative_clip_becomes_the_largest_magnitude(zero_aligned: bool):
    # All magnitudes equal: the root mean square is the mean, and c1 < c2 at four bits and more.
    q = Sawb(8, zero_aligned=zero_aligned)
    x = jnp.asarray([-0.5, 0.5, 0.5])
    p = q.init(x, Role("weight", 3))
    value, gradient = value_and_gradient(q, p, x, jnp.ones(3))
    np.testing.assert_allclose(value, x, rtol=1e-6)
    assert gradient.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("zero_aligned", "bits", "allowed"),
    [(False, 6, "[2, 3, 4, 5, 8]"), (False, 7, "[2, 3, 4, 5, 8]"), (True, 3, "[2, 4, 7, 8]")],
)
def test_widths_without_coefficients_name_those_with(zero_aligned: bool, bits: int, allowed: str):
    with pytest.raises(ValueError) as caught:
        Sawb(bits, zero_aligned=zero_aligned)
    for part in ("Sawb.bits", allowed, f"got {bits}"):
        assert part in str(caught.value)
