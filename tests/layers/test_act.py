"""Activations: one requantization, whose clamp holds the function's bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.grid import Grid
from qjax.core.quantizer import Quantizer
from qjax.core.requantize import POLICIES, q31_even
from qjax.layers import Act
from qjax.layers.layer import FloatBoundary
from qjax.layers.slots import Encode, Requantize
from qjax.methods.affine import AffineActivation
from qjax.methods.dorefa import DoReFaActivation
from qjax.methods.pact import Pact
from tests.layers.reference import Input, assert_lands, bind, integer, pending, simulated, twin

SHAPE = (2, 5, 5, 6)
FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.where(x >= 0, x, 0.1 * x),
}
QUANTIZERS: dict[str, tuple[Quantizer, list[float]]] = {
    "pact": (Pact(4, alpha_init=3.0), [0.0]),
    "dorefa": (DoReFaActivation(2), [0.0]),
    "asymmetric": (AffineActivation(8), [-2.5, 7.0]),
    "asymmetric, 3 bits": (AffineActivation(3), [-1.0, 2.0]),
    "symmetric": (AffineActivation(8, symmetric=True), [-4.0, 3.0]),
    "positive": (AffineActivation(8), [0.0, 5.0]),
    "negative": (AffineActivation(4), [-5.0, -1.0]),
}


def act(function: str, quantizer: str) -> tuple[Act, object]:
    """An activation whose quantizer saw a range."""
    layer = Act(function)
    made, sample = QUANTIZERS[quantizer]
    return layer, bind(layer, "output", made, jnp.asarray(sample, jnp.float32))


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_codes_are_the_rounded_function(function: str, quantizer: str, terms: int):
    layer, slot = act(function, quantizer)
    x = pending(SHAPE, seed=3, terms=terms)
    real = FUNCTIONS[function](x.decode())
    assert_lands(integer(layer, x), slot, real)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("quantizer", ["pact", "asymmetric"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_integers_and_simulation_agree(function: str, quantizer: str):
    layer, _ = act(function, quantizer)
    x = pending(SHAPE, seed=4)
    codes = integer(layer, x)
    wrong = np.abs(codes.decode() - simulated(layer, x)) > 1e-5
    assert np.mean(wrong) <= 1e-3


@pytest.mark.parametrize("quantizer", ["asymmetric", "symmetric"])
def test_relu_spends_no_code_below_zero(quantizer: str):
    layer, _ = act("relu", quantizer)
    codes = integer(layer, pending(SHAPE, seed=5))
    (term,) = codes.terms
    assert term.low == float(term.zero_point.value) == int(term.ints.min())
    assert np.min(codes.decode()) == 0.0


def test_plain_codes_move_from_one_grid_to_another():
    layer, slot = act("identity", "asymmetric, 3 bits")
    x = Input(0, 255, 128, 0.017).codes(SHAPE)
    assert_lands(integer(layer, x), slot, x.decode())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("policy", ["q31_even", "thresholds"])
def test_exact_policies_agree_on_an_activation(policy: str):
    layer, slot = act("relu", "pact")
    x = pending(SHAPE, seed=6)
    codes = integer(layer, x, policy=POLICIES[policy])
    assert_lands(codes, slot, FUNCTIONS["relu"](x.decode()))  # pyright: ignore


def test_a_float_input_is_encoded_at_the_border():
    layer, slot = act("relu", "asymmetric")
    layer.eval()
    x = jnp.asarray(np.random.default_rng(7).normal(size=(4, 6)) * 3, jnp.float32)
    form = layer.integer((jax.ShapeDtypeStruct(x.shape, x.dtype),), q31_even)
    assert isinstance(form, Encode)
    codes = jax.jit(lambda x: form(x))(x)
    assert codes.terms[0].ints.dtype == jnp.int8
    np.testing.assert_allclose(codes.decode(), layer(x), atol=1e-6)


def test_pact_stands_in_for_relu_with_its_own_gradient_at_zero():
    layer, _ = act("relu", "pact")
    layer.eval()
    gradient = jax.grad(lambda x: jnp.sum(layer(x)))(jnp.asarray([-1.0, 0.0, 1.0, 3.0]))
    assert gradient.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_an_activation_without_a_quantizer_stays_float():
    codes = pending(SHAPE)
    boundary = twin(Act(), codes)
    assert isinstance(boundary, FloatBoundary)
    np.testing.assert_allclose(boundary(codes), np.maximum(codes.decode(), 0), rtol=1e-6, atol=1e-6)


def test_an_unknown_function_names_those_there_are():
    with pytest.raises(ValueError) as caught:
        Act("swish")
    for part in ("Act.function", "'identity', 'leaky_relu', 'relu', 'relu6'", "got 'swish'"):
        assert part in str(caught.value)


def test_a_grid_without_a_code_for_zero_is_refused():
    with pytest.raises(ValueError, match=r"whole zero point, got 7\.5"):
        Requantize(Grid(0.1, 7.5, 0, 15), q31_even)
