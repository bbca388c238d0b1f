"""The probe pass: execution order, and the errors that come before any step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.layers import Act, Add, Dense
from qjax.models.small import SmallCNN
from qjax.probe import probe

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)


class Chain(nnx.Module):
    """Two dense layers and an activation, wired as the test says."""

    def __init__(self, wiring: str):
        self.last = Dense(3, 3, rngs=nnx.Rngs(1))
        self.act = Act()
        self.first = Dense(3, 3, rngs=nnx.Rngs(0))
        self.other = self.act if wiring == "shared" else Act()
        self.wiring = wiring

    def __call__(self, x: jax.Array) -> jax.Array:
        """The wiring."""
        x = self.act(self.first(x))
        x = self.act(x) if self.wiring == "twice" else x
        x = x if self.wiring == "never" else self.other(x)
        return self.last(x)


def test_calls_come_in_execution_order_with_what_flowed():
    model = Chain("right")
    calls = probe(model, X)
    assert [call.path for call in calls] == ["first", "act", "other", "last"]
    assert [call.layer for call in calls][0] is model.first
    for before, after in zip(calls, calls[1:], strict=False):
        np.testing.assert_array_equal(before.output, after.inputs[0])
    np.testing.assert_array_equal(calls[0].inputs[0], X)
    np.testing.assert_allclose(calls[-1].output, model(X), rtol=1e-6)


class Fork(nnx.Module):
    """What reads each output: an activation, two layers, an activation and the caller."""

    def __init__(self):
        self.one = Dense(3, 3, rngs=nnx.Rngs(0))
        self.two = Dense(3, 3, rngs=nnx.Rngs(1))
        self.three = Dense(3, 3, rngs=nnx.Rngs(2))
        self.acts = nnx.List([Act(), Act(), Act()])
        self.add = Add()

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The wiring."""
        x = self.acts[0](self.one(x))
        y = self.two(x)
        z = self.three(self.add(self.acts[1](y), y))
        return self.acts[2](z), z


def test_an_activation_is_seen_that_alone_reads_a_layer():
    calls = {call.path: call.into_act for call in probe(Fork(), X)}
    assert [path for path, alone in calls.items() if alone] == ["one"]


def test_a_model_is_left_as_it_was():
    model = SmallCNN(width=4, rngs=nnx.Rngs(0))
    model.eval()
    before = jax.tree.map(np.asarray, nnx.state(model))
    graph = nnx.graphdef(model)
    probe(model, jnp.ones((2, 8, 8, 1)))
    assert nnx.graphdef(model) == graph
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, nnx.state(model)))


def test_normalization_sees_the_batch_and_not_fresh_statistics():
    x = jnp.asarray(np.random.default_rng(1).normal(50.0, 9.0, (8, 8, 8, 1)), jnp.float32)
    model = SmallCNN(width=4, rngs=nnx.Rngs(0))
    model.eval()
    (first,) = (call for call in probe(model, x) if call.path == "conv1")
    np.testing.assert_allclose(np.mean(first.output, (0, 1, 2)), 0, atol=1e-3)


@pytest.mark.parametrize(
    ("wiring", "words"),
    [
        ("twice", ("'act' is called 2 times", "construct a layer for each call")),
        ("never", ("'other' is never called", "remove it or call it")),
        ("shared", ("'act' and 'other' are one object", "construct a layer for each place")),
    ],
)
def test_wrong_wirings_name_the_layer_and_the_remedy(wiring: str, words: tuple[str, ...]):
    with pytest.raises(ValueError) as caught:
        probe(Chain(wiring), X)
    for part in words:
        assert part in str(caught.value)


def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match=r"Linear holds no qjax layer; build it from qjax\.layers"):
        probe(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), X)
