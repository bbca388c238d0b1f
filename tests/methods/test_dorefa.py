"""DoReFa against the reference's vectors, and what its equations say of the ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.quantizer import Role
from qjax.methods.dorefa import DoReFaActivation, DoReFaWeight
from tests.methods.golden import TOLERANCE, stored, tensor, value_and_gradient, vectors

WEIGHTS, ACTIVATIONS = vectors("dorefa.w."), vectors("dorefa.a.")


def numbers(bits: int) -> dict[str, jax.Array]:
    """DoReFa's only number."""
    return {"bits": jnp.int32(bits)}


def test_the_vectors_cover_the_usual_widths():
    for found in (WEIGHTS, ACTIVATIONS):
        assert {vector["bits"] for vector in found.values()} == {1, 2, 3, 4, 8}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("detach", [False, True])
def test_weights(name: str, detach: bool):
    vector = WEIGHTS[name]
    q = DoReFaWeight(vector["bits"], detach_maximum=detach)
    p, x = numbers(vector["bits"]), tensor(vector, "input")
    value, gradient = value_and_gradient(q, p, x, tensor(vector, "upstream_grad"))
    np.testing.assert_allclose(value, vector["output"], atol=TOLERANCE)
    codes = stored(q, p, x)
    if vector["bits"] == 1:
        # Eq. 8 has -1 and 1 where the stored codes have 0 and 1, and no gradient to the mean.
        assert [2 * code - 1 for code in codes] == vector["codes"]
        expected = vector["d_input"]
    else:
        assert codes == vector["codes"]
        expected = vector[f"d_input_{'detached' if detach else 'attached'}"]
    np.testing.assert_allclose(gradient, expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_below_at_inside_and_above_the_clip(name: str):
    vector = ACTIVATIONS[name]
    q, p = DoReFaActivation(vector["bits"]), numbers(vector["bits"])
    x = tensor(vector, "input")
    assert x[0] < 0 and {0.0, 0.5, 1.0} <= set(x.tolist()) and x[-1] > 1
    value, gradient = value_and_gradient(q, p, x, tensor(vector, "upstream_grad"))
    assert stored(q, p, x) == vector["codes"]
    np.testing.assert_allclose(value, vector["output"], atol=TOLERANCE)
    np.testing.assert_array_equal(gradient, np.float32(vector["d_input"]))


@pytest.mark.parametrize("bits", range(1, 9))
def test_weight_levels_are_odd_multiples_without_zero(bits: int):
    x = jnp.linspace(-2.0, 2.0, 4000)
    codes = DoReFaWeight(bits).stripped().encode(numbers(bits), x)
    (term,) = codes.terms
    n = 2**bits - 1
    assert np.unique(np.asarray(term.ints)).size == n + 1
    assert float(term.zero_point.value) - term.low == n / 2
    assert np.min(np.abs(codes.decode())) > 0
    np.testing.assert_allclose(codes.decode(), -codes.decode()[::-1], rtol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_an_all_zero_weight_stays_finite(bits: int):
    x = jnp.zeros((3, 2))
    value, gradient = value_and_gradient(DoReFaWeight(bits), numbers(bits), x, jnp.ones((3, 2)))
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))


def test_the_integer_dot_product_is_the_real_one():
    vector = vectors("dorefa.integer_dot.k2")["dorefa.integer_dot.k2"]
    w = tensor(WEIGHTS["dorefa.w.k2"], "input")
    x = jnp.asarray(vector["input"]["x"], jnp.float32)
    doubled = 2 * np.array(stored(DoReFaWeight(2), numbers(2), w)) - 3
    codes = np.array(stored(DoReFaActivation(2), numbers(2), x))
    assert doubled[: x.size].tolist() == vector["params"]["w_int"]
    assert codes.tolist() == vector["params"]["x_int"]
    accumulator = int(doubled[: x.size] @ codes)
    assert accumulator == vector["params"]["accumulator"]
    real = DoReFaWeight(2)(numbers(2), w)[: x.size] @ DoReFaActivation(2)(numbers(2), x)
    np.testing.assert_allclose(real, vector["output"], atol=TOLERANCE)
    np.testing.assert_allclose(accumulator * vector["params"]["scale"], vector["output"], atol=1e-8)


def test_the_bit_width_is_the_only_number():
    for q in (DoReFaWeight(3), DoReFaActivation(3)):
        assert q.init(jnp.ones(2), Role("weight", 2)) == {"bits": 3}
