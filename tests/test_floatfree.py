"""The float-free check finds a float wherever a program can hide one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from qjax.floatfree import Function, check_float_free, float_values
from qjax.integerize import IntegerNetwork, PixelInput, integerize
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.none import NoQuantizer
from qjax.models.small import SmallCNN
from qjax.recipe import Recipe, all_layers, ends_float
from qjax.surgery import quantize
from qjax.tree import get, swap

X = jnp.arange(4, dtype=jnp.int32)
TABLE = np.asarray([0.5, 1.5, 2.5, 3.5], np.float32)


def through_float(x: jax.Array) -> jax.Array:
    """Integers in and out, a float between."""
    return (x.astype(jnp.float32) * 0.5).astype(jnp.int32)


@jax.custom_jvp
def with_jvp(x: jax.Array) -> jax.Array:
    """A float inside a function with its own derivative."""
    return through_float(x)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents[0]))


@jax.custom_vjp
def with_vjp(x: jax.Array) -> jax.Array:
    """A float inside a function with its own pull-back."""
    return through_float(x)


with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g,))

HIDDEN = {
    "in the open": through_float,
    "compiled": jax.jit(through_float),
    "compiled twice": jax.jit(lambda x: jax.jit(through_float)(x) + 1),
    "one branch": lambda x: lax.cond(x[0] > 0, through_float, lambda y: y, x),
    "one case": lambda x: lax.switch(x[0], [lambda y: y, through_float, lambda y: -y], x),
    "a loop's body": lambda x: lax.while_loop(
        lambda y: y[0] < 9, lambda y: through_float(y) + 9, x
    ),
    "a loop's condition": lambda x: lax.while_loop(
        lambda y: y[0].astype(jnp.float32) < 9, lambda y: y + 9, x
    ),
    "a scan": lambda x: lax.scan(lambda c, y: (c, through_float(y)), 0, x)[1],
    "a counted loop": lambda x: lax.fori_loop(0, 2, lambda _, y: through_float(y), x),
    "a derivative": with_jvp,
    "a pull-back": with_vjp,
    "rematerialised": jax.checkpoint(through_float),
    "mapped": jax.vmap(through_float),
    "a constant": lambda x: x + jnp.asarray(TABLE).astype(jnp.int32),
    "a compiled constant": jax.jit(lambda x: x + jnp.asarray(TABLE).astype(jnp.int32)),
    "half precision": lambda x: x.astype(jnp.bfloat16).astype(jnp.int32),
    "a complex number": lambda x: jnp.real(x.astype(jnp.complex64)).astype(jnp.int32),
    "a result": lambda x: x / 2,
    "reinterpreted bits": lambda x: lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, jnp.float32), jnp.int32
    ),
}
CLEAN = {
    "arithmetic": lambda x: (x * 3 + 1) >> 2,
    "control flow": lambda x: lax.cond(x[0] > 0, lambda y: y * 2, lambda y: -y, x),
    "a loop": lambda x: lax.while_loop(lambda y: y[0] < 9, lambda y: y + 1, x),
    "a constant": lambda x: x + jnp.asarray(np.arange(4, dtype=np.int32)),
    "a window": lambda x: lax.reduce_window(x, 0, lax.add, (2,), (1,), "VALID"),
    "the high word": lambda x: lax.mulhi(x, x),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_float_is_found(name: str):
    assert float_values(HIDDEN[name], X)


@pytest.mark.parametrize("name", CLEAN)
def test_integers_pass(name: str):
    assert float_values(CLEAN[name], X) == []


def test_an_input_that_nothing_uses_is_found():
    assert float_values(lambda x, y: x, X, jnp.float32(1)) == ["input float32[]"]


def network(recipe: Recipe) -> IntegerNetwork:
    """A converted network."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    model = quantize(SmallCNN(width=4, rngs=nnx.Rngs(0)), recipe, x)
    return integerize(model, PixelInput((0.5,), (0.25,)), (8, 8, 1))


W, A = AffineWeight(4), AffineActivation(4)
WHOLE = all_layers(W, A, AffineActivation(8), AffineActivation(8))
ENDS = ends_float(W, A, NoQuantizer())


@pytest.mark.parametrize("recipe", [WHOLE, ENDS], ids=["whole", "float ends"])
def test_a_float_between_two_layers_of_a_network_is_found(recipe: Recipe):
    converted = network(recipe)
    assert check_float_free(converted, (8, 8, 1)) == []
    layer = get(converted.model, "add")

    def tampered(*inputs: object) -> object:
        y = layer(*inputs)  # pyright: ignore[reportCallIssue]
        return jax.tree.map(lambda v: v.astype(jnp.float32).astype(v.dtype), y)

    swap(converted.model, "add", Function(tampered))
    assert check_float_free(converted, (8, 8, 1))


def test_a_float_left_in_the_state_is_found():
    converted = network(WHOLE)
    converted.model.forgotten = nnx.Param(jnp.ones(3))  # pyright: ignore
    assert check_float_free(converted, (8, 8, 1)) == ["input float32[3]"]


def test_float_ends_are_reported_beside_an_integer_body():
    assert network(WHOLE).float_layers == ()
    assert network(ENDS).float_layers == ("conv1", "classifier")
