"""Why PACT on a leaky ReLU needs no run of its own: it is PACT on a ReLU."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.methods.none import NoQuantizer
from qjax.methods.pact import Pact
from qjax.models.lenet import LeNet5
from qjax.recipe import Recipe, Rule
from qjax.surgery import quantize

RECIPE = Recipe((Rule(weight=NoQuantizer(), output=Pact(2)),))


def outcome(function: str) -> list[np.ndarray]:
    """Logits and all gradients of a small network with this activation under PACT."""
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    model = LeNet5(image=8, widths=(4, 4, 8), function=function, rngs=nnx.Rngs(0))
    graph, state = nnx.split(quantize(model, RECIPE, images))

    def loss(state):
        logits = nnx.merge(graph, state)(images)
        return jnp.sum(jnp.square(logits)), logits

    # Both activations have one structure of numbers, so that the gradients line up.
    (_, logits), gradients = jax.value_and_grad(loss, has_aux=True, allow_int=True)(state)
    found = [leaf for leaf in jax.tree.leaves(gradients) if leaf.dtype == jnp.float32]
    return [np.asarray(leaf) for leaf in (logits, *found)]


def test_pact_does_not_see_the_leak():
    relu, leaky = outcome("relu"), outcome("leaky_relu")
    assert len(relu) == len(leaky) > 5
    assert all(np.array_equal(a, b) for a, b in zip(relu, leaky, strict=True))
    assert any(np.any(gradient != 0) for gradient in relu[1:])
