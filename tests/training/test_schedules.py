"""Schedules: multipliers of the base rate, counted in steps from plain numbers in epochs."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjax.training.schedules import Constant, Cosine, Exponential, Linear, Step

ALL = [
    Constant(warmup_epochs=1.5),
    Step(boundaries=(3, 6), factor=0.1, warmup_epochs=1),
    Cosine(final_fraction=0.05, warmup_epochs=2),
    Linear(final_fraction=0.1),
    Exponential(final_fraction=0.01, warmup_epochs=1),
]


def curve(schedule, total_steps=80, steps_per_epoch=10):
    """The multiplier at every step, from one compiled program."""
    fraction = schedule.build(total_steps, steps_per_epoch)
    return np.asarray(jax.vmap(fraction)(np.arange(total_steps, dtype=np.int32)))


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_compiled_and_eager_agree_and_stay_float32(schedule):
    fraction = schedule.build(80, 10)
    compiled = jax.jit(fraction)
    for step in (0, 9, 10, 29, 30, 79):
        assert fraction(step).dtype == np.float32
        np.testing.assert_allclose(fraction(step), compiled(step), rtol=1e-6)


def test_constant_without_warmup_is_one_everywhere():
    np.testing.assert_array_equal(curve(Constant()), np.ones(80, np.float32))


def test_warmup_is_linear_starts_above_zero_and_ends_at_the_full_rate():
    values = curve(Constant(warmup_epochs=2))
    np.testing.assert_allclose(values[:20], np.arange(1, 21) / 20, rtol=1e-6)
    np.testing.assert_array_equal(values[20:], 1)


def test_step_changes_exactly_at_its_boundaries():
    values = curve(Step(boundaries=(3, 6), factor=0.1))
    expected = np.repeat(np.asarray([1, 0.1, 0.01], np.float32), (30, 30, 20))
    np.testing.assert_array_equal(values, expected)


def test_step_takes_a_factor_for_each_boundary():
    values = curve(Step(boundaries=(3, 6), factor=(0.5, 0.2)))
    np.testing.assert_array_equal(values[[29, 30, 60]], np.asarray([1, 0.5, 0.1], np.float32))


def test_step_boundaries_as_parts_of_the_run_move_with_its_length():
    schedule = Step(boundaries=(0.5, 0.75), unit="run")
    assert np.flatnonzero(np.diff(curve(schedule, 80))).tolist() == [39, 59]
    assert np.flatnonzero(np.diff(curve(schedule, 8))).tolist() == [3, 5]


def test_step_boundary_in_half_epochs():
    assert np.flatnonzero(np.diff(curve(Step(boundaries=(2.5,))))).tolist() == [24]


def test_step_without_boundaries_is_constant():
    np.testing.assert_array_equal(curve(Step(boundaries=())), 1)


@given(
    final=st.floats(0, 1),
    warmup=st.integers(0, 5),
    total=st.sampled_from([60, 200]),
)
@settings(max_examples=8)
def test_cosine_follows_its_formula_after_the_warmup(final, warmup, total):
    values = curve(Cosine(final, warmup), total)
    start = 10 * warmup
    part = (np.arange(start, total) - start) / (total - start)
    expected = final + (1 - final) * (1 + np.cos(math.pi * part)) / 2
    np.testing.assert_allclose(values[start:], expected, atol=2e-6)


def test_smooth_decays_end_at_their_final_fraction():
    for schedule in (Cosine(0.2, 1), Linear(0.2, 1), Exponential(0.2, 1)):
        fraction = schedule.build(80, 10)
        np.testing.assert_allclose(fraction(80), 0.2, rtol=1e-6)
        np.testing.assert_allclose(fraction(10_000), 0.2, rtol=1e-6)


def test_linear_and_exponential_midpoints():
    np.testing.assert_allclose(Linear(0.5).build(80, 10)(40), 0.75, rtol=1e-6)
    np.testing.assert_allclose(Exponential(0.25).build(80, 10)(40), 0.5, rtol=1e-6)


def test_run_shorter_than_its_warmup_is_one_ramp():
    values = curve(Cosine(warmup_epochs=5), total_steps=20)
    np.testing.assert_allclose(values, np.arange(1, 21) / 50, rtol=1e-6)


def test_lists_become_tuples_and_equal_values_hash_equal():
    first = Step(boundaries=[60, 120], factor=[1, 0.5], warmup_epochs=1)
    second = Step(boundaries=(60.0, 120.0), factor=(1.0, 0.5), warmup_epochs=1.0)
    assert first == second and hash(first) == hash(second)
    assert first.boundaries == (60.0, 120.0)
    assert isinstance(Cosine(0).final_fraction, float)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(warmup_epochs=-1), r"Constant.warmup_epochs .*\[0, inf\), got -1"),
        (lambda: Constant(warmup_epochs=math.nan), r"Constant.warmup_epochs .* got nan"),
        (lambda: Step(boundaries=(60, 60)), r"Step.boundaries must ascend .* got \(60.0, 60.0\)"),
        (lambda: Step(boundaries=(0, 3)), r"Step.boundaries\[0\] .*\(0, inf\), got 0"),
        (lambda: Step(boundaries=(60,), unit="run"), r"Step.boundaries\[0\] .*\(0, 1\), got 60"),
        (lambda: Step(boundaries=(60,), unit="epoch"), r"Step.unit must be 'epochs' or 'run'"),
        (lambda: Step(boundaries=(60,), factor=0), r"Step.factor .*\(0, inf\), got 0"),
        (lambda: Step(boundaries=(60,), factor=(0.1, 0.1)), r"Step.factor .* 1 boundaries"),
        (lambda: Cosine(final_fraction=1.5), r"Cosine.final_fraction .*\[0, 1\], got 1.5"),
        (lambda: Exponential(final_fraction=0), r"Exponential.final_fraction .*\(0, 1\], got 0"),
        (lambda: Constant().build(0, 10), r"total_steps .* at least 1, got 0"),
        (lambda: Step((1,)).build(10, 0), r"steps_per_epoch .* at least 1, got 0"),
    ],
)
def test_values_out_of_range_name_field_value_and_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "fields", [{"warmup_epochs": "1"}, {"boundaries": 60}, {"boundaries": [True]}, {"factor": None}]
)
def test_wrong_types_are_refused(fields):
    with pytest.raises(TypeError):
        Step(**({"boundaries": [1]} | fields))
