"""`quantize`: a copy whose slots simulate, one program for all widths, and the table of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.core.quantizer import Quantizer
from qjax.layers.slots import FloatSlot, Slot
from qjax.layers.variables import Learned, Statistic, Traced
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaActivation, DoReFaWeight
from qjax.methods.lsq import Lsq
from qjax.methods.none import NoQuantizer
from qjax.methods.pact import Pact
from qjax.models.mobilenet_v2 import MobileNetV2
from qjax.models.small import SmallCNN
from qjax.recipe import Recipe, Rule, conv_inputs, ends_8bit, ends_float
from qjax.surgery import format_table, layer_table, penalty, quantize, slots
from qjax.tree import walk

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 1)), jnp.float32)
ENDS = AffineWeight(8, per_channel=True), AffineActivation(8)


def net() -> SmallCNN:
    """A float network."""
    return SmallCNN(width=4, rngs=nnx.Rngs(0))


def pact(w_bits: int, a_bits: int) -> nnx.Module:
    """The network under PACT."""
    return quantize(net(), ends_8bit(DoReFaWeight(w_bits), Pact(a_bits), *ENDS), X)


def test_the_float_model_is_left_alone():
    model = net()
    before, state = nnx.graphdef(model), jax.tree.map(np.asarray, nnx.state(model))
    quantize(model, ends_8bit(DoReFaWeight(4), Pact(4), *ENDS), X)
    assert nnx.graphdef(model) == before
    jax.tree.map(np.testing.assert_array_equal, state, jax.tree.map(np.asarray, nnx.state(model)))


def test_slots_are_bound_where_the_recipe_says():
    bound = slots(pact(4, 4))
    weights = {f"{path}.weight" for path in ("conv1", "conv2", "conv3", "classifier")}
    inputs = {"conv1.input", "classifier.input"}
    assert set(bound) == weights | inputs | {"act1.output", "act2.output", "act3.output"}
    assert isinstance(bound["conv1.weight"].quantizer, AffineWeight)
    assert isinstance(bound["conv2.weight"].quantizer, DoReFaWeight)


def test_float_on_purpose_is_a_float_slot():
    model = quantize(net(), ends_float(DoReFaWeight(2), Pact(2), NoQuantizer()), X)
    layers = dict(walk(model))
    assert isinstance(layers["conv1"].weight, FloatSlot)  # pyright: ignore
    assert isinstance(layers["conv2"].weight, Slot)  # pyright: ignore


def test_one_graph_and_one_compilation_serve_all_widths():
    traces = []

    @jax.jit
    def run(state: nnx.State, x: jax.Array) -> jax.Array:
        traces.append(state)
        return nnx.merge(graph, state, copy=True)(x)

    graph = nnx.graphdef(pact(4, 4))
    outputs = []
    for bits in (2, 4, 8):
        other, state = nnx.split(pact(bits, bits))
        assert other == graph and hash(other) == hash(graph)
        outputs.append(np.asarray(run(state, X)))
    assert len(traces) == 1
    assert not np.allclose(outputs[0], outputs[1])


def test_numbers_stand_in_drawers_by_kind():
    model = pact(4, 3)
    learned = nnx.state(model, Learned)
    assert len(jax.tree.leaves(learned)) == 3
    assert len(jax.tree.leaves(nnx.state(model, Statistic))) == 4
    assert {int(s.values()["bits"]) for p, s in slots(model).items() if "act" in p} == {3}
    assert all("alpha" not in str(path) for path in nnx.state(model, Traced))


def test_each_slot_has_numbers_of_its_own():
    model = pact(4, 4)
    bound = slots(model)
    bound["act1.output"].numbers["alpha"][...] = jnp.float32(1.0)
    assert float(bound["act2.output"].values()["alpha"]) == 6.0


def test_first_numbers_come_from_the_sample():
    bound = slots(pact(4, 4))["conv1.input"].values()
    np.testing.assert_allclose([bound["low"], bound["high"]], [X.min(), X.max()])


def test_penalties_add_up():
    np.testing.assert_allclose(penalty(pact(4, 4)), 3 * 0.5 * 2e-4 * 36, rtol=1e-5)
    assert float(penalty(net())) == 0.0


def test_the_table_counts_macs_weights_and_bytes():
    rows = {row.path: row for row in layer_table(pact(2, 4), X)}
    assert list(rows)[:3] == ["conv1", "act1", "conv2"] and list(rows)[-1] == "classifier"
    conv2 = rows["conv2"]
    assert (conv2.output_shape, conv2.weights) == ((8, 8, 8), 9 * 4 * 8)
    assert conv2.macs == 8 * 8 * 9 * 4 * 8
    assert conv2.weight_bytes == 9 * 4 * 8 * 2 // 8
    assert (conv2.quantizers, conv2.bits) == ({"weight": "DoReFaWeight"}, {"weight": 2})
    assert rows["act1"].bits == {"output": 4} and rows["pool"].macs == 0
    (plain,) = (row for row in layer_table(net(), X) if row.path == "conv2")
    assert plain.weight_bytes == 4 * plain.weights and plain.quantizers == {}


def test_the_table_reads_as_text():
    text = format_table(layer_table(pact(2, 4), X))
    (line,) = (line for line in text.splitlines() if line.startswith("conv2"))
    assert "DoReFaWeight:2" in line and "8x8x8" in line and "18,432" in line


def test_a_recipe_that_does_not_fit_is_refused_before_any_change():
    model = net()
    with pytest.raises(ValueError, match=r"no rule sets the output of layer 'act1'"):
        quantize(model, Recipe((Rule(weight=DoReFaWeight(4)),)), X)
    assert slots(model) == {}


BOTTLENECKS = MobileNetV2(
    width=1 / 4, stack=((1, 16, 1, 1), (6, 32, 1, 2)), head=32, rngs=nnx.Rngs(0)
)
"""The second block expands what a first one hands it without an activation."""

PHOTOS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)


@pytest.mark.parametrize("act", [Pact(4), DoReFaActivation(4), Lsq(4, signed=False)])
def test_conv_inputs_refuses_to_lose_what_lies_below_zero(act: Quantizer):
    recipe = conv_inputs(DoReFaWeight(4), act, NoQuantizer())
    words = rf"layer 'blocks.1.expand' .* down to -.* codes of {act.label} begin .*act=minmax"
    with pytest.raises(ValueError, match=f"recipe conv_inputs: {words}"):
        quantize(BOTTLENECKS, recipe, PHOTOS)
    quantize(net(), recipe, X)


def test_a_quantizer_that_keeps_the_sign_may_sit_anywhere():
    keep = conv_inputs(DoReFaWeight(4), AffineActivation(4), NoQuantizer())
    assert "blocks.1.expand.input" in slots(quantize(BOTTLENECKS, keep, PHOTOS))
    # On purpose: a recipe of one's own that rectifies the image.
    rules = (Rule("first", input=Pact(2)), Rule(weight=NoQuantizer(), output=NoQuantizer()))
    assert list(slots(quantize(net(), Recipe(rules), X))) == ["conv1.input"]
