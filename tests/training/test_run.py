"""Whole runs: interrupted anywhere they end as the uninterrupted one, to the last bit."""

import dataclasses
import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qjax.methods.pact import Pact
from qjax.recipe import Recipe, Rule
from qjax.record import read, read_histograms, read_metrics
from qjax.training import checkpoint, durable
from qjax.training.hooks import CrossEntropy, Hooks
from qjax.training.journal import Journal
from qjax.training.lock import locked
from qjax.training.loop import PhaseLoop
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.programs import Programs
from qjax.training.run import CHECKPOINTS, Run, trained_model
from qjax.training.teacher import Distillation, Teacher
from tests.training.folders import assert_same_run
from tests.training.noisy import StochasticWeight
from tests.training.small import rules, spec

TAUGHT = Hooks(loss=CrossEntropy(weight=0.5), extra=(Distillation(),))
# Everything that a checkpoint must carry: a teacher, momentum, noise, an average, a schedule that
# two phases share.
PHASES = (
    Phase("float", 2, Sgd(0.1), quantized=False),
    Phase("waiting", 1, Sgd(0.1), unquantized=["activations"]),
    Phase("quantized", 2, Sgd(0.1), continues=True, teacher=Teacher(), hooks=TAUGHT),
)
FLOAT = Phase("float", 1, Sgd(0.1), quantized=False)
RECIPE = Recipe((Rule("conv", weight=StochasticWeight()), *rules()))
PROGRAMS = Programs()


def complete():
    """A run that uses everything that a checkpoint must carry."""
    made = spec(*PHASES, recipe=RECIPE)
    step = dataclasses.replace(made.settings.step, average_decay=0.9)
    settings = dataclasses.replace(made.settings, tensorboard=True, step=step)
    return dataclasses.replace(made, settings=settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    Run(complete(), folder, PROGRAMS)()
    return folder


class Killed(BaseException):
    """What stands for SIGKILL: nothing catches it."""


def interrupt(monkeypatch: pytest.MonkeyPatch, owner, name: str, call: int, after: bool) -> None:
    """Let the process die before or after a function's n-th call."""
    original, calls = getattr(owner, name), []

    def dying(*arguments, **named):
        calls.append(None)
        if len(calls) == call and not after:
            raise Killed
        result = original(*arguments, **named)
        if len(calls) == call:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.parametrize(
    ("owner", "name", "call", "after"),
    [
        (Journal, "epoch", 1, False),  # nothing saved yet
        (Journal, "epoch", 2, True),  # metrics written, checkpoint not
        (checkpoint, "save", 2, True),  # at the end of a phase
        (durable, "seal", 3, False),  # in the middle of a checkpoint
        (checkpoint, "save", 4, True),  # within the last phase
        (checkpoint, "save", 5, True),  # all trained, nothing evaluated
        (Journal, "result", 1, True),  # evaluated, not recorded
    ],
)
def test_an_interrupted_run_ends_as_the_uninterrupted_one(
    owner, name, call, after, tmp_path, whole, monkeypatch
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt(patch, owner, name, call, after)
        Run(complete(), folder, PROGRAMS)()
    assert not (folder / "result.json").exists()
    Run(complete(), folder, PROGRAMS)(resume=True)
    assert_same_run(folder, whole)
    events = EventAccumulator(str(folder / "events"), size_guidance={"scalars": 0})
    events.Reload()
    steps = [event.step for event in events.Scalars("loss")]
    assert steps == [line["step"] for line in read_metrics(folder)] == [4, 8, 12, 16, 20]


@pytest.mark.parametrize(
    ("owner", "name", "call", "step"),
    [
        (Run, "_save_within", 2, 2),  # in the middle of an epoch
        (Run, "_save_within", 12, 12),  # after its last step, before it is evaluated
        (Run, "_save_within", 18, 18),  # in the last phase, which has a teacher
        (PhaseLoop, "test_accuracy", 4, 16),  # in evaluation
    ],
)
def test_a_run_that_is_told_to_end_saves_first(
    owner, name, call, step, tmp_path, whole, monkeypatch, capsys
):
    original, calls, folder = getattr(owner, name), [], tmp_path / "run"

    def telling(*arguments):
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(owner, name, telling)
        Run(complete(), folder, PROGRAMS)()
    assert ended.value.code == 143
    assert f"step {step}; repeat the command to go on, or run" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    newest = checkpoint.checkpoints(folder / CHECKPOINTS)[-1]
    assert newest.name == f"step_{step:010d}"
    Run(complete(), folder, PROGRAMS)(resume=True)
    assert_same_run(folder, whole)


def test_long_epochs_have_checkpoints_within(tmp_path, whole, monkeypatch):
    run, folder = complete(), tmp_path / "run"
    always = dataclasses.replace(run.settings, checkpoint_minutes=1e-9)
    run = dataclasses.replace(run, settings=always)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt(patch, checkpoint, "save", 7, after=True)
        Run(run, folder, PROGRAMS)()
    newest = checkpoint.checkpoints(folder / CHECKPOINTS)[-1]
    assert newest.name == "step_0000000006", "one a step, and one an epoch"
    Run(complete(), folder, PROGRAMS)(resume=True)
    assert_same_run(folder, whole)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, whole, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt(patch, checkpoint, "save", 4, after=True)
        Run(complete(), folder, PROGRAMS)()
    newest = checkpoint.checkpoints(folder / CHECKPOINTS)[-1]
    (newest / "state.json").write_text("{")
    with pytest.warns(UserWarning, match="damaged .* using the one before"):
        Run(complete(), folder, PROGRAMS)(resume=True)
    assert_same_run(folder, whole)


def test_the_record_tells_of_quantizers(whole):
    lines = read_metrics(whole)
    assert ["quantizers" in line for line in lines] == [False, False, True, True, True]
    assert "act.output" not in lines[2]["quantizers"], "it waits"
    last = lines[-1]
    assert last["quantizers"]["act.output"]["alpha"] > 0
    assert set(last["sqnr_db"]) == {"weight_rounding", "activation_rounding", "clipping"}
    assert read(whole).extra["alarms"] == []


def test_events_hold_histograms_scalars_and_hyperparameters(whole):
    events = EventAccumulator(str(whole / "events"))
    events.Reload()
    tags = events.Tags()
    assert {"values/conv.weight", "codes/act.output"} <= set(tags["histograms"])
    scalars = {"sqnr_by_source/clipping", "oscillating/conv.weight", "accuracy/integer"}
    assert scalars | {"gradient_norm_alpha/act.output"} <= set(tags["scalars"])
    names = events.SummaryMetadata("_hparams_/session_start_info")
    assert names.plugin_data.plugin_name == "hparams"


def test_counts_of_values_and_codes_lie_beside_the_metrics(whole):
    found = read_histograms(whole)
    assert found["step"] == read_metrics(whole)[-1]["step"]
    assert set(found["quantizers"]) == set(read_metrics(whole)[-1]["quantizers"])
    weight = found["quantizers"]["classifier.weight"]
    assert (weight["codes"]["low"], weight["codes"]["high"]) == (-7, 7)
    assert len(weight["codes"]["counts"]) == 15 and len(weight["values"]["counts"]) == 64
    assert sum(weight["codes"]["counts"]) == sum(weight["values"]["counts"]) == 4 * 3


def test_the_trained_model_is_read_back_with_its_average(whole):
    arrays = checkpoint.load_arrays(checkpoint.checkpoints(whole / CHECKPOINTS)[-1])
    for averaged, part in ((False, "trainable"), (True, "average")):
        run = complete()
        run = dataclasses.replace(
            run, settings=dataclasses.replace(run.settings, averaged=averaged)
        )
        model, accuracy = trained_model(run, whole)
        kernel = model.conv.kernel[...]  # pyright: ignore[reportAttributeAccessIssue]
        np.testing.assert_array_equal(kernel, arrays[f"{part}/conv/kernel/value"])
        assert accuracy == read(whole).accuracy["float"]
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        trained_model(complete(), whole / "nowhere")


def test_training_does_not_follow_the_average_that_is_evaluated(tmp_path, monkeypatch):
    kept = dataclasses.replace(spec().settings.step, average_decay=0.9)
    phases = (FLOAT, Phase("quantized", 1, Sgd(0.1)))
    final = []
    for averaged in (False, True):
        settings = dataclasses.replace(spec().settings, step=kept, averaged=averaged)
        run, folder = spec(*phases, settings=settings), tmp_path / str(averaged)
        Run(run, folder, PROGRAMS)()
        final.append(checkpoint.load_arrays(checkpoint.checkpoints(folder / CHECKPOINTS)[-1]))
    for name, array in final[0].items():
        np.testing.assert_array_equal(array, final[1][name], name)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt(patch, checkpoint, "save", 1, after=True)
        Run(run, tmp_path / "again", PROGRAMS)()
    Run(run, tmp_path / "again", PROGRAMS)(resume=True)
    assert_same_run(tmp_path / "again", folder)


def test_an_average_is_what_is_quantized_where_no_training_follows(tmp_path):
    kept = dataclasses.replace(spec().settings.step, average_decay=0.9)
    settings = dataclasses.replace(spec().settings, step=kept, averaged=True)
    found = []
    for name, more in (("float", ()), ("ptq", (Phase("quantized", 0, Sgd(0.1)),))):
        Run(spec(FLOAT, *more, settings=settings), tmp_path / name, PROGRAMS)()
        found.append(checkpoint.load_arrays(*checkpoint.checkpoints(tmp_path / name / CHECKPOINTS)))
    average = found[0]["average/conv/kernel/value"]
    np.testing.assert_array_equal(found[1]["trainable/conv/kernel/value"], average)
    assert not np.array_equal(found[0]["trainable/conv/kernel/value"], average)


def test_alarms_are_printed_written_and_kept(tmp_path, capsys):
    dead = Recipe((*rules()[:2], Rule(weight=rules()[2].weight, output=Pact(4, alpha_init=1e4))))
    run = spec(Phase("p", 1, Sgd(1e-6)), recipe=dead)
    settings = dataclasses.replace(run.settings, progress=True)
    record = Run(dataclasses.replace(run, settings=settings), tmp_path / "run")()
    row, *_ = (r for r in record.extra["alarms"] if r["kind"] == "dead")
    assert row["place"] == "act.output" and row["epoch"] == 1
    assert row["message"] in read_metrics(tmp_path / "run")[0]["alarms"]
    assert f"alarm  {row['message']}" in capsys.readouterr().err


def test_a_full_disk_leaves_the_last_good_state(tmp_path, whole, monkeypatch):
    folder = tmp_path / "run"

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    with monkeypatch.context() as patch:
        original = durable.sync
        patch.setattr(
            durable,
            "sync",
            lambda p: (
                full()
                if p.name == "metrics.jsonl" and len(read_metrics(folder)) == 3
                else original(p)
            ),
        )
        with pytest.raises(OSError, match="No space left"):
            Run(complete(), folder, PROGRAMS)()
    assert len(checkpoint.checkpoints(folder / CHECKPOINTS)) == 2
    Run(complete(), folder, PROGRAMS)(resume=True)
    assert_same_run(folder, whole)


def test_two_processes_do_not_share_a_folder(tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(ValueError, match="is in use"):
        Run(spec(), tmp_path / "run")()
    with locked(tmp_path / "run"):
        pass
