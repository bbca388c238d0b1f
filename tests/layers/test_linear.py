"""Convolutions and dense layers: the integer form is the simulated one, computed exactly."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings

from qjax.core.codes import Codes
from qjax.core.quantizer import Quantizer
from qjax.layers import Conv, ConvBN, Dense, DenseBN
from qjax.layers.norm import BatchNorm
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaActivation, DoReFaWeight
from qjax.methods.sawb import Sawb
from tests.layers.reference import (
    Input,
    assert_exact,
    assert_lands,
    assert_simulates,
    bind,
    conv64,
    integer,
    twin,
)
from tests.strategies import Geometry, geometries

WEIGHTS: dict[str, Quantizer] = {
    "symmetric": AffineWeight(8),
    "per channel": AffineWeight(4, per_channel=True),
    "asymmetric": AffineWeight(3, symmetric=False),
    "asymmetric bytes per channel": AffineWeight(8, symmetric=False, per_channel=True),
    "binary": DoReFaWeight(1),
    "half-integer zero": DoReFaWeight(4),
    "half-integer zero, 7 bits": DoReFaWeight(7),
    "half-integer zero, bytes": DoReFaWeight(8),
    "two bits": Sawb(2),
    "zero aligned": Sawb(8, zero_aligned=True),
}
INPUTS = {
    "unsigned": Input(0, 15, 0),
    "bytes": Input(0, 255, 0),
    "bytes with a zero point": Input(0, 255, 77),
    "bytes below zero": Input(0, 255, 255),
    "signed": Input(-128, 127, 0),
    "one bit": Input(0, 1, 0),
}
USUAL = Geometry((5, 6), 4, 6, 2, (3, 2), (2, 1), ((1, 0), (2, 1)))


def conv(geometry: Geometry, weight: Quantizer, kind: type = Conv) -> Conv | ConvBN:
    """A convolution with a weight quantizer and random numbers everywhere."""
    g = geometry
    layer = kind(
        *(g.in_features, g.out_features, g.kernel, g.strides, g.padding, g.groups), rngs=nnx.Rngs(0)
    )
    bind(layer, "weight", weight, layer.kernel[...])
    rng = np.random.default_rng(1)
    if isinstance(layer, Conv):
        assert layer.bias is not None
        layer.bias[...] = jnp.asarray(rng.normal(size=g.out_features), jnp.float32)
    else:
        shake(layer.norm, rng)
    return layer


def shake(norm: nnx.Module, rng: np.random.Generator) -> None:
    """Statistics and parameters as training could leave them: negative, tiny and zero gammas."""
    assert isinstance(norm, BatchNorm)
    size = norm.scale.shape[0]
    gamma = rng.normal(size=size)
    gamma[:4] = [-1.5, 1e-8, -1e-8, 0.0][:size]
    norm.scale[...] = jnp.asarray(gamma, jnp.float32)
    norm.bias[...] = jnp.asarray(rng.normal(size=size), jnp.float32)
    norm.mean[...] = jnp.asarray(rng.normal(size=size), jnp.float32)
    norm.var[...] = jnp.asarray(rng.uniform(0.01, 4.0, size), jnp.float32)


def exact_conv(layer: Conv | ConvBN, x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The layer's output in float64 from decoded weights."""
    y = conv64(x, layer.weight.encode(layer.kernel[...]).decode(), geometry)  # pyright: ignore
    if isinstance(layer, Conv):
        assert layer.bias is not None
        return y + np.asarray(layer.bias[...], np.float64)
    n = layer.norm
    scale, bias, mean, var = (np.asarray(v[...], float) for v in (n.scale, n.bias, n.mean, n.var))  # pyright: ignore
    return (y - mean) * scale / np.sqrt(var + n.epsilon) + bias


@pytest.mark.parametrize("given_", INPUTS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_dense(weight: str, given_: str):
    layer = Dense(37, 5, rngs=nnx.Rngs(0))
    slot = bind(layer, "weight", WEIGHTS[weight], layer.kernel[...])
    assert layer.bias is not None
    layer.bias[...] = jnp.linspace(-1.0, 1.0, 5)
    x = INPUTS[given_].codes((3, 37))
    kernel = slot.encode(layer.kernel[...]).decode()
    expected = x.decode() @ kernel + np.asarray(layer.bias[...], np.float64)
    assert_exact(integer(layer, x), expected)
    assert_simulates(layer, (x,), expected)


@pytest.mark.parametrize("given_", ["bytes with a zero point", "signed"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_convolution(weight: str, given_: str):
    layer = conv(USUAL, WEIGHTS[weight])
    x = INPUTS[given_].codes((2, *USUAL.image, USUAL.in_features))
    expected = exact_conv(layer, x.decode(), USUAL)
    assert_exact(integer(layer, x), expected)
    assert_simulates(layer, (x,), expected)


@given(geometries())
@settings(max_examples=6)
def test_convolutions_of_every_shape(geometry: Geometry):
    layer = conv(geometry, WEIGHTS["asymmetric bytes per channel"])
    x = INPUTS["bytes with a zero point"].codes((2, *geometry.image, geometry.in_features))
    assert_exact(integer(layer, x), exact_conv(layer, x.decode(), geometry))


@pytest.mark.parametrize(
    ("padding", "strides"), [("SAME", 2), ("VALID", 1), (2, 2), (((0, 2), (1, 0)), 1)], ids=str
)
def test_depthwise_with_normalization(padding, strides: int):
    pads = ((2, 2), (2, 2)) if padding == 2 else padding
    geometry = Geometry((6, 7), 6, 6, 6, (3, 3), (strides, strides), pads)
    layer = ConvBN(6, 6, 3, strides, padding, 6, rngs=nnx.Rngs(0))
    bind(layer, "weight", AffineWeight(8, per_channel=True), layer.kernel[...])
    shake(layer.norm, np.random.default_rng(2))
    x = INPUTS["bytes with a zero point"].codes((2, 6, 7, 6))
    expected = exact_conv(layer, x.decode(), geometry)
    assert_exact(integer(layer, x), expected)
    assert_simulates(layer, (x,), expected)


@pytest.mark.parametrize("weight", ["per channel", "half-integer zero, bytes"])
def test_normalization_folds_negative_tiny_and_zero_gammas(weight: str):
    layer = conv(USUAL, WEIGHTS[weight], ConvBN)
    x = INPUTS["bytes"].codes((2, *USUAL.image, USUAL.in_features))
    expected = exact_conv(layer, x.decode(), USUAL)
    y = integer(layer, x)
    assert_exact(y, expected)
    assert_simulates(layer, (x,), expected)
    assert np.any(y.terms[0].scale.value < 0)


def test_dense_with_normalization():
    layer = DenseBN(37, 6, rngs=nnx.Rngs(0))
    slot = bind(layer, "weight", DoReFaWeight(4), layer.kernel[...])
    shake(layer.norm, np.random.default_rng(3))
    x = INPUTS["bytes"].codes((3, 37))
    factor, offset = layer.norm.after()
    expected = x.decode() @ slot.encode(layer.kernel[...]).decode() * factor + offset
    assert_exact(integer(layer, x), expected)
    assert_simulates(layer, (x,), expected)


def test_an_input_quantizer_rounds_before_the_product():
    layer = Dense(8, 3, rngs=nnx.Rngs(0))
    weight = bind(layer, "weight", AffineWeight(8), layer.kernel[...])
    x = Input(-128, 127, 0, 0.047).codes((4, 8))
    entry = bind(layer, "input", DoReFaActivation(4), jnp.ones((1, 8)))
    fed = np.clip(np.rint(x.decode() / entry.grid().scale), 0, 15) * entry.grid().scale
    expected = fed @ weight.encode(layer.kernel[...]).decode()
    assert_exact(integer(layer, x), expected)
    assert_simulates(layer, (x,), expected)


@pytest.mark.parametrize("kind", [Conv, ConvBN])
def test_an_output_quantizer_rounds_the_sum(kind: type):
    layer = conv(USUAL, AffineWeight(8), kind)
    x = INPUTS["bytes"].codes((2, *USUAL.image, USUAL.in_features))
    expected = exact_conv(layer, x.decode(), USUAL)
    slot = bind(layer, "output", AffineActivation(8), jnp.asarray(expected, jnp.float32))
    assert_lands(integer(layer, x), slot, expected)


@pytest.mark.parametrize("weight", ["per channel", "asymmetric bytes per channel", "binary"])
def test_bounds_are_reached_and_not_passed(weight: str):
    layer = Dense(50, 4, rngs=nnx.Rngs(0))
    slot = bind(layer, "weight", WEIGHTS[weight], layer.kernel[...])
    real = slot.encode(layer.kernel[...]).decode()
    x = Input(0, 255, 10).codes((1, 50))
    form = twin(layer, x)
    (low, high), (bits,) = form.bounds[0], form.accumulator_bits
    seen = []
    for channel in range(4):
        for sign in (-1, 1):
            worst = np.where(sign * real[:, channel] > 0, 127, -128)[None]
            term = dataclasses.replace(x.terms[0], ints=jnp.asarray(worst, jnp.int8))
            seen.append(int(form(Codes((term,))).terms[0].ints[0, channel]))
    assert (min(seen), max(seen)) == (low, high)
    assert -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)
    assert low < -(2 ** (bits - 2)) or high >= 2 ** (bits - 2)
