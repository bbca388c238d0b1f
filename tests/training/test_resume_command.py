"""`run.resume` and the settings of procedures and normalization, as the command line has them."""

import json
from pathlib import Path

import pytest

from qjax.layers.norm import FoldedCorrected, FoldedFrozen
from qjax.record import config_hash, read
from qjax.train import build, plan, train
from qjax.training import checkpoint
from qjax.training.run import Run
from tests.configs.compose import TINY, composed

WORDS = ["+experiment=pact_w4a4", *TINY, "model.width=4", "run.tensorboard=false"]


def unfinished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stops after its first checkpoint."""

    class Killed(BaseException):
        pass

    def dying(self, *arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "_finish", dying)
        train(composed(*WORDS, f"run.folder={folder}"))
    assert checkpoint.checkpoints(folder / "checkpoints")


def test_a_folder_alone_says_how_to_go_on(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    unfinished(folder, monkeypatch)
    with pytest.raises(ValueError, match="but w_bits=2 asks for another"):
        train(composed(f"run.resume={folder}", "w_bits=2"))
    with pytest.raises(ValueError, match="run.devices must be at most 1, .* got 7"):
        train(composed(f"run.resume={folder}", "run.devices=7"))
    assert train(composed(f"run.resume={folder}")) == folder
    assert read(folder).experiment == "pact"
    assert train(composed(*WORDS, f"run.resume={folder}")) == folder, "it is finished by now"


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        train(composed(f"run.resume={tmp_path}"))


@pytest.mark.parametrize("procedure", ["scratch", "finetune", "delayed", "two_stage", "distill"])
def test_procedures_make_runs(procedure):
    phases = build(composed(*WORDS, f"procedure={procedure}")).phases
    assert phases[-1].quantized and not phases[-1].unquantized


def test_a_procedure_cannot_replace_what_a_method_trains_with():
    words = ["+experiment=wage_2888", *TINY, "run.tensorboard=false"]
    with pytest.raises(ValueError, match="'quantized' and the run's hooks both set loss"):
        build(composed(*words, "procedure=distill"))
    with pytest.raises(ValueError, match="label_smoothing is 0.1"):
        build(composed(*words, "label_smoothing=0.1"))


def test_a_teacher_is_a_finished_run_of_the_same_images(tmp_path):
    teacher = tmp_path / "teacher"
    train(composed("+experiment=float", *WORDS[1:], f"run.folder={teacher}"))
    words = [*WORDS, "procedure=distill", f"procedure.teacher={teacher}"]
    planned = plan(composed(*words))
    planned.spec.check_teachers()
    for word, message in (
        ("pixels=centred", r"pixels with mean .* this run has .*; train a teacher"),
        ("data.height=10", r"shape \(8, 8, 1\), but this run has \(10, 8, 1\)"),
        ("data.classes=4", "classes"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(composed(*words, word, f"run.folder={tmp_path / 'student'}")).carry_out()
    assert not (tmp_path / "student").exists()
    outcome = json.loads((teacher / "result.json").read_text())
    (teacher / "result.json").write_text(json.dumps(outcome | {"config_hash": "0" * 12}))
    other = plan(composed(*words))
    assert config_hash(other.spec.config) != config_hash(planned.spec.config)
    assert other.folder != planned.folder
    (teacher / "result.json").unlink()
    with pytest.raises(ValueError, match=r"Teacher.folder: .*the run has not finished"):
        plan(composed(*words))


def test_normalization_is_a_choice():
    assert build(composed(*WORDS)).norm is None
    minmax = ["+experiment=minmax_w8a8", *TINY, "procedure=finetune"]
    for name, norm in (("folded_frozen", FoldedFrozen), ("folded_correction", FoldedCorrected)):
        assert build(composed(*minmax, f"bn={name}")).norm is norm


def test_settings_of_the_step_come_from_the_configuration():
    words = ["label_smoothing=0.1", "precision=float16", "average_decay=0.9"]
    settings = build(composed(*WORDS, *words, "evaluate_average=true")).settings
    assert settings.averaged and settings.step.average_decay == 0.9
    assert settings.step.precision.is_dynamic
    assert settings.step.loss.smoothing == 0.1  # pyright: ignore
