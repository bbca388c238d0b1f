"""What is measured of quantizers: by hand on small tensors, and on a network that trains."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaWeight
from qjax.methods.elq import ElqWeight
from qjax.methods.elq_partition import HoldPart
from qjax.methods.pact import Pact
from qjax.recipe import Recipe, Rule
from qjax.training.alarms import Alarms, find
from qjax.training.diagnostics import (
    DRAWN,
    HIGHEST_DB,
    by_source,
    first_codes,
    first_nonfinite,
    make_diagnosis,
    statistics,
)
from qjax.training.histograms import counted
from qjax.training.hooks import CrossEntropy, Hooks
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from tests.training.small import loop, rules, spec, steps


def activation(x, low, high):
    """What a two-bit quantizer of step 1 makes of x, as it is drawn."""
    inside = np.clip(x, low, high)
    y = np.round(inside)
    return {
        "x": x,
        "y": y,
        "codes": y,
        "inside": inside,
        "beyond": (x < low - 0.5) | (x > high + 0.5),
        "low": np.float32(low),
        "high": np.float32(high),
    }


def test_activations_by_hand():
    x = np.array([0.0, 1.25, 2.0, 5.0], np.float32)
    found = statistics(activation(x, 0, 3), is_weight=False)
    power, rounding, clipping = (0 + 1.5625 + 4 + 25) / 4, 0.0625 / 4, 4 / 4
    expected = {
        "sqnr_db": 10 * math.log10(power / (rounding + clipping)),
        "rounding_db": 10 * math.log10(power / rounding),
        "clipping_db": 10 * math.log10(power / clipping),
        "effective_bits": (10 * math.log10(power / (rounding + clipping)) - 1.76) / 6.02,
        "levels": 4.0,
        "dead_codes": 0.0,
        "entropy_bits": 2.0,
        "clipped": 0.25,
        "zeros": 0.25,
    }
    assert found == pytest.approx(expected)


def test_weights_are_compared_up_to_a_gain():
    x = np.array([-0.5, 0.25, 0.5], np.float32)
    seen = {
        "x": x,
        "y": 3 * x,
        "codes": np.array([0, 2, 3]),
        "low": np.array(0),
        "high": np.array(3),
    }
    found = statistics(seen, is_weight=True)
    assert found["sqnr_db"] == HIGHEST_DB
    assert found["dead_codes"] == 0.25 and "clipped" not in found


def test_a_tensor_of_zeros_has_no_signal():
    found = statistics(activation(np.zeros(4, np.float32), 0, 3), is_weight=False)
    assert found["sqnr_db"] == 0.0 and found["zeros"] == 1.0 and found["entropy_bits"] == 0.0


def test_sources_of_noise_add_up_their_ratios():
    report = {
        "a.weight": {"sqnr_db": 20.0},
        "b.weight": {"sqnr_db": 10.0},
        "a.output": {"rounding_db": 30.0, "clipping_db": 40.0},
    }
    found = by_source(report)
    assert found["weight_rounding"] == pytest.approx(-10 * math.log10((0.01 + 0.1) / 2))
    assert (found["activation_rounding"], found["clipping"]) == pytest.approx((30.0, 40.0))
    assert "clipping" not in by_source({"a.weight": {"sqnr_db": 20.0}})


def diagnosed(run):
    """A loop with codes to compare with, and its diagnosis."""
    made = loop(run)
    made.state = dataclasses.replace(made.state, codes=first_codes(made.graphs, made.state))
    look = make_diagnosis(made.graphs, CrossEntropy())
    return made, lambda: look(made.state, run.sample(), run.sample_labels())


def test_a_network_is_measured_without_moving_it():
    made, diagnose = diagnosed(spec())
    before = jax.tree.map(np.asarray, made.states)
    found = diagnose()
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(made.states), strict=True):
        np.testing.assert_array_equal(a, b)
    places = {"conv.weight", "conv.input", "act.output", "classifier.weight", "classifier.input"}
    assert set(found.report) == places
    assert found.report["act.output"]["alpha"] == pytest.approx(6.0)
    assert found.report["conv.weight"]["gradient_norm"] > 0
    assert "gradient_norm_alpha" in found.report["act.output"]
    assert set(found.histograms) == {f"{kind}/{p}" for kind in ("values", "codes") for p in places}
    sizes = [len(drawn) for drawn in found.histograms.values()]
    assert max(sizes) <= DRAWN and min(sizes) > 1
    kernel = np.sort(np.asarray(made.state.trainable["conv"]["kernel"][...]).ravel())
    np.testing.assert_array_equal(np.sort(found.histograms["values/conv.weight"]), kernel)


def test_gradient_norms_are_those_of_the_loss():
    run = spec(recipe=Recipe((Rule(weight=AffineWeight(8), output=Pact(8)),)))
    made, diagnose = diagnosed(run)
    found = diagnose().report
    model = made.model()
    x, y = run.sample(), run.sample_labels()
    features = model.mean(model.act(model.conv(x)))  # pyright: ignore
    layer = model.classifier  # pyright: ignore
    kernel = layer.weight(layer.kernel[...])

    def loss(kernel):
        return CrossEntropy()(features @ kernel + layer.bias[...].reshape(1, -1), y)

    # Nothing of this weight lies outside its range, so the gradient passes straight through.
    expected = jnp.sqrt(jnp.sum(jnp.square(jax.grad(loss)(kernel))))
    np.testing.assert_allclose(found["classifier.weight"]["gradient_norm"], expected, rtol=1e-4)


def test_codes_that_come_back_are_oscillating():
    made, diagnose = diagnosed(spec())
    kernel = made.state.trainable["classifier"]["kernel"]
    start = jnp.copy(kernel[...])
    turned = start.at[0, 0].multiply(-1).at[1, 1].multiply(-1)
    history = []
    # One weight leaves and comes back, another stays away.
    for weights in (turned, turned.at[0, 0].set(start[0, 0]), turned.at[0, 0].set(start[0, 0])):
        kernel[...] = weights
        found = diagnose()
        made.state = dataclasses.replace(made.state, codes=found.codes)
        row = found.report["classifier.weight"]
        history.append((round(12 * row["changed"]), round(12 * row["oscillating"])))
    assert history == [(2, 0), (1, 1), (0, 0)]


def test_the_layer_that_is_not_finite_is_found():
    made = loop(spec())
    x = spec().sample()
    assert first_nonfinite(made.graphs.train, made.states, x) is None
    made.state.trainable["classifier"]["bias"][...] *= jnp.inf
    assert first_nonfinite(made.graphs.train, made.states, x) == "classifier"


HEALTHY = {"zeros": 0.3, "levels": 14.0, "dead_codes": 0.125, "sqnr_db": 20.0, "clipped": 0.01}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"sqnr_db": float("nan")}, "nonfinite"),
        ({"zeros": 1.0}, "dead"),
        ({"levels": 1.0}, "constant"),
        ({"levels": 4.0, "dead_codes": 0.75}, "few_codes"),
        ({"levels": 17.0, "dead_codes": 1 - 17 / 256}, None),
        ({"clipped": 0.6}, "clipped"),
        ({"oscillating": 0.4}, "oscillating"),
        ({"sqnr_db": 0.5}, "weak"),
        ({"gradient_norm": 0.0}, "no_gradient"),
        ({"gradient_norm": 0.0, "held": 0.875}, "no_gradient"),
        ({"gradient_norm": 0.0, "held": 1.0}, None),
    ],
)
def test_alarms_know_what_is_wrong(changes, kind):
    found = [k for k, _ in find("conv.weight", HEALTHY | changes)]
    assert found == ([] if kind is None else [kind])


def test_an_alarm_is_raised_once_and_remembers_how_long_it_lasted():
    alarms = Alarms()
    dead = {"act.output": HEALTHY | {"zeros": 1.0}}
    assert alarms.check({"act.output": HEALTHY}, "a", 1) == []
    (text,) = alarms.check(dead, "a", 2)
    assert text.startswith("act.output: everything is rounded to zero")
    again = Alarms(alarms.rows())
    assert again.check(dead, "b", 1) == []
    (row,) = again.rows()
    assert (row["phase"], row["epoch"], row["last_phase"], row["last_epoch"]) == ("a", 2, "b", 1)


def test_a_clip_far_too_large_raises_an_alarm_that_names_the_layer():
    recipe = Recipe((*rules()[:2], Rule(weight=DoReFaWeight(4), output=Pact(4, alpha_init=1e4))))
    made, diagnose = diagnosed(spec(Phase("p", 1, Sgd(0.01)), recipe=recipe))
    list(steps(made, 1))
    (text, *_) = Alarms().check(diagnose().report, "p", 1)
    assert text.startswith("act.output: everything is rounded to zero")


@pytest.mark.parametrize("portion", [0.5, 1.0])
def test_weights_that_are_held_raise_no_alarm(portion):
    recipe = Recipe((*rules()[:2], Rule(weight=ElqWeight(2), output=Pact(4))))
    phase = Phase("p", 1, Sgd(0.01), hooks=Hooks(start=(HoldPart(portion),)))
    _, diagnose = diagnosed(spec(phase, recipe=recipe))
    row = diagnose().report["conv.weight"]
    assert row["held"] == portion and (row["gradient_norm"] == 0) == (portion == 1)
    assert "no_gradient" not in [kind for kind, _ in find("conv.weight", row)]


def test_ranges_are_reported_by_name():
    ends = AffineActivation(8)
    _, diagnose = diagnosed(spec(recipe=Recipe((Rule(weight=AffineWeight(4), output=ends),))))
    row = diagnose().report["act.output"]
    assert row["low"] == 0.0 and row["high"] > 0


def test_counts_leave_out_what_is_not_finite():
    drawn = {"values/a.b.weight": np.array([1.0, np.nan]), "codes/a.b.weight": np.array([3, 3, 1])}
    codes = {"low": 1.0, "high": 3.0, "counts": [1, 0, 2]}
    assert counted(drawn) == {"a.b.weight": {"codes": codes}}
    alike = counted({"values/act.output": np.zeros(5)})["act.output"]["values"]
    assert sum(alike["counts"]) == 5 and alike["low"] == alike["high"] == 0
