"""How often a run saves and diagnoses; and an evaluation that does not wait for each batch."""

import dataclasses
import time

import jax
import numpy as np
import pytest

from qjax.record import read_metrics
from qjax.training import checkpoint
from qjax.training.evaluation import AHEAD, filled
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.run import CHECKPOINTS, SAVING_SHARE, Run
from tests.training.small import DATA, loop, spec


def run_with(*phases: Phase, **settings):
    base = spec(*phases)
    return dataclasses.replace(base, settings=dataclasses.replace(base.settings, **settings))


def test_saving_takes_a_small_share_of_the_time(tmp_path):
    run = Run(run_with(checkpoint_every="auto"), tmp_path)
    assert run._due("checkpoint_every", 0), "the first epoch is always saved"
    run.saving = 2.0, time.perf_counter() - 1.0
    assert not run._due("checkpoint_every", 1)
    run.saving = 2.0, time.perf_counter() - 2.0 / SAVING_SHARE
    assert run._due("checkpoint_every", 1)


def test_every_so_many_epochs(tmp_path):
    run = run_with(
        Phase("quantized", 5, Sgd(0.1)), checkpoint_every=2, diagnose_every=3, tensorboard=True
    )
    Run(run, tmp_path)()
    saved = [path.name for path in checkpoint.checkpoints(tmp_path / CHECKPOINTS)]
    assert saved == ["step_0000000016", "step_0000000020"], "the newest two"
    assert ["quantizers" in line for line in read_metrics(tmp_path)] == [False, False, True] + [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"checkpoint_every": "often"}, "checkpoint_every must be auto or a whole number of at"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes must be positive or null, got 0"),
        ({"diagnose_every": 0}, "diagnose_every must be a whole number of at least 1, got 0"),
    ],
)
def test_other_values_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        run_with(**fields)


def test_a_last_batch_is_filled_with_its_last_image():
    batch = filled(DATA.test_images[:3], 5)
    np.testing.assert_array_equal(batch[:3], DATA.test_images[:3])
    np.testing.assert_array_equal(batch[3:], DATA.test_images[[2, 2]])


def test_classes_do_not_depend_on_the_batch():
    assert len(DATA.test_labels) == 16 > 3 * AHEAD
    made = loop(run_with())
    found = []
    for size in (16, 100, 3, 1):
        made.feed._held_out = None  # pyright: ignore[reportAttributeAccessIssue]
        batches = made.feed.held_out(size)
        assert isinstance(batches, list) and isinstance(batches[0], jax.Array)
        assert made.feed.held_out(size) is batches, "they stay on the device"
        found.append(made.evaluator.classes(made.states, batches)[:16])
    assert len(set(found[0])) > 1
    for classes in found[1:]:
        np.testing.assert_array_equal(classes, found[0])
