"""Transposed convolutions: the integer form is the simulated one, computed exactly."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.core.windows import transposed_size
from qjax.layers import ConvTranspose, ConvTransposeBN
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaWeight
from tests.core.test_transposed import reference
from tests.layers.reference import (
    Input,
    assert_exact,
    assert_lands,
    assert_simulates,
    bind,
    integer,
)
from tests.layers.test_linear import shake

WEIGHTS = {
    "per channel": AffineWeight(8, per_channel=True),
    "asymmetric bytes": AffineWeight(8, symmetric=False, per_channel=True),
    "half-integer zero": DoReFaWeight(8),
}
X = Input(0, 255, 77).codes((2, 3, 4, 5))


def exact(layer: ConvTranspose | ConvTransposeBN, x: np.ndarray) -> np.ndarray:
    """The product sums in float64."""
    kernel = layer.weight.encode(layer.kernel[...]).decode()  # pyright: ignore
    geometry = layer.geometry
    (kh, kw), strides = geometry.kernel_size, geometry.strides  # pyright: ignore
    ends = [
        transposed_size(size, k, s, geometry.padding)  # pyright: ignore
        for size, k, s in zip(x.shape[1:3], (kh, kw), strides, strict=True)
    ]
    cut, size = zip(*ends, strict=True)
    return reference(x, kernel, strides, cut, size)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [(2, 2, "SAME"), (3, 2, "SAME"), (4, 2, "VALID"), ((3, 2), (1, 3), "VALID")],
)
def test_equals_float64(kernel, strides, padding: str, weight: str):
    layer = ConvTranspose(5, 6, kernel, strides, padding, rngs=nnx.Rngs(0))
    bind(layer, "weight", WEIGHTS[weight], layer.kernel[...])
    assert layer.bias is not None
    layer.bias[...] = jnp.linspace(-1.0, 1.0, 6)
    expected = exact(layer, X.decode()) + np.asarray(layer.bias[...], np.float64)
    assert_exact(integer(layer, X), expected)
    assert_simulates(layer, (X,), expected)
    assert layer.macs(expected.shape) == 3 * 4 * layer.kernel.size


def test_normalization_and_output_quantizer():
    layer = ConvTransposeBN(5, 6, rngs=nnx.Rngs(0))
    bind(layer, "weight", WEIGHTS["per channel"], layer.kernel[...])
    shake(layer.norm, np.random.default_rng(0))
    factor, offset = layer.norm.after()
    expected = exact(layer, X.decode()) * factor + offset
    assert_exact(integer(layer, X), expected)
    assert_simulates(layer, (X,), expected)
    slot = bind(layer, "output", AffineActivation(8), jnp.asarray(expected, jnp.float32))
    assert_lands(integer(layer, X), slot, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "FULL"}, "padding of a transposed convolution must be SAME or VALID"),
        ({"strides": 0}, "ConvTranspose.strides must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ConvTranspose(4, 4, rngs=nnx.Rngs(0), **arguments)
