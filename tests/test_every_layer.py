"""A network of the layers that the models do without: law, no float, and the same program."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from qjax.agreement import integer_law
from qjax.export import program_of
from qjax.floatfree import check_float_free
from qjax.integerize import integerize
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.program.load import load
from qjax.program.run import runner
from qjax.program.save import save
from qjax.recipe import Recipe, Rule
from tests.every_layer import EveryLayer
from tests.test_agreement import PIXELS, images, live

SIDE = 12
SHAPE = (SIDE, SIDE, 1)
W = AffineWeight(8, symmetric=False, per_channel=True)
A = AffineActivation(8)
ENDS = tuple(Rule(end, weight=W, input=A) for end in ("first", "last"))
TABLES = tuple(Rule(path, input=A, output=A) for path in ("sigmoid", "tanh", "softmax"))
RECIPE = Recipe((*ENDS, *TABLES, Rule(kind="concat", output=A), Rule(weight=W, output=A)))


def test_every_layer_keeps_the_law_without_a_float_and_as_a_program(tmp_path: Path):
    pixels = images(SIDE)
    net = live(EveryLayer(rngs=nnx.Rngs(1)), RECIPE, pixels)
    network = integerize(net, PIXELS, SHAPE)
    assert network.float_layers == ()
    assert check_float_free(network, SHAPE) == []
    law = integer_law(net, network, pixels)
    assert {"leaky.output", "clip.output", "gated.output", "softmax.output"} <= set(law)
    for place, found in law.items():
        assert found.levels > 50 and found.saturated < 0.7, place
        assert found.differing <= 1e-4 * found.codes and found.distance <= 1e-3, place
    program = program_of(network, SHAPE)
    kinds = {operator.kind for operator in program.operators}
    assert {"transpose_conv2d", "lookup", "softmax", "mul", "maximum", "pad", "reshape"} <= kinds
    save(program, tmp_path / "net.qjax")
    for found in (runner(program)(pixels), runner(load(tmp_path / "net.qjax"))(pixels)):
        np.testing.assert_array_equal(found["logits"], network.logits(jnp.asarray(pixels)))
