"""Half precision, loss scaling, averaged weights and teachers in the training step."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.training.hooks import Hooks
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.precision import GROWTH_INTERVAL, LossScale, Precision
from qjax.training.run import load_state
from qjax.training.schedules import Constant
from qjax.training.step import StepSettings
from qjax.training.teacher import Distillation, Teacher
from tests.training.small import DATA, Tiny, loop, spec, steps

VECTORS = Path(__file__).parents[1] / "vectors"
PLAIN = Sgd(0.1, momentum=0.0, schedule=Constant())
PHASE = Phase("quantized", 1, PLAIN)


def run_with(settings: StepSettings, *phases: Phase, averaged: bool = False):
    """A run of `Tiny` under these settings."""
    base = spec(*(phases or (PHASE,)))
    changed = dataclasses.replace(base.settings, step=settings, averaged=averaged)
    return dataclasses.replace(base, settings=changed)


def run_in(precision: str, **more):
    return run_with(StepSettings(precision=Precision(precision, **more)))


def test_scaling_keeps_what_float16_would_lose():
    golden = json.loads((VECTORS / "golden_deployment.json").read_text(encoding="utf-8"))
    for example in golden["other_methods"]["fp16_loss_scaling"]["examples"]:
        x = np.float32(example["x"])
        assert float(jnp.float16(x)) == example["fp16"]
        start = Precision("float16").start()
        assert start is not None
        scaled = jnp.float16(x * start.value).astype(jnp.float32) / start.value
        np.testing.assert_allclose(scaled, example["fp16_after_scale_2^15_then_unscale"], rtol=1e-6)


def test_the_scale_halves_and_doubles():
    scale = LossScale(jnp.float32(8.0), jnp.int32(5))
    worse = scale.after(jnp.asarray(False))
    assert (float(worse.value), int(worse.clean)) == (4.0, 0)
    better = scale.after(jnp.asarray(True))
    assert (float(better.value), int(better.clean)) == (8.0, 6)
    grown = LossScale(jnp.float32(8.0), jnp.int32(GROWTH_INTERVAL - 1)).after(jnp.asarray(True))
    assert (float(grown.value), int(grown.clean)) == (16.0, 0)
    assert float(LossScale(jnp.float32(1.0), jnp.int32(0)).after(jnp.asarray(False)).value) == 1.0


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 2**-6), ("float16", 2**-8)])
def test_half_precision_steps_stay_near_float32(precision, tolerance):
    exact = list(steps(loop(run_in("float32")), 2))[-1]
    half = list(steps(loop(run_in(precision)), 2))[-1]
    kernels = [state.trainable["classifier"]["kernel"][...] for state in (exact, half)]
    assert all(kernel.dtype == jnp.float32 for kernel in kernels)
    assert np.any(kernels[0] != kernels[1])
    np.testing.assert_allclose(*kernels, atol=tolerance)
    assert int(half.failed) == -1


def test_half_precision_reaches_every_layer():
    seen = []

    def look(batch):
        seen.extend([batch.images.dtype, batch.logits.dtype])
        return jnp.float32(0)

    made = loop(
        run_with(
            StepSettings(precision=Precision("bfloat16")),
            dataclasses.replace(PHASE, hooks=Hooks(extra=[look])),
        )
    )
    # Each layer hands on the precision that it received.
    model = nnx.merge(made.graphs.train, made.state.trainable, made.state.rest, copy=True)
    x = jnp.ones((2, 6, 6, 1), jnp.bfloat16)
    for layer in (model.conv, model.act, model.mean, model.classifier):
        x = layer(x)
        assert x.dtype == jnp.bfloat16, layer
    list(steps(made, 1))
    assert seen == [jnp.float32, jnp.float32]


def test_a_fixed_scale_changes_nothing_but_rounding():
    usual, scaled = (
        list(steps(loop(run_in("float32", loss_scale=scale)), 1))[0].trainable
        for scale in ("auto", 1024.0)
    )
    for a, b in zip(jax.tree.leaves(usual), jax.tree.leaves(scaled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_an_overflowing_step_is_left_out_and_the_scale_halved():
    made = loop(run_in("float16"))
    before = jax.tree.map(jnp.copy, made.state.trainable)
    scale = LossScale(jnp.float32(2.0**120), jnp.int32(7))
    made.state = dataclasses.replace(made.state, scale=scale)
    state = next(steps(made, 1))
    assert (float(state.scale.value), int(state.scale.clean)) == (2.0**119, 0)
    assert (int(state.step), int(state.failed)) == (1, -1)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.trainable), strict=True):
        np.testing.assert_array_equal(a, b)
    # With the scale at its least, what is not finite is a failure.
    made.state = dataclasses.replace(
        made.state,
        scale=LossScale(jnp.float32(1.0), jnp.int32(0)),
        trainable=jax.tree.map(lambda w: w * jnp.nan, made.state.trainable),
    )
    assert int(next(steps(made, 1)).failed) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "float8"}, "precision must be one of float32, bfloat16, float16"),
        ({"loss_scale": 0.5}, "loss_scale"),
    ],
)
def test_unknown_precisions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Precision(**fields)


def test_the_average_follows_the_weights_and_is_evaluated_on_request():
    settings = StepSettings(average_decay=0.75)
    made = loop(run_with(settings, averaged=True))
    average = jnp.copy(made.state.trainable["conv"]["kernel"][...])
    made.state = dataclasses.replace(made.state, step=jnp.int32(25))
    # While it is young, less of what it was is kept: 26/35, then 0.75 rather than 27/36 or more.
    for decay, state in zip((26 / 35, 0.75), steps(made, 2), strict=True):
        kernel = state.trainable["conv"]["kernel"][...]
        average = average + (1 - decay) * (kernel - average)
        np.testing.assert_allclose(state.average["conv"]["kernel"][...], average, rtol=1e-5)
    model: Any = made.model()
    np.testing.assert_array_equal(
        model.conv.kernel[...],
        made.state.average["conv"]["kernel"][...],  # pyright: ignore
    )
    assert not np.array_equal(model.conv.kernel[...], kernel)  # pyright: ignore
    assert np.array_equal(
        loop(run_with(settings)).model().conv.kernel[...],  # pyright: ignore
        Tiny().conv.kernel[...],
    )


def test_an_average_that_is_not_kept_cannot_be_evaluated():
    with pytest.raises(ValueError, match="set average_decay"):
        loop(run_with(StepSettings(), averaged=True))
    with pytest.raises(ValueError, match="average_decay must lie between 0 and 1"):
        StepSettings(average_decay=1.0)


def test_the_divergence_of_the_golden_vector():
    text = (VECTORS / "golden_training.json").read_text(encoding="utf-8")
    golden = next(v for v in json.loads(text)["vectors"] if v["id"] == "telbc.kl.T2")
    student, teacher = (
        jnp.asarray([golden["input"][f"{who}_logits"]]) for who in ("student", "teacher")
    )
    term = Distillation(float(golden["params"]["T"]), 1.0)
    np.testing.assert_allclose(term.divergence(student, teacher), golden["output"], rtol=1e-5)


def test_the_teacher_sees_the_same_images_and_never_moves():
    def teacher_mean(seen):
        return jnp.mean(jnp.sin(seen.teacher))

    phases = (
        Phase("float", 1, PLAIN, quantized=False),
        Phase("waiting", 0, PLAIN),
        Phase("taught", 1, PLAIN, teacher=Teacher(), hooks=Hooks(extra=[teacher_mean])),
    )
    run = spec(*phases)
    floating = Tiny(seed=5)
    floating.eval()
    # A phase between keeps the teacher for the one that needs it, also in its checkpoints.
    assert run.teacher(0, floating) is None
    assert run.teacher(1, floating) is floating
    losses = []
    for index, model in ((1, Tiny()), (2, run.enter(Tiny(), 1))):
        made = loop(run, index, model, teacher=run.teacher(2, floating))
        batch = made.batch(0, 0)
        made.state, metrics = made.step(made.state, batch)
        losses.append(float(metrics["loss"]))
    images = made.pixels.normalise(batch.images[batch.index])
    np.testing.assert_allclose(
        losses[1] - losses[0], jnp.mean(jnp.sin(floating(images))), rtol=1e-4
    )
    kept: Any = made.teacher()
    np.testing.assert_array_equal(
        kept.conv.kernel[...],
        floating.conv.kernel[...],  # pyright: ignore
    )


def test_distillation_needs_a_teacher():
    phase = dataclasses.replace(PHASE, hooks=Hooks(extra=[Distillation()]))
    with pytest.raises(ValueError, match="set Phase.teacher"):
        list(steps(loop(spec(phase)), 1))
    with pytest.raises(ValueError, match="temperature"):
        Distillation(temperature=0.0)
    with pytest.raises(ValueError, match="load_teacher"):
        spec(dataclasses.replace(PHASE, teacher=Teacher("runs/float"))).teacher(0, None)


def test_a_checkpoint_of_another_model_is_refused_by_name():
    model = Tiny()
    with pytest.raises(ValueError, match="act|classifier|conv"):
        load_state(model, {"trainable/conv/kernel/value": np.zeros((1, 1))}, ("trainable",))
    assert DATA.classes == 3
