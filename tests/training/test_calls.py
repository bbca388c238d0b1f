"""Many steps in one call give what single steps give, to the last bit."""

import dataclasses
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjax.record import read_metrics
from qjax.training import checkpoint
from qjax.training.calls import in_calls, steps_in_call
from qjax.training.feed import Resident
from qjax.training.loop import Epoch, NonFiniteError, PhaseLoop
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.precision import LossScale, Precision
from qjax.training.programs import Programs
from qjax.training.run import Run
from qjax.training.spec import RunSpec
from qjax.training.step import StepSettings
from qjax.training.tally import Tally
from tests.training.folders import assert_same_bits
from tests.training.noisy import StochasticWeight
from tests.training.small import DATA, Recipe, Rule, loop, rules, spec
from tests.training.test_run import assert_same_run

# Seven steps an epoch, so that the second call of four has an empty place; and noise.
SEVEN = DATA.limit(train=28)
RECIPE = Recipe((Rule("conv", weight=StochasticWeight()), *rules()))
FLOAT16 = StepSettings(precision=Precision("float16"), average_decay=0.9)


def run_in_calls(most: int | str, *phases: Phase, **settings: Any) -> RunSpec:
    """A run of two epochs that takes up to so many steps in a call."""
    base = spec(*(phases or (Phase("quantized", 2, Sgd(0.1)),)), data=SEVEN, recipe=RECIPE)
    changed = {"batch_size": 4, "steps_per_call": most, "step": FLOAT16} | settings
    return dataclasses.replace(base, settings=dataclasses.replace(base.settings, **changed))


def trained(made: PhaseLoop) -> list[Epoch]:
    """Train to the end; the epochs without their times."""
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in made.epochs()]


@given(most=st.integers(1, 200), steps=st.integers(1, 2000))
def test_the_length_leaves_few_places_empty(most: int, steps: int):
    length = steps_in_call(most, steps)
    assert 1 <= length <= min(most, steps) and (2 * length >= min(most, steps))
    waste = math.ceil(steps / length) * length - steps
    assert waste <= -steps % min(most, steps)


def test_on_cpu_a_call_takes_one_step():
    assert steps_in_call("auto", 390) == 1
    assert loop(run_in_calls("auto")).steps_per_call == 1


def test_empty_places_hold_minus_one():
    (first, second) = in_calls(np.arange(6, dtype=np.int32).reshape(3, 2), 2)
    np.testing.assert_array_equal(first, [[0, 1], [2, 3]])
    np.testing.assert_array_equal(second, [[4, 5], [-1, -1]])


def test_calls_of_many_steps_train_as_single_steps():
    single, many = loop(run_in_calls(1)), loop(run_in_calls(4))
    assert (single.steps_per_call, many.steps_per_call, many.steps_per_epoch) == (1, 4, 7)
    # The first steps overflow, and the scale must not move in an empty place either.
    for made in (single, many):
        scale = LossScale(jnp.float32(2.0**19), jnp.int32(0))
        made.state = dataclasses.replace(made.state, scale=scale)
    told: list[tuple[float, int]] = []
    epochs = []
    for epoch in many.epochs(lambda loss, steps: told.append((float(loss), steps))):
        epochs.append(dataclasses.replace(epoch, seconds=0.0))
    assert epochs == trained(single)
    assert_same_bits(many.state, single.state)
    assert all(math.isfinite(epoch.loss) for epoch in epochs)
    assert many.state.scale is not None and many.state.scale.value < 2.0**19
    assert [steps for _, steps in told] == [4, 3, 4, 3]
    assert many.steps_done == 14


def test_calls_go_on_in_the_middle_of_an_epoch():
    whole = loop(run_in_calls(4))
    kept: list[tuple[Any, str]] = []

    def look(*_: Any) -> None:
        if whole.steps_done == 11:
            kept.append((jax.tree.map(jnp.copy, whole.state), json.dumps(whole.unfinished())))

    last = [dataclasses.replace(epoch, seconds=0.0) for epoch in whole.epochs(look)][-1]
    for most in (4, 1):
        resumed = loop(run_in_calls(most))
        ((state, saved),) = kept
        resumed.state, resumed.tally = jax.tree.map(jnp.copy, state), Tally(json.loads(saved))
        assert trained(resumed) == [last]
        assert_same_bits(resumed.state, whole.state)


def test_a_failure_within_a_call_stops_where_single_steps_stop():
    def broken(most: int) -> PhaseLoop:
        made = loop(run_in_calls(most, step=StepSettings()))
        kernel = made.state.trainable["classifier"]["kernel"]
        made.state.trainable["classifier"]["kernel"] = kernel.replace(kernel[...] * jnp.nan)
        return made

    messages, states = [], []
    for most in (1, 4):
        made = broken(most)
        # An epoch of one whole call and one with an empty place has passed before any look.
        with pytest.raises(NonFiniteError, match="at step 0 .*'classifier' is the first") as stop:
            trained(made)
        messages.append(str(stop.value))
        states.append(made.state)
    assert messages[0] == messages[1]
    assert_same_bits(*states)


def failing_at(step: int, **settings: Any) -> PhaseLoop:
    """A loop that meets a label that is no class, hence a loss that is NaN, in one step."""
    made = loop(run_in_calls(step=StepSettings(), **settings))
    assert isinstance(made.feed, Resident)
    index = made.batch(0, step).index
    assert index is not None
    made.feed.labels = made.feed.labels.at[index[0]].set(2**30)
    return made


@pytest.mark.parametrize("at", [3, 6], ids=["mid-call", "last"])
def test_a_failure_keeps_its_step(at: int):
    made = failing_at(at, most=4)
    with pytest.raises(NonFiniteError, match=f"at step {at} "):
        trained(made)
    assert made.steps_done == at


def test_a_look_in_between_stops_early():
    made = failing_at(3, most=1, check_every=1)
    told: list[int] = []
    with pytest.raises(NonFiniteError, match="at step 3 "):
        list(made.epochs(lambda _, steps: told.append(steps)))
    # A look is at the step before, so that the device need not wait for it.
    assert told == [1, 1, 1, 1]


def test_a_run_in_calls_resumes_after_any_epoch(tmp_path, monkeypatch):
    def run(most: int) -> RunSpec:
        first = Phase("float", 2, Sgd(0.1), quantized=False)
        return run_in_calls(most, first, Phase("quantized", 2, Sgd(0.1), continues=True))

    programs = Programs()
    Run(run(1), tmp_path / "single", programs)()
    Run(run(4), tmp_path / "whole", programs)()
    assert_same_run(tmp_path / "whole", tmp_path / "single")
    for saves in (1, 3):
        folder = tmp_path / f"killed-{saves}"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            _stop_after(patch, saves)
            Run(run(4), folder, programs)()
        assert len(read_metrics(folder)) == saves
        Run(run(4), folder, programs)(resume=True)
        assert_same_run(folder, tmp_path / "single")


def _stop_after(patch: pytest.MonkeyPatch, saves: int) -> None:
    """Let a run end after so many checkpoints."""
    save, seen = checkpoint.save, []

    def stopping(*arguments: Any) -> None:
        save(*arguments)
        seen.append(None)
        if len(seen) == saves:
            raise KeyboardInterrupt

    patch.setattr(checkpoint, "save", stopping)


def test_calls_of_one_length_share_a_program():
    programs = Programs()
    runs = [run_in_calls(most) for most in (4, 4, 7)]
    for run in runs:
        PhaseLoop(
            run.enter(run.make_model(), 0),
            run.phases[0],
            run.data,
            run.loop_settings(0),
            programs=programs,
        )
    # One step, a call of four, a call of seven, the evaluator, and the data.
    assert programs.made == 5


@pytest.mark.parametrize("value", [0, -1, True, "many"])
def test_other_values_are_named(value: Any):
    with pytest.raises(ValueError, match="steps_per_call must be auto or a whole number"):
        run_in_calls(value)
