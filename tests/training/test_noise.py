"""Random keys and progress reach quantizers; gradients are quantized where a rule says so."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.agreement import integer_law
from qjax.core.floatconv import conv
from qjax.integerize import integerize
from qjax.layers import Act, Conv, ConvBN, Dense, DenseBN
from qjax.layers.slots import ErrorSlot, FloatSlot, Slot
from qjax.methods.pact import Pact
from qjax.recipe import Recipe, Rule
from qjax.surgery import error_slots, layer_table, quantize, slots
from qjax.training import checkpoint
from tests.training.noisy import AnnealedWeight, SignError, StochasticWeight
from tests.training.small import DATA, Tiny, loop, rules, spec, steps

NOISY = Recipe((Rule("conv", weight=StochasticWeight(), error=SignError()), *rules()))


def noise_of(slot: Slot) -> np.ndarray:
    """The state of a slot's random stream, as numbers."""
    assert slot.noise is not None
    return np.asarray(jax.random.key_data(slot.noise[...]))


def test_a_stochastic_quantizer_gets_a_fresh_key_in_training_and_none_in_evaluation():
    slot = Slot(StochasticWeight(), {}, jax.random.key(3))
    w = jnp.linspace(-0.5, 0.5, 64)
    first, second = slot(w), slot(w)
    assert not jnp.array_equal(first, second)
    again = Slot(StochasticWeight(), {}, jax.random.key(3))
    assert jnp.array_equal(again(w), first) and jnp.array_equal(again(w), second)
    slot.eval()
    before = noise_of(slot)
    assert jnp.array_equal(slot(w), jnp.floor(8 * w + 0.5) / 8)
    np.testing.assert_array_equal(noise_of(slot), before)


def test_a_method_with_both_operands_gets_the_key_too():
    class Both(StochasticWeight):
        def linear(self, op, x, w, p, key=None):
            return op(x, self(p, w, key))

    x, w = jnp.eye(4), jnp.full((4, 4), 0.3)
    expected = Slot(StochasticWeight(), {}, jax.random.key(3)).linear(jnp.matmul, x, w)
    found = Slot(Both(), {}, jax.random.key(3)).linear(jnp.matmul, x, w)
    assert jnp.array_equal(found, expected)


def test_each_slot_has_its_own_noise_and_the_seed_decides_it():
    x = jnp.ones((2, 6, 6, 1))
    models = [quantize(Tiny(), NOISY, x, seed) for seed in (0, 0, 1)]
    bound = [(slots(m)["conv.weight"], error_slots(m)["conv.error"]) for m in models]
    keys = np.asarray([[noise_of(slot) for slot in pair] for pair in bound])
    assert np.any(keys[0, 0] != keys[0, 1])
    np.testing.assert_array_equal(keys[0], keys[1])
    assert np.all(np.any(keys[0] != keys[2], -1))


def test_a_resumed_run_repeats_the_noise(tmp_path):
    run = spec(recipe=NOISY)
    whole = list(steps(loop(run), 3))
    first = loop(run)
    list(steps(first, 1))
    checkpoint.save(tmp_path, 1, first.state, {})
    second = loop(run)
    restored = checkpoint.restore_latest(tmp_path, like=second.state)
    assert restored is not None
    second.state = restored[0]
    for position in (1, 2):
        second.state, _ = second.step(second.state, second.batch(0, position))
    for a, b in zip(jax.tree.leaves(second.state), jax.tree.leaves(whole[-1]), strict=True):
        assert jnp.array_equal(a, b)


def test_progress_reaches_the_quantizer_and_ends_at_one():
    recipe = Recipe((Rule("conv", weight=AnnealedWeight()), *rules()))
    made = loop(spec(recipe=recipe))
    shares = [
        float(state.rest["conv"]["weight"]["numbers"]["share"][...]) for state in steps(made, 4)
    ]
    assert shares == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("kind", [ConvBN, Conv, DenseBN, Dense])
def test_the_error_slot_stands_directly_on_the_product(kind):
    is_conv = kind in (Conv, ConvBN)
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3) if is_conv else (16, 3))
    layer = kind(3, 4, *([3] if is_conv else []), rngs=nnx.Rngs(0))
    layer.train()
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def output(params, marked):
        copy = nnx.merge(graph, params, rest, copy=True)
        if marked:
            copy.error = ErrorSlot(Slot(SignError(), {}))
            copy.error.eval()
        return copy(x)

    plain = output(params, False)
    direction = jax.random.normal(jax.random.key(1), plain.shape)
    np.testing.assert_array_equal(output(params, True), plain)
    found = jax.grad(lambda p: jnp.sum(output(p, True) * direction))(params)["kernel"][...]

    # By hand: the gradient at the product, its sign, then back through the product alone.
    def behind(y):
        copy = nnx.merge(graph, params, rest, copy=True)
        return jnp.sum((copy.norm.normalize(y) if "norm" in vars(copy) else y) * direction)

    def product(kernel):
        return conv(x, kernel, padding=((1, 1), (1, 1))) if is_conv else x @ kernel

    kernel = params["kernel"][...]
    error = jnp.sign(jax.grad(behind)(product(kernel)))
    expected = jax.vjp(product, kernel)[1](error)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_rule_puts_error_quantizers_on_products_and_on_activations_it_names():
    x = jnp.ones((2, 6, 6, 1))
    body = Rule(weight=StochasticWeight(), output=Pact(4), error=SignError())
    model: Any = quantize(Tiny(), Recipe((body,)), x)
    assert set(error_slots(model)) == {"conv.error", "classifier.error"}
    assert isinstance(model.act.error, FloatSlot)
    named = Recipe(
        (Rule(kind="act", error=SignError()), Rule(weight=StochasticWeight(), output=Pact(4)))
    )
    model = quantize(Tiny(), named, x)
    assert list(error_slots(model)) == ["act.error"]
    act = model.act
    assert isinstance(act, Act)
    # Forward it is the output quantizer of the function, as without.
    y = jax.random.normal(jax.random.key(0), (3, 4))
    np.testing.assert_array_equal(act(y), act.output(y))


def test_error_quantizers_are_told_and_leave_the_integer_form_alone():
    run = spec(recipe=NOISY)
    made = loop(run)
    list(steps(made, 2))
    model = made.model()
    rows = {row.path: row for row in layer_table(model, run.sample())}
    assert rows["conv"].quantizers["error"] == "SignError"
    assert "test-error" in run.references(model)
    network = integerize(model, run.pixels, DATA.shape)
    for place, difference in integer_law(model, network, DATA.test_images).items():
        assert difference.distance < 1e-3, place
