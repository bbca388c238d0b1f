"""Normalization without a convolution: the integers stay, factor and offset join the scales."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.agreement import integer_law
from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import q31_even
from qjax.floatfree import check_float_free
from qjax.integerize import PixelInput, integerize
from qjax.layers import Act, ConvBN, Dense, GlobalAvgPool, Norm, Value
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.pact import Pact
from qjax.recipe import ends_8bit
from qjax.surgery import quantize


def uneven(norm: Norm) -> Norm:
    """Statistics and gains as training leaves them, a negative and a tiny gamma among them."""
    random = np.random.default_rng(3)
    batch_norm, features = norm.statistics, norm.statistics.scale.shape[0]
    batch_norm.scale[...] = jnp.asarray([-0.7, 1e-8, 1.3, 0.6], jnp.float32)[:features]
    for variable, low in ((batch_norm.bias, -1), (batch_norm.mean, -1), (batch_norm.var, 0.2)):
        variable[...] = jnp.asarray(random.uniform(low, 1.5, features), jnp.float32)
    return norm


def test_pending_terms_take_the_affine_map() -> None:
    random = np.random.default_rng(0)
    terms = tuple(
        IntegerTerm(
            jnp.asarray(random.integers(low, high, (2, 3, 3, 4)), dtype),
            HostArray(scale),
            HostArray(zero),
            low,
            high,
        )
        for low, high, dtype, scale, zero in (
            (-128, 127, jnp.int8, 0.03, 5.0),
            (-(10**6), 10**6, jnp.int32, [1e-4, -2e-4, 3e-5, 1e-6], 0.0),
        )
    )
    codes = Codes(terms, HostArray([0.5, 0.0, -0.25, 1.0]))
    norm = uneven(Norm(4))
    norm.eval()
    twin = norm.integer((codes,), q31_even)
    after = twin(codes)  # pyright: ignore[reportCallIssue]
    factor, offset = norm.statistics.after()
    np.testing.assert_allclose(after.decode(), codes.decode() * factor + offset, rtol=1e-12)
    for before, now in zip(codes.terms, after.terms, strict=True):
        assert now.ints is before.ints


class Small(nnx.Module):
    """Codes, normalized alone, and codes again."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = ConvBN(3, 4, 3, rngs=rngs)
        self.act1 = Act()
        self.norm = uneven(Norm(4))
        self.act2 = Act()
        self.mean = GlobalAvgPool()
        self.dense = Dense(4, 5, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, 5)."""
        return self.dense(self.mean(self.act2(self.norm(self.act1(self.conv(x))))))


def test_the_next_quantizer_rounds_as_in_simulation() -> None:
    images = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    pixels = PixelInput((0.5,) * 3, (0.25,) * 3)
    ends = AffineWeight(8), AffineActivation(8)
    recipe = ends_8bit(AffineWeight(4), Pact(4, alpha_init=2.0), *ends)
    model = quantize(Small(nnx.Rngs(0)), recipe, pixels.normalise(jnp.asarray(images)))
    model.eval()
    network = integerize(model, pixels, (8, 8, 3))
    assert check_float_free(network, (8, 8, 3)) == []
    law = integer_law(model, network, images)
    for place, found in law.items():
        assert found.differing <= 1e-4 * found.codes and found.distance < 1e-3, place
    assert law["act2.output"].levels >= 8 and law["act2.output"].saturated < 0.9


def test_the_normalization_is_that_of_a_convolution() -> None:
    x = jnp.asarray(np.random.default_rng(1).normal(2.0, 3.0, (8, 5, 5, 2)), jnp.float32)
    norm = Norm(2)
    y = np.asarray(norm(x))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-4)
    assert norm.statistics.mean[...] == pytest.approx(0.1 * np.asarray(x).mean((0, 1, 2)), rel=1e-4)
