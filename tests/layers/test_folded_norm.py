"""Batch normalization folded into weights: golden vectors, gradients, and the integer form."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.agreement import integer_law
from qjax.integerize import PixelInput, integerize
from qjax.layers.norm import BatchNorm, FoldedCorrected, FoldedFrozen
from qjax.layers.slots import FloatSlot
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaWeight
from qjax.methods.lsq import Lsq
from qjax.methods.pact import Pact
from qjax.models.small import SmallCNN
from qjax.recipe import Recipe, Rule
from qjax.surgery import fold_batch_norm, quantize, slots
from qjax.training.state import split

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "vectors" / "golden_deployment.json").read_text(encoding="utf-8")
)["other_methods"]
FOLDING, CORRECTION = GOLDEN["bn_folding"], GOLDEN["bn_folding_with_correction"]
FOLDED = [FoldedFrozen, FoldedCorrected]


def golden_norm() -> BatchNorm:
    """The normalization of the golden vectors."""
    norm = BatchNorm(2, epsilon=FOLDING["eps"])
    for name, key in (("scale", "gamma"), ("bias", "beta"), ("mean", "mean"), ("var", "var")):
        getattr(norm, name)[...] = jnp.asarray(FOLDING[key], jnp.float32)
    return norm


def kernel() -> jax.Array:
    """Golden weights, outputs last."""
    return jnp.asarray(FOLDING["w_rows_out"], jnp.float32).T


def call(norm, x, w, weight=None):
    """The layer's product with a float weight slot."""
    return norm(weight or FloatSlot(), FloatSlot(), jnp.matmul, x, w)


@pytest.mark.parametrize("make", FOLDED)
def test_folded_weight_and_bias(make):
    norm = make(golden_norm())
    np.testing.assert_allclose(norm.folded(kernel()).T, FOLDING["w_fold"], rtol=1e-6)
    factor, offset = norm.after()
    # The vectors have a convolution bias of 0.05 before the first output.
    sigma = np.sqrt(np.asarray(FOLDING["var"]) + FOLDING["eps"])
    bias = np.asarray(FOLDING["gamma"]) * np.asarray(FOLDING["conv_bias"]) / sigma
    np.testing.assert_allclose(offset + bias, FOLDING["b_fold"], rtol=1e-6)
    np.testing.assert_array_equal(factor, 1)


def test_correction_for_the_batch():
    norm = FoldedCorrected(golden_norm())
    x = jnp.asarray([CORRECTION["x"]], jnp.float32)
    y = x @ norm.folded(kernel())
    moments = (jnp.asarray(CORRECTION[k], jnp.float32) for k in ("batch_mean", "batch_var"))
    found = norm.corrected(y, *moments)[0]
    np.testing.assert_allclose(
        found, CORRECTION["before_freeze_y=conv/c+beta-gamma*muB/sB"], rtol=1e-5
    )


@pytest.mark.parametrize("make", FOLDED)
def test_held_statistics(make):
    norm = make(golden_norm())
    norm.eval()
    found = call(norm, jnp.asarray([CORRECTION["x"]], jnp.float32), kernel())[0]
    np.testing.assert_allclose(
        found, CORRECTION["after_freeze_y=conv+beta-gamma*mu/sigma"], rtol=1e-5
    )


def test_with_float_weights_the_correction_is_ordinary_batch_normalization():
    x = jax.random.normal(jax.random.key(0), (16, 2))
    plain, folded = golden_norm(), FoldedCorrected(golden_norm())
    direction = jax.random.normal(jax.random.key(1), (16, 2))

    def loss(w, graph, state):
        return jnp.sum(call(nnx.merge(graph, state, copy=True), x, w) * direction)

    values, gradients = zip(
        *(jax.value_and_grad(loss)(kernel(), *nnx.split(norm)) for norm in (plain, folded)),
        strict=True,
    )
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)
    call(plain, x, kernel())
    call(folded, x, kernel())
    np.testing.assert_allclose(plain.mean[...], folded.mean[...], rtol=1e-6)
    np.testing.assert_allclose(plain.var[...], folded.var[...], rtol=1e-6)


def test_frozen_gradients_reach_the_weight_alone_and_through_the_fold():
    norm = FoldedFrozen(golden_norm())
    graph, params, rest = nnx.split(norm, nnx.Param, ...)
    assert not jax.tree.leaves(params) and len(jax.tree.leaves(rest)) == 4
    x = jax.random.normal(jax.random.key(0), (16, 2))
    sigma = np.sqrt(np.asarray(FOLDING["var"]) + FOLDING["eps"])

    def loss(w):
        return jnp.sum(call(nnx.merge(graph, params, rest, copy=True), x, w))

    expected = np.asarray(x).sum(0)[:, None] * (np.asarray(FOLDING["gamma"]) / sigma)[None]
    np.testing.assert_allclose(jax.grad(loss)(kernel()), expected, rtol=1e-4)


def trained(model: nnx.Module, x: jax.Array) -> nnx.Module:
    """The model with running statistics that fit `x`, and a gamma of either sign."""
    model.train()
    for _ in range(20):
        model(x)  # pyright: ignore[reportCallIssue]
    model.conv2.norm.scale[...] = jnp.linspace(-1.0, 1.5, 32)  # pyright: ignore
    return model


def recipe(weight) -> Recipe:
    """An integer network of these weights."""
    ends = AffineActivation(8)
    body = Rule(weight=weight, output=Pact(4, alpha_init=2.0))
    return Recipe((Rule("first", input=ends), Rule("last", input=ends), body))


@pytest.mark.parametrize("make", FOLDED)
@pytest.mark.parametrize("weight", [AffineWeight(4, per_channel=True), Lsq(4, signed=True)])
def test_integers_equal_the_simulation_under_the_law(make, weight):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    entry = PixelInput((0.473,), (0.31,))
    x = entry.normalise(jnp.asarray(pixels))
    model = fold_batch_norm(trained(SmallCNN(rngs=nnx.Rngs(0)), x), make)
    model = quantize(model, recipe(weight), x)
    model.eval()
    # Codes of folded weights: compiled within the network and at conversion, to the last one.
    graph, state = nnx.split(model)

    @jax.jit
    def codes(state):
        layer = nnx.merge(graph, state).conv2  # pyright: ignore[reportAttributeAccessIssue]
        slot = layer.weight
        return slot.quantizer.codes(slot.values(), layer.norm.folded(layer.kernel[...]))[0].codes

    conv2 = model.conv2  # pyright: ignore[reportAttributeAccessIssue]
    (term,) = conv2.weight.encode(conv2.norm.folded(conv2.kernel[...])).terms
    np.testing.assert_array_equal(codes(state), term.ints)
    found = integer_law(model, integerize(model, entry, (8, 8, 1)), pixels)
    assert len(found) == 5
    for place, difference in found.items():
        assert difference.distance < 1e-3, place
        assert difference.differing <= 1e-4 * difference.codes, place
        assert difference.levels > 3 and difference.saturated < 0.9, place


@pytest.mark.parametrize("make", FOLDED)
def test_a_learned_step_begins_at_the_folded_weight(make):
    x = jnp.ones((2, 8, 8, 1))
    plain = trained(SmallCNN(rngs=nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (8, 8, 8, 1)))
    found = slots(quantize(fold_batch_norm(plain, make), recipe(Lsq(4, signed=True)), x))
    w = make(plain.conv2.norm).folded(plain.conv2.kernel[...])  # pyright: ignore
    expected = 2 * jnp.mean(jnp.abs(w)) / jnp.sqrt(7.0)
    np.testing.assert_allclose(found["conv2.weight"].numbers["step"][...], expected, rtol=1e-5)


def test_weights_of_another_magnitude_cannot_be_folded():
    model = fold_batch_norm(SmallCNN(rngs=nnx.Rngs(0)), FoldedCorrected)
    with pytest.raises(ValueError, match="'conv1': DoReFaWeight .* choose bn=separate"):
        quantize(model, recipe(DoReFaWeight(4)), jnp.ones((2, 8, 8, 1)))


def test_a_model_without_normalization_cannot_be_folded():
    class Bare(nnx.Module):
        pass

    with pytest.raises(ValueError, match="Bare has no ConvBN"):
        fold_batch_norm(Bare(), FoldedFrozen)


def test_frozen_statistics_stay_in_training_and_gamma_moves_unless_frozen_too():
    model = fold_batch_norm(SmallCNN(rngs=nnx.Rngs(0)), FoldedCorrected)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    for freeze, moved in (((), True), (("batch_statistics",), False), (("batch_norm",), False)):
        graphs, trainable, rest = split(model, freeze)
        copy = nnx.merge(graphs.train, trainable, rest)
        copy(x)
        after = copy.conv2.norm.mean[...]
        assert bool(jnp.any(after != model.conv2.norm.mean[...])) is moved  # pyright: ignore
        assert ("scale" in trainable["conv2"].get("norm", {})) is ("batch_norm" not in freeze)
