"""Functions beside the ReLUs: clips, leaky ReLU, tables, softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.codes import int8_shift
from qjax.core.requantize import POLICIES
from qjax.floatfree import float_values
from qjax.layers import Clip, LeakyRelu, Softmax, TableAct
from qjax.layers.layer import FloatBoundary, Layer
from qjax.layers.table import CURVES
from qjax.methods.affine import AffineActivation
from qjax.methods.dorefa import DoReFaActivation
from tests.layers.reference import Input, assert_lands, bind, integer, pending, simulated, twin

SHAPE = (2, 5, 5, 6)
BYTES = Input(0, 255, 120, 0.05)


FLOAT64 = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


@pytest.mark.parametrize(("policy", "terms"), [("q31_even", 1), ("q31_even", 2), ("thresholds", 1)])
@pytest.mark.parametrize("slope", [0.01, 0.25, 0.7])
def test_leaky_relu_rounds_the_value(slope: float, policy: str, terms: int):
    layer = LeakyRelu(slope)
    slot = bind(layer, "output", AffineActivation(8), jnp.asarray([-0.5, 3.0]))
    x = pending(SHAPE, seed=1, terms=terms)
    real = x.decode()
    codes = integer(layer, x, policy=POLICIES[policy])
    assert_lands(codes, slot, np.where(real >= 0, real, slope * real))
    assert np.sum(codes.decode() < 0) > 20


def test_leaky_relu_of_codes_and_its_simulation_agree():
    layer = LeakyRelu(0.1)
    bind(layer, "output", AffineActivation(4), jnp.asarray([-1.0, 3.0]))
    x = BYTES.codes(SHAPE)
    np.testing.assert_allclose(integer(layer, x).decode(), simulated(layer, x), atol=1e-6)


def test_a_clip_is_in_the_clamp():
    layer = Clip(-1.0, 1.5)
    slot = bind(layer, "output", AffineActivation(8), jnp.asarray([-3.0, 3.0]))
    x = pending(SHAPE, seed=2)
    codes = integer(layer, x)
    assert_lands(codes, slot, np.clip(x.decode(), -1.0, 1.5))
    assert codes.terms[0].high < 127


def test_every_curve_is_tested():
    assert set(FLOAT64) == set(CURVES)


@pytest.mark.parametrize("given", [BYTES, Input(-8, 7, 0, 0.7)], ids=["bytes", "4 bits"])
@pytest.mark.parametrize("function", CURVES)
def test_tables_hold_the_simulated_codes(function: str, given: Input):
    layer = TableAct(function)
    x = given.codes(SHAPE)
    expected = FLOAT64[function](x.decode())
    # An odd range: a hard sigmoid's own would put codes on ties.
    ends = jnp.asarray([expected.min(), 1.0137 * expected.max()], jnp.float32)
    slot = bind(layer, "output", AffineActivation(8), ends)
    codes = integer(layer, x)
    assert_lands(codes, slot, expected)
    np.testing.assert_allclose(codes.decode(), simulated(layer, x), atol=1e-6)
    form = twin(layer, x)
    assert not float_values(lambda x: form(x).terms[0].ints, x)


def test_a_table_behind_its_own_input_quantizer():
    layer = TableAct("tanh")
    entry = bind(layer, "input", AffineActivation(8), jnp.asarray([-3.0, 3.0]))
    slot = bind(layer, "output", AffineActivation(8, symmetric=True), jnp.asarray([-1.0, 1.0]))
    x = pending(SHAPE, seed=3)
    grid = entry.grid()
    fed = np.clip(np.rint(x.decode() / grid.scale) + grid.zero_point, grid.low, grid.high)
    expected = np.tanh((fed - grid.zero_point) * grid.scale)
    assert_lands(integer(layer, x), slot, expected)


@pytest.mark.parametrize("n", [1, 2, 10, 64])
def test_softmax_rounds_the_shares(n: int):
    layer = Softmax()
    x = Input(0, 255, 100, 0.06).codes((40, n))
    bind(layer, "output", DoReFaActivation(8), jnp.ones(1))
    real = np.exp(x.decode() - x.decode().max(-1, keepdims=True))
    expected = real / real.sum(-1, keepdims=True)
    codes = integer(layer, x)
    (term,) = codes.terms
    steps = expected * 255
    wrong = np.asarray(term.ints, int) + int8_shift(0, 255) != np.rint(steps)
    assert np.all(np.abs(steps - np.floor(steps) - 0.5)[wrong] < 1e-3)
    assert np.mean(wrong) <= 1e-3
    np.testing.assert_allclose(codes.decode(), simulated(layer, x), atol=1.01 / 255)
    form = twin(layer, x)
    assert not float_values(lambda x: form(x).terms[0].ints, x)


@pytest.mark.parametrize("layer", [TableAct("sigmoid"), Softmax()])
def test_pending_sums_need_an_input_quantizer(layer: Layer):
    bind(layer, "output", AffineActivation(8), jnp.asarray([0.0, 1.0]))
    with pytest.raises(ValueError, match="pending sum, not codes on one grid; give this layer an"):
        twin(layer, pending(SHAPE))


def test_a_curve_without_a_quantizer_stays_float():
    assert isinstance(twin(TableAct("sigmoid"), BYTES.codes(SHAPE)), FloatBoundary)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TableAct("relu"), r"TableAct.function must be one of \['gelu'.*got 'relu'"),
        (lambda: LeakyRelu(1.5), "LeakyRelu.slope must be between 0 and 1, got 1.5"),
        (lambda: Clip(1.0, 2.0), "Clip.low and .high must enclose zero, got 1.0 and 2.0"),
    ],
)
def test_wrong_numbers_are_named(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_gradients_are_those_of_the_functions():
    x = jnp.linspace(-2.0, 2.0, 9)
    for layer, slope in ((LeakyRelu(0.2), jnp.where(x >= 0, 1.0, 0.2)), (TableAct("tanh"), None)):
        wanted = 1 - jnp.tanh(x) ** 2 if slope is None else slope
        np.testing.assert_allclose(jax.grad(lambda x: layer(x).sum())(x), wanted, rtol=1e-5)  # noqa: B023


def test_a_leaky_twin_traces_both_roundings_without_a_float():
    layer = LeakyRelu(0.1)
    bind(layer, "output", AffineActivation(8), jnp.asarray([-1.0, 3.0]))
    x = pending(SHAPE)
    form = twin(layer, x)
    assert not float_values(lambda x: form(x).terms[0].ints, x)
    exact = form.exact(x)
    steps = x.decode() / form.grid.scale
    np.testing.assert_allclose(
        exact, np.where(steps >= 0, steps, 0.1 * steps) + form.zero_point, atol=1e-9
    )
