"""`integerize`: pixels in, class out, and every refusal names its layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.integerize import PixelInput, common_scale, integerize
from qjax.layers import Act, Dense, Flatten
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.none import NoQuantizer
from qjax.models.small import SmallCNN
from qjax.recipe import Recipe, Rule, all_layers
from qjax.surgery import quantize

PIXELS = PixelInput((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
GREY = PixelInput((0.5,), (0.25,))
W8, A8 = AffineWeight(8), AffineActivation(8)


class Chain(nnx.Module):
    """Flatten, dense, activation, dense."""

    def __init__(self, inputs: int, act: str = "relu"):
        self.flatten = Flatten()
        self.wide = Dense(inputs, 2, rngs=nnx.Rngs(0))
        self.act = Act(act)
        self.head = Dense(2, 3, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        return self.head(self.act(self.wide(self.flatten(x))))


def chain(*rules: Rule, side: tuple[int, int] = (4, 4), ones: bool = False) -> nnx.Module:
    """A simulated chain."""
    model = Chain(side[0] * side[1])
    if ones:
        model.wide.kernel[...] = jnp.ones_like(model.wide.kernel[...])
    black, white = (jnp.full((1, *side, 1), pixel, jnp.uint8) for pixel in (0, 255))
    return quantize(model, Recipe(rules), GREY.normalise(jnp.concatenate([black, white])))


def test_pixels_stand_for_normalised_numbers():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    codes = PIXELS.codes(jnp.asarray(pixels))
    expected = (pixels / 255 - PIXELS.mean) / PIXELS.std
    np.testing.assert_allclose(codes.decode(), expected, atol=1e-12)
    np.testing.assert_allclose(PIXELS.normalise(jnp.asarray(pixels)), expected, atol=2e-6)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.0,)), ((0.5, 0.5), (0.25,))])
def test_wrong_pixel_numbers_are_named(mean: tuple[float, ...], std: tuple[float, ...]):
    with pytest.raises(ValueError, match="PixelInput needs one mean and one positive std"):
        PixelInput(mean, std)


@given(st.lists(st.integers(-(2**20), 2**20), min_size=8, max_size=8), st.data())
def test_common_logits_keep_the_order(ints: list[int], data: st.DataObject):
    scales = data.draw(st.lists(st.floats(1e-6, 1e2), min_size=4, max_size=4))
    offset = data.draw(st.lists(st.floats(-10, 10), min_size=4, max_size=4))
    values = jnp.asarray(ints, jnp.int32).reshape(2, 4)
    term = IntegerTerm(values, HostArray(scales), HostArray(0.0), -(2**20), 2**20)
    logits = Codes((term,), HostArray(offset))
    real = logits.decode()
    common = np.asarray(common_scale(logits), np.int64)
    step = np.max(np.abs(offset) + np.abs(scales) * 2**20) / 2**29
    for i in range(4):
        for j in range(4):
            clear = real[:, i] - real[:, j] > 3 * step
            assert np.all(common[clear, i] > common[clear, j])


def test_a_network_of_integers_has_no_float_layer_and_leaves_its_source():
    recipe = all_layers(AffineWeight(4), AffineActivation(4), A8, A8)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)), jnp.uint8)
    model = quantize(SmallCNN(width=4, rngs=nnx.Rngs(0)), recipe, GREY.normalise(x))
    before = nnx.graphdef(model)
    network = integerize(model, GREY, (8, 8, 1))
    assert network.float_layers == () and nnx.graphdef(model) == before
    assert network.paths[0] == "conv1" and network.paths[-1] == "classifier"
    for leaf in jax.tree.leaves(nnx.state(network)):
        assert not jnp.issubdtype(leaf.dtype, jnp.floating)
    classes = network(x)
    assert (classes.shape, classes.dtype) == ((4,), jnp.int32)
    np.testing.assert_array_equal(classes, np.argmax(np.asarray(network.logits(x)), -1))


def test_layers_that_stay_float_are_reported():
    keep = NoQuantizer()
    model = chain(Rule("head", weight=keep), Rule("wide", input=A8), Rule(weight=W8, output=A8))
    assert integerize(model, GREY, (4, 4, 1)).float_layers == ("head",)


def test_a_float_activation_stands_between_layers_that_multiply_integers():
    model = chain(Rule(kind="act", output=NoQuantizer()), Rule(weight=W8, input=A8))
    # A mean that puts no pixel between two codes.
    grey = PixelInput((0.45,), (0.25,))
    network = integerize(model, grey, (4, 4, 1))
    assert network.float_layers == ("act",)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
    model.eval()
    simulated = model(grey.normalise(jnp.asarray(pixels)))  # pyright: ignore[reportCallIssue]
    pending = network.model(grey.codes(jnp.asarray(pixels)))  # pyright: ignore[reportCallIssue]
    np.testing.assert_allclose(pending.decode(), simulated, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_integer_names_layer_and_remedy():
    with pytest.raises(ValueError) as caught:
        integerize(chain(Rule(weight=W8, output=A8)), GREY, (4, 4, 1))
    for part in ("'wide'", "`input` quantizer", "has no integer form here"):
        assert part in str(caught.value)


# 127 times -128, n times, stays inside int32 up to n = 132,104.
@pytest.mark.parametrize(("side", "fits"), [((4, 33026), True), ((5, 26421), False)], ids=str)
def test_an_accumulator_that_could_overflow_names_the_layer(side: tuple[int, int], fits: bool):
    model = chain(Rule("wide", input=A8), Rule(weight=W8, output=A8), side=side, ones=True)
    if fits:
        network = integerize(model, GREY, (*side, 1))
        assert network.twins()["wide"].accumulator_bits == (32,)  # pyright: ignore
        return
    with pytest.raises(ValueError) as caught:
        integerize(model, GREY, (*side, 1))
    for part in ("layer 'wide'", "33 bits", "more than int32 holds", "smaller fan-in"):
        assert part in str(caught.value)
