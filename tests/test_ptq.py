"""`python -m qjax.ptq`: what it leaves is what a run with `procedure=ptq` leaves."""

import re
from pathlib import Path

import pytest

from qjax.evaluate import reevaluate
from qjax.ptq import main, quantized_run
from qjax.record import read
from qjax.train import train
from tests.configs.compose import TINY, composed

SMALL = ["model.width=4", "weight=minmax", "act=minmax", "w_bits=4", "a_bits=4"]
SCALINGS = ("standardized", "centred")
FLOAT = ["+experiment=float", *TINY, "model.width=4", "epochs=2"]


@pytest.fixture
def floating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The record of a short float run."""
    monkeypatch.chdir(tmp_path)
    return train(composed(*FLOAT))


def test_it_equals_a_run_of_no_quantized_epoch(
    floating: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["w_bits=4", "a_bits=4", "run.progress=false"]
    assert main([f"folder={floating}", *words]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("record: "))
    ours = read(folder)
    whole = read(train(composed("procedure=ptq", *TINY, *SMALL, "epochs=2")))
    assert ours.accuracy == whole.accuracy and ours.agreement == whole.agreement
    assert ours.accuracy["float"] == read(floating).accuracy["float"]
    assert (ours.experiment, ours.method, ours.w_bits) == ("ptq", "ptq_minmax", 4)
    assert ours.integer["float_free"]
    assert reevaluate(folder, []).accuracy == ours.accuracy
    assert main([f"folder={floating}", *words]) == 0
    assert f"{folder} is finished" in capsys.readouterr().out


def test_more_images_are_another_run(floating: Path) -> None:
    folders = {quantized_run(floating, images, ["w_bits=4"]) for images in (16, 64)}
    assert len(folders) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images=4"], "folder must be given"),
        (["folder=nowhere"], "nowhere.*name a folder"),
        (["folder=.", "images=none"], "images must be a whole number"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert re.search(message, capsys.readouterr().err)


def test_a_quantized_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = train(composed("+experiment=minmax_w8a8", *TINY, "model.width=4"))
    with pytest.raises(ValueError, match="was trained quantized; name a float run"):
        quantized_run(folder, 8, [])
    with pytest.raises(ValueError, match="w_bitz"):
        quantized_run(train(composed(*FLOAT)), 8, ["w_bitz=4"])


def test_a_target_takes_the_pixels_that_the_run_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    standardized, centred = (train(composed(*FLOAT, "epochs=1", f"pixels={p}")) for p in SCALINGS)
    with pytest.raises(ValueError, match=r"pixels with mean .* with pixels=centred$"):
        quantized_run(standardized, 8, ["target=tflite"])
    with pytest.raises(ValueError, match="target=tflite decides what recipe=all asks for"):
        quantized_run(centred, 8, ["target=tflite", "recipe=all"])
    with pytest.raises(ValueError, match="target=tflite is integer throughout"):
        quantized_run(centred, 8, ["target=tflite", "weight=none"])
    assert not (tmp_path / "runs/ptq").exists()
    assert read(quantized_run(centred, 8, ["target=tflite"])).target == "tflite"
