"""TensorBoard events, read back by TensorBoard's own reader."""

import resource
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import (
    parse_experiment_plugin_data,
    parse_session_start_info_plugin_data,
)

from qjax.training.events import Events, EventsError


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def test_scalars_come_back(tmp_path):
    with Events(tmp_path / "run") as events:
        for step in (0, 5, 10):
            events.scalars(step, {"train/loss": jnp.float32(step / 4), "learning_rate": 0.5})
    assert points(tmp_path / "run", "train/loss") == [(0, 0.0), (5, 1.25), (10, 2.5)]
    assert points(tmp_path / "run", "learning_rate") == [(0, 0.5), (5, 0.5), (10, 0.5)]


def test_flushed_events_are_readable_before_the_end(tmp_path):
    events = Events(tmp_path)
    events.scalars(1, {"loss": 1.0})
    events.flush()
    assert points(tmp_path, "loss") == [(1, 1.0)]
    events.close()


@pytest.mark.parametrize("dtype", [np.float32, np.int8, jnp.bfloat16])
def test_histogram_comes_back(tmp_path, dtype):
    values = np.arange(-8, 8).repeat(3).astype(dtype).reshape(6, 8)
    with Events(tmp_path) as events:
        events.histogram(3, "conv1/codes", values)
    (event,) = read(tmp_path).Histograms("conv1/codes")
    found = event.histogram_value
    assert (event.step, found.min, found.max, found.num, found.sum) == (3, -8, 7, 48, -24)
    assert sum(found.bucket) == 48


def test_histogram_of_one_value(tmp_path):
    with Events(tmp_path) as events:
        events.histogram(0, "clip", 6.0)
    (event,) = read(tmp_path).Histograms("clip")
    assert (event.histogram_value.min, event.histogram_value.num) == (6, 1)


def test_text_comes_back(tmp_path):
    with Events(tmp_path) as events:
        events.text(0, "layers", "| layer | bits |\n|---|---|")
    (event,) = read(tmp_path).Tensors("layers/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "| layer | bits |\n|---|---|"


def test_hparams_come_back(tmp_path):
    values = {"w_bits": 4, "method": "pact", "nesterov": True, "boundaries": [1, 2], "clip": None}
    with Events(tmp_path) as events:
        events.hparams(values, metrics=["test/accuracy"])
        events.scalars(9, {"test/accuracy": 0.5})
    content = read(tmp_path).PluginTagToContent("hparams")
    session = parse_session_start_info_plugin_data(content["_hparams_/session_start_info"])
    assert session.hparams["w_bits"].number_value == 4
    assert session.hparams["method"].string_value == "pact"
    assert session.hparams["nesterov"].bool_value
    assert session.hparams["boundaries"].string_value == "[1, 2]"
    assert "clip" not in session.hparams
    experiment = parse_experiment_plugin_data(content["_hparams_/experiment"])
    assert [info.name.tag for info in experiment.metric_infos] == ["test/accuracy"]


def test_resumed_run_has_every_step_once(tmp_path):
    first = Events(tmp_path)
    for step in range(8):
        first.scalars(step, {"loss": step})
        first.histogram(step, "weights", [step, step + 1])
    first.flush()  # killed here: never closed; its last checkpoint is of step 4
    with Events(tmp_path, resume_step=5) as second:
        for step in range(5, 7):
            second.scalars(step, {"loss": 10 + step})
            second.histogram(step, "weights", [step, step + 1])
    third = Events(tmp_path, resume_step=6)
    third.scalars(6, {"loss": 20})
    third.close()
    expected = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 15), (6, 20)]
    assert points(tmp_path, "loss") == expected
    assert [event.step for event in read(tmp_path).Histograms("weights")] == [0, 1, 2, 3, 4, 5]
    assert len(list(tmp_path.iterdir())) == 3
    first.close()


def test_tail_cut_by_a_kill_does_not_hide_the_resumed_run(tmp_path):
    with Events(tmp_path) as events:
        events.scalars(0, {"loss": 0.0})
        events.scalars(1, {"loss": 1.0})
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    with Events(tmp_path, resume_step=1) as events:
        events.scalars(1, {"loss": 11.0})
    assert points(tmp_path, "loss") == [(0, 0.0), (1, 11.0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "needs finite values, got 0 of which 0 are not finite"),
        ([1.0, np.nan, np.inf], "needs finite values, got 3 of which 2 are not finite"),
    ],
)
def test_histogram_names_what_it_cannot_show(tmp_path, values, message):
    with Events(tmp_path) as events, pytest.raises(ValueError, match=f"'w' at step 4 {message}"):
        events.histogram(4, "w", values)


def test_closed_writer_refuses_and_closes_twice(tmp_path):
    events = Events(tmp_path)
    events.close()
    events.close()
    events.flush()
    with pytest.raises(ValueError, match="are closed; make a new writer"):
        events.scalars(0, {"loss": 0.0})


def test_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EventsError, match=r"cannot write TensorBoard events in .*file/run: .*Free"):
        Events(tmp_path / "file" / "run")


def test_failed_write_is_one_clear_error_and_closing_afterwards_is_quiet(tmp_path):
    events = Events(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            EventsError, match=r"cannot write TensorBoard events in .*File too large"
        ):
            for step in range(100):
                events.text(step, "long", "x" * 10_000)
            events.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    events.close()


def test_import_does_not_load_the_writer():
    code = "import sys, qjax.training.events; assert 'tensorboardX' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
