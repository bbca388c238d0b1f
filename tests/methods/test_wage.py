"""WAGE against the reference's vectors: every code exactly, every stored weight on its grid."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from qjax.agreement import compare
from qjax.core.powers import nearest_power
from qjax.core.quantizer import Role
from qjax.core.requantize import shift_after_image
from qjax.data import synthetic
from qjax.floatfree import check_float_free
from qjax.integerize import PixelInput, integerize
from qjax.methods.wage import WageActivation, WageWeight
from qjax.methods.wage_training import SumOfSquares, WageError, WageStart
from qjax.methods.wage_update import WageSgd, WageState, whole_steps
from qjax.models.wage import WageLeNet
from qjax.recipe import Recipe, Rule
from qjax.surgery import quantize
from qjax.training.schedules import Constant, Step
from qjax.training.state import labels, split

FILE = Path(__file__).parents[1] / "vectors" / "golden_training.json"
VECTORS = {
    vector["id"]: vector
    for vector in json.loads(FILE.read_text())["vectors"]
    if vector["id"].startswith("wage.")
}


PIXELS = PixelInput((0.5,), (0.5,))
STEPS = 60


def named(prefix: str) -> list[str]:
    """The vectors of one quantizer."""
    return [name for name in VECTORS if name.startswith(prefix) and name != "wage.w.k1"]


@pytest.mark.parametrize("name", [*named("wage.w."), "wage.q.paper_example"])
def test_weights(name: str) -> None:
    vector = VECTORS[name]
    q = WageWeight(bits=vector["bits"])
    w = jnp.asarray(vector["input"], jnp.float32)
    p = q.init(w, Role("weight", w.size)) | {"alpha": jnp.float32(1)}
    (term,) = q.codes(p, w)
    np.testing.assert_array_equal(np.asarray(term.codes), vector["signed_codes"])
    assert float(term.scale) == vector["scale"]
    np.testing.assert_array_equal(q(p, w), np.float32(vector["output"]))
    upstream = jnp.linspace(-1, 1, w.size)
    slope = jax.grad(lambda w: jnp.sum(q(p, w) * upstream))(w)
    np.testing.assert_array_equal(slope, upstream)


def test_one_bit_is_refused_with_the_range() -> None:
    # The released code has a special case, plain sign; the paper's sigma starts at two bits.
    with pytest.raises(ValueError, match=r"WageWeight\.bits must be a whole number from 2 to 8"):
        WageWeight(bits=VECTORS["wage.w.k1"]["bits"])


@pytest.mark.parametrize("name", named("wage.a."))
def test_activations(name: str) -> None:
    vector = VECTORS[name]
    q = WageActivation(bits=vector["bits"])
    p = q.init(jnp.zeros(1), Role("activation", 1))
    alpha = vector.get("params", {}).get("alpha", 1)
    x = jnp.asarray(vector["input"], jnp.float32) / alpha
    np.testing.assert_array_equal(np.asarray(q.codes(p, x)[0].codes), vector["signed_codes"])
    np.testing.assert_array_equal(q(p, x), np.float32(vector["output"]))
    if "d_input" in vector:
        upstream = jnp.asarray(vector["upstream_grad"])
        slope = jax.grad(lambda x: jnp.sum(q(p, x) * upstream))(x)
        np.testing.assert_array_equal(slope, np.float32(vector["d_input"]))


@pytest.mark.parametrize("name", named("wage.e."))
def test_errors(name: str) -> None:
    vector = VECTORS[name]
    q = WageError(bits=vector["bits"])
    e = jnp.asarray(vector["input"], jnp.float32)
    p = q.init(e, Role("error", e.size))
    forward, backward = jax.vjp(lambda x: q(p, x), 3 * e)
    np.testing.assert_array_equal(forward, 3 * e)
    np.testing.assert_array_equal(backward(e)[0], np.float32(vector["output"]))
    np.testing.assert_array_equal(np.asarray(q.codes(p, e)[0].codes), vector["signed_codes"])


def test_a_dead_error_stays_dead() -> None:
    q = WageError()
    p = q.init(jnp.zeros(3), Role("error", 3))
    _, backward = jax.vjp(lambda x: q(p, x), jnp.ones(3))
    np.testing.assert_array_equal(backward(jnp.zeros(3))[0], np.zeros(3))


def test_shift() -> None:
    vector = VECTORS["wage.shift"]
    shifted = nearest_power(jnp.asarray(vector["input"], jnp.float32))
    np.testing.assert_array_equal(shifted, np.float32(vector["output"]))


@pytest.mark.parametrize("limit", ["code", "paper"])
def test_alpha_from_the_fan_in(limit: str) -> None:
    vector = VECTORS["wage.init.kw2"]
    for fan_in, expected in zip(vector["input"], vector["output"][f"alpha_{limit}"], strict=True):
        alpha = WageWeight(limit=limit).init(jnp.zeros((fan_in, 1)), Role("weight", fan_in))[
            "alpha"
        ]
        assert float(alpha) == expected, fan_in


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"WageWeight\.limit must be one of .*got 'he'"):
        WageWeight(limit="he")


@pytest.mark.parametrize("name", named("wage.g."))
def test_weight_steps(name: str) -> None:
    vector = VECTORS[name]
    g, u = jnp.asarray(vector["input"], jnp.float32), jnp.asarray(vector["params"]["u"])
    steps = whole_steps(g, vector["params"]["lr"], u)
    np.testing.assert_array_equal(np.asarray(steps), vector["signed_codes"])
    np.testing.assert_array_equal(2.0 ** (1 - vector["bits"]) * steps, np.float32(vector["output"]))


@pytest.mark.parametrize(("clip", "weight_bits"), [("paper", None), ("code", 2)])
def test_the_clip_of_the_update(clip: str, weight_bits: int | None) -> None:
    vector = VECTORS[f"wage.update.{clip}_clip"]
    optimizer = WageSgd(1.0, Constant(), vector["bits"], weight_bits)
    w, delta = (np.float32(vector["input"][name]) for name in ("w", "delta_w"))
    new = optimizer._moved(jnp.asarray(w), jnp.asarray(delta * 2.0 ** (vector["bits"] - 1)))
    np.testing.assert_array_equal(new, np.float32(vector["output"]))


def test_an_integer_layer() -> None:
    vector = VECTORS["wage.integer_layer"]
    w, x = (jnp.asarray(vector["input"][name], jnp.float32) for name in ("w", "x"))
    weight, act = WageWeight(), WageActivation()
    p = weight.init(w, Role("weight", 4)) | {"alpha": jnp.float32(vector["params"]["alpha"])}
    a = act.init(x, Role("activation", 4))
    (w_term,), (x_term,) = weight.encode(p, w).terms, act.encode(a, x).terms
    np.testing.assert_array_equal(w_term.ints, vector["params"]["w_int"])
    np.testing.assert_array_equal(x_term.ints, vector["params"]["x_int"])
    accumulator = int(np.asarray(w_term.ints, int) @ np.asarray(x_term.ints, int))
    assert accumulator == vector["params"]["accumulator"]
    unit = float(w_term.scale.value * x_term.scale.value)
    assert unit * 2.0 ** vector["params"]["shift_right"] == float(x_term.scale.value)
    real = jnp.asarray([accumulator * unit], jnp.float32)
    assert int(act.encode(a, real).terms[0].ints[0]) == vector["params"]["output_int"]
    np.testing.assert_array_equal(act(a, jnp.sum(act(a, x) * weight(p, w))[None]), vector["output"])


@pytest.mark.parametrize(("bits", "weight_bits"), [(2, 2), (4, None), (8, 2), (8, 8), (16, None)])
def test_stored_weights_stay_on_their_grid(bits: int, weight_bits: int | None) -> None:
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.integers(-1, 2, (40, 30)) * 0.5, jnp.float32)
    schedule = Step(boundaries=[0.5], factor=0.125, unit="run")
    optimizer = WageSgd(8.0, schedule, bits, weight_bits).build(20, 5, "weight")
    state = optimizer.init(w)
    step = jax.jit(optimizer.update)
    start = w
    for _ in range(20):
        gradient = jnp.asarray(rng.standard_normal((40, 30)), jnp.float32)
        updates, state = step(gradient, state, w)
        w = w + updates
        codes = np.asarray(w, np.float64) * 2.0 ** (bits - 1)
        np.testing.assert_array_equal(codes, np.round(codes))
    assert isinstance(state, WageState) and float(state.learning_rate) == 1.0
    assert np.mean(np.asarray(w != start)) > 0.5


def test_a_clip_between_stored_values_is_refused() -> None:
    with pytest.raises(ValueError, match=r"WageSgd\.weight_bits must be from 2 to bits=4.*got 8"):
        WageSgd(1.0, Constant(), bits=4, weight_bits=8)


def test_rounding_is_fair_and_each_step_draws_anew() -> None:
    # A gradient of 0.3 steps moves three weights in ten; 4 sigma of 10,000 draws is 0.018.
    w = jnp.zeros((10_001,))
    gradient = jnp.full((10_001,), 0.3).at[0].set(1.0)
    optimizer = WageSgd(1.0, Constant(), weight_bits=None).build(2, 2, "weight")
    first, state = optimizer.update(gradient, optimizer.init(w), w)
    second, _ = optimizer.update(gradient, state, w)
    moved = [np.asarray(updates)[1:] != 0 for updates in (first, second)]
    for drawn in moved:
        assert abs(drawn.mean() - 0.3) < 0.018
    assert 0.3 < np.mean(moved[0] != moved[1]) < 0.55


def test_other_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="also trains norm; take a model without biases"):
        WageSgd(1.0, Constant()).build(1, 1, {"kernel": "weight", "bias": "norm"})


def test_the_loss_and_its_first_error() -> None:
    logits, targets = jnp.array([[0.5, 0.25], [0.0, 1.0]]), jnp.array([0, 1])
    loss, error = jax.value_and_grad(SumOfSquares())(logits, targets)
    assert float(loss) == 0.5 * (0.25 + 0.0625)
    np.testing.assert_array_equal(error, [[-0.5, 0.25], [0.0, 0.0]])


def network() -> tuple[nnx.Module, jax.Array, jax.Array]:
    """A small WAGE network, simulated, with a batch of images that fill the range of a byte."""
    model = WageLeNet(1, 4, image=16, widths=(6, 10, 24), rngs=nnx.Rngs(0))
    WageStart(bits=2)(model, jax.random.key(1))
    recipe = Recipe(
        (
            Rule("first", input=WageActivation(8)),
            Rule("last", error=WageError(8)),
            Rule(kind="act", output=WageActivation(8), error=WageError(8)),
            Rule(weight=WageWeight(2)),
        )
    )
    data = synthetic.load(height=16, width=16, classes=4, train_size=64, test_size=32)
    pixels = jnp.asarray(data.train_images)
    net = quantize(model, recipe, PIXELS.normalise(pixels))
    return net, pixels, jnp.asarray(data.train_labels)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Real steps of the network: what was stored after each, the loss before each, the end."""

    stored: list[list[jax.Array]]
    losses: list[float]
    net: nnx.Module


@pytest.fixture(scope="module")
def trained() -> Trained:
    net, pixels, targets = network()
    graphs, trainable, rest = split(net)
    # A ternary weight takes 33 whole steps from one level to the next: eta = 1 would be slow here.
    optimizer = WageSgd(8.0, Constant()).build(STEPS, STEPS, labels(trainable))

    @jax.jit
    def step(trainable: nnx.State, state: Any):
        def loss(trainable: nnx.State) -> jax.Array:
            model = nnx.merge(graphs.train, trainable, rest, copy=True)
            return SumOfSquares()(model(PIXELS.normalise(pixels)), targets)

        value, gradients = jax.value_and_grad(loss)(trainable)
        updates, state = optimizer.update(gradients, state, trainable)
        return optax.apply_updates(trainable, updates), state, value

    state, losses, stored = optimizer.init(trainable), [], [jax.tree.leaves(trainable)]
    for _ in range(STEPS):
        trainable, state, value = step(trainable, state)
        stored.append(jax.tree.leaves(trainable))
        losses.append(float(value))
    return Trained(stored, losses, nnx.merge(graphs.evaluate, trainable, rest))


def test_every_stored_weight_is_on_its_grid_after_every_step(trained: Trained) -> None:
    for weights in trained.stored:
        for weight in weights:
            codes = np.asarray(weight, np.float64) * 2**7
            np.testing.assert_array_equal(codes, np.round(codes))
            assert np.abs(codes).max() <= 127
    for first, last in zip(trained.stored[0], trained.stored[-1], strict=True):
        assert np.mean(np.asarray(first != last)) > 0.01
    assert len(trained.stored) == STEPS + 1
    assert max(trained.losses[-5:]) < 0.8 * trained.losses[0]


def test_the_start_is_ternary_and_even() -> None:
    model = WageLeNet(rngs=nnx.Rngs(0))
    WageStart(bits=2)(model, jax.random.key(0))
    kernel = np.asarray(model.dense1.kernel[...])
    assert np.unique(kernel).tolist() == [-0.5, 0.0, 0.5]
    # U(-0.75, 0.75) rounds to each level with probability 1/3; 4 sigma of 524,288 draws.
    assert np.all(np.abs([np.mean(kernel == v) - 1 / 3 for v in (-0.5, 0, 0.5)]) < 0.0026)
    assert not np.array_equal(kernel[:512, :10], np.asarray(model.dense2.kernel[...]))


def test_the_integer_network_equals_the_simulated_one_exactly(trained: Trained) -> None:
    net, (_, pixels, _) = trained.net, network()
    integer = integerize(net, PIXELS, (16, 16, 1), shift_after_image)
    assert check_float_free(integer, (16, 16, 1)) == []
    agreement = compare(net, integer, [np.asarray(pixels)])
    assert len(agreement.differing) == 4 and not any(agreement.differing.values())
    logits = integer.model(PIXELS.codes(pixels)).decode()  # pyright: ignore
    np.testing.assert_array_equal(logits, net(PIXELS.normalise(pixels)))  # pyright: ignore
    assert len(np.unique(logits)) > 30 and len(np.unique(agreement.integer_classes)) > 1


def test_behind_the_image_nothing_but_shifts_rescales(trained: Trained) -> None:
    integer = integerize(trained.net, PIXELS, (16, 16, 1), shift_after_image)
    image = PIXELS.codes(jnp.zeros((1, 16, 16, 1), jnp.uint8))
    pending = integer.model.pool1(integer.model.conv1(image))  # pyright: ignore
    # 2^-7 for a pixel, 2^-1 for a weight, alpha = 2 at a fan-in of 25.
    np.testing.assert_array_equal(pending.terms[0].scale.value, np.full(6, 2.0**-9))
    program = str(jax.make_jaxpr(integer.model.act1)(pending))  # pyright: ignore
    assert "shift_right_arithmetic" in program and " mul " not in program


def test_the_fixed_start_of_two_limits() -> None:
    model = WageLeNet(image=16, widths=(2, 2, 4), rngs=nnx.Rngs(0))
    for bits, factor in ((8, 3.0), (8, 6.0)):
        WageStart(bits, factor)(model, jax.random.key(0))
        kernel = np.asarray(model.conv2.kernel[...])
        limit = math.sqrt(factor / 50)
        assert 0.8 * limit < np.abs(kernel).max() <= limit + 2.0**-8
        np.testing.assert_array_equal(kernel * 128, np.round(kernel * 128))


def test_the_update_without_one_of_its_tricks() -> None:
    # sigma(8) = 2^-7. To nearest, 0.4 of Shift(0.9) = 1 is no step; unscaled, 0.4 is 51.2 steps.
    w, g = jnp.zeros(2), jnp.array([0.9, 0.4])
    for scaled, steps in ((True, [1, 0]), (False, [115, 51])):
        rule = WageSgd(1.0, Constant(), weight_bits=None, stochastic=False, scaled=scaled)
        optimizer = rule.build(10, 10, "weight")
        moved, _ = optimizer.update(g, optimizer.init(w), w)
        np.testing.assert_array_equal(moved, -(2.0**-7) * np.array(steps))
