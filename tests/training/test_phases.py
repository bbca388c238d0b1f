"""Phases: schedules that go on, delayed starts, freezing, new recipes, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.layers.norm import FoldedCorrected, FoldedFrozen
from qjax.layers.slots import Slot, Watched
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.none import NoQuantizer
from qjax.methods.pact import Pact
from qjax.recipe import Recipe, Rule
from qjax.surgery import requantize, slots, watch
from qjax.training.optimizers import Adam, Sgd
from qjax.training.phases import Phase, chain, check_phases
from qjax.training.schedules import Cosine
from qjax.training.teacher import Teacher
from tests.training.small import Tiny, loop, rules, spec

COSINE = Adam(0.01, schedule=Cosine())


def trained(run):
    """The loops of all phases, each trained from where the one before ended."""
    done, model, before = [], run.make_model(), None
    for index, phase in enumerate(run.phases):
        made = loop(run, index, model, before if phase.continues else None)
        list(made.epochs())
        model, before = made.model(), made.state
        done.append(made)
    return done


def test_phases_that_continue_are_one_training():
    whole = trained(spec(Phase("all", 3, COSINE)))[0]
    parts = trained(spec(Phase("a", 1, COSINE), Phase("b", 2, COSINE, continues=True)))[-1]
    assert int(parts.state.step) == int(whole.state.step) == 12
    assert parts.steps_done == 8
    for a, b in zip(jax.tree.leaves(parts.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_delayed_start_follows_ranges_and_leaves_activations_alone():
    affine = Recipe((Rule(weight=AffineWeight(4), output=AffineActivation(4)),))
    phases = (
        Phase("delayed", 1, COSINE, unquantized=["activations"]),
        Phase("quantized", 1, COSINE, continues=True),
    )
    run = spec(*phases, recipe=affine)
    delayed, after = trained(run)
    act = delayed.model().act  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(act.output, Watched)
    x = jnp.linspace(-1.0, 2.0, 4)
    np.testing.assert_array_equal(act(x), jax.nn.relu(x))
    first = run.enter(run.make_model(), 0).act.output.watched  # pyright: ignore
    high = float(act.output.watched.numbers["high"][...])
    assert high != float(first.numbers["high"][...])
    # The next phase quantizes with the ranges found, and goes on from there.
    begun = run.enter(delayed.model(), 1).act.output  # pyright: ignore
    assert isinstance(begun, Slot) and float(begun.numbers["high"][...]) == high
    assert isinstance(after.model().act.output, Slot)  # pyright: ignore


def test_unused_clips_wait_for_their_phase():
    delayed = loop(spec(Phase("a", 1, COSINE, unquantized=["activations"]), Phase("b", 1, COSINE)))
    assert "act" not in delayed.state.trainable
    assert "alpha" in delayed.state.rest["act"]["output"]["watched"]["numbers"]


def test_weights_can_wait_too():
    model = watch(spec().enter(Tiny(), 0), ["weight"])
    assert isinstance(model.conv.weight, Watched)  # pyright: ignore
    assert isinstance(model.act.output, Slot)  # pyright: ignore
    back = watch(model, [])
    assert list(slots(back)) == list(slots(spec().enter(Tiny(), 0)))


@pytest.mark.parametrize(
    ("word", "moves", "stays"),
    [
        ("weights", "conv/norm/scale", "conv/kernel"),
        ("quantizers", "conv/kernel", "act/output/numbers/alpha"),
        ("ranges", "conv/kernel", "conv/input/numbers/high"),
        ("batch_statistics", "conv/norm/scale", "conv/norm/mean"),
        ("batch_norm", "conv/kernel", "conv/norm/scale"),
    ],
)
def test_what_is_frozen_stays_and_the_rest_moves(word, moves, stays):
    made = loop(spec(Phase("frozen", 1, Sgd(0.1), freeze=[word])))

    def find(name):
        for part in (made.state.trainable, made.state.rest):
            for path, leaf in jax.tree_util.tree_leaves_with_path(part):
                if jax.tree_util.keystr(path, simple=True, separator="/").startswith(name):
                    return np.asarray(leaf)
        raise AssertionError(name)

    before = find(moves).copy(), find(stays).copy()
    list(made.epochs())
    assert np.any(find(moves) != before[0])
    np.testing.assert_array_equal(find(stays), before[1])


def test_a_new_recipe_keeps_what_it_does_not_change():
    x = jnp.ones((2, 6, 6, 1))
    model = spec().enter(Tiny(), 0)
    slots(model)["act.output"].numbers["alpha"][...] = jnp.float32(3.0)
    ends = AffineActivation(8)
    fewer = Recipe(
        (
            Rule("first", input=ends, weight=AffineWeight(2)),
            Rule("last", weight=NoQuantizer()),
            Rule(output=Pact(4)),
        )
    )
    found = slots(requantize(model, fewer, x))
    assert float(found["act.output"].numbers["alpha"][...]) == 3.0
    assert int(found["conv.weight"].numbers["bits"][...]) == 2
    assert "classifier.weight" not in found
    narrow = Recipe((*rules()[:2], Rule(weight=AffineWeight(4), output=Pact(2, alpha_init=6.0))))
    assert float(slots(requantize(model, narrow, x))["act.output"].numbers["alpha"][...]) == 6.0


def test_a_phase_brings_its_recipe():
    fewer = Recipe((*rules()[:2], Rule(weight=AffineWeight(2), output=Pact(2))))
    run = spec(Phase("wide", 0, Sgd(0.1)), Phase("narrow", 0, Sgd(0.1), recipe=fewer))
    wide = run.enter(run.make_model(), 0)
    narrow = run.enter(wide, 1)
    assert int(slots(wide)["conv.weight"].numbers["bits"][...]) == 4
    assert int(slots(narrow)["conv.weight"].numbers["bits"][...]) == 2
    assert int(slots(run.quantized(Tiny()))["conv.weight"].numbers["bits"][...]) == 2


def test_batch_normalization_is_folded_when_quantization_begins():
    phases = (Phase("float", 0, Sgd(0.1), quantized=False), Phase("quantized", 0, Sgd(0.1)))
    run = spec(*phases, norm=FoldedFrozen)
    assert not isinstance(run.enter(Tiny(), 0).conv.norm, FoldedFrozen)  # pyright: ignore
    assert isinstance(run.enter(Tiny(), 1).conv.norm, FoldedFrozen)  # pyright: ignore
    spec(Phase("quantized", 1, Sgd(0.1)), norm=FoldedCorrected)
    with pytest.raises(ValueError, match="folded_frozen .* procedure=finetune"):
        spec(Phase("quantized", 1, Sgd(0.1)), norm=FoldedFrozen)


def test_chains_span_what_continues():
    a, b = Phase("a", 2, COSINE), Phase("b", 3, COSINE, continues=True)
    assert [chain((a, b, b, a), i) for i in range(4)] == [(0, 8), (2, 8), (5, 8), (0, 2)]


FLOAT = Phase("float", 1, Sgd(0.1), quantized=False)
QUANTIZED = Phase("quantized", 1, Sgd(0.1))


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((), "at least one phase"),
        ((QUANTIZED, FLOAT), "a float phase cannot follow"),
        (
            (dataclasses.replace(QUANTIZED, unquantized=["weights"]),),
            "the last phase must quantize",
        ),
        ((dataclasses.replace(QUANTIZED, continues=True),), "continues .* there is none"),
        ((QUANTIZED, Phase("b", 1, Sgd(0.2), continues=True)), "'quantized' has another"),
        ((QUANTIZED, Phase("b", 1, Sgd(0.1), teacher=Teacher())), "no float phase comes before"),
    ],
)
def test_phases_that_make_no_run_are_refused(phases, message):
    with pytest.raises(ValueError, match=message):
        check_phases(phases)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": -1}, "epochs"),
        ({"rate_scale": 0.0}, "rate_scale"),
        ({"freeze": ["bn"]}, "freeze may hold weights .* got 'bn'"),
        ({"unquantized": ["clips"]}, "unquantized may hold"),
        ({"quantized": False, "unquantized": ["weights"]}, "is float"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Phase(**({"name": "p", "epochs": 1, "optimizer": Sgd(0.1)} | fields))


def test_a_word_is_no_list():
    with pytest.raises(TypeError, match="freeze"):
        Phase("p", 1, Sgd(0.1), freeze="ranges")
