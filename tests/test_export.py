"""`python -m qjax.export` and the engines of `python -m qjax.evaluate`, from a run's folder."""

import json
from pathlib import Path

import pytest

from qjax import evaluate, export, inspect
from qjax.program import tflite
from qjax.program.engines import ENGINES
from qjax.program.formats import FORMATS
from qjax.train import train
from tests.configs.compose import TINY, composed

for package in ("onnx", "onnxruntime", "ai_edge_litert"):
    pytest.importorskip(package, reason="comes with qjax[export]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    path = tmp_path_factory.mktemp("runs") / "run"
    words = ["+experiment=pact_w4a4", *TINY, "model.width=4", "run.tensorboard=false"]
    return train(composed(*words, f"run.folder={path}"))


def test_every_format_is_written_and_held_against_its_runtime(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    words = [f"folder={folder}", f"out={tmp_path}", "images=32", "compare=4", "calibrate=true"]
    assert export.main([*words, "format=program,tflite,onnx,stablehlo"]) == 0
    shown = capsys.readouterr().out
    for form in FORMATS.values():
        path = tmp_path / form.file
        assert f"{path}: {path.stat().st_size:,} bytes" in shown
    assert shown.count("codes differ from the network's") == 2
    assert shown.count("accuracy on 32 test images") == 2
    assert "LiteRT (BUILTIN_REF): 0 of " in shown
    assert "onnxruntime: 0 of " in shown or "onnxruntime: not compared: this processor" in shown
    assert "jax.export: 0 outputs differ on 4 images" in shown
    # 1,070 numbers: weights, four vectors of each normalization, the classifier with its bias.
    assert "beside 4,280 bytes of float32 weights and statistics" in shown
    program, tflite = ((tmp_path / f"network.{ending}") for ending in ("qjax", "tflite"))
    assert program.stat().st_size < tflite.stat().st_size
    for ending in ("qjax", "tflite", "onnx"):
        assert inspect.main([str(tmp_path / f"network.{ending}")]) == 0
    assert capsys.readouterr().out.count("multiply-accumulates") == 3


def test_what_a_format_lacks_is_an_error_that_names_the_one_that_has_it(folder: Path, capsys):
    assert export.main([f"folder={folder}", "format=tflite"]) == 2
    error = capsys.readouterr().err
    assert "'act3': 2 terms meet before they are rounded" in error
    assert "format=program and format=stablehlo hold any network" in error
    assert not (folder / "network.tflite").exists()


def test_a_format_that_cannot_hold_the_network_does_not_stop_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    words = [f"folder={folder}", f"out={tmp_path}", "images=2", "compare=0"]
    assert export.main([*words, "format=onnx,tflite,program"]) == 2
    out, err = capsys.readouterr()
    assert [line.split(":")[1] for line in err.splitlines()] == [" format onnx", " format tflite"]
    assert "network.qjax: " in out and "float32 weights and statistics" in out
    assert [path.name for path in tmp_path.iterdir()] == ["network.qjax"]


def test_an_operator_that_is_not_compared_is_a_failure(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    known = {word: entry for word, entry in tflite.OPERATORS.items() if word != "CONV_2D"}
    monkeypatch.setattr(tflite, "OPERATORS", known)
    words = [f"folder={folder}", f"out={tmp_path}", "images=2", "compare=1", "calibrate=true"]
    assert export.main([*words, "format=tflite"]) == 1
    shown = capsys.readouterr().out
    assert "LiteRT (BUILTIN_REF): not compared: operator CONV_2D version" in shown


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_evaluates_the_test_set(name: str, folder: Path, capsys):
    try:
        evaluate.main([f"folder={folder}", f"engine={name}", "calibrate=true", "threads=1"])
    except SystemExit:
        error = capsys.readouterr().err
        assert name == "onnxruntime" and "this processor" in error
        pytest.skip(error)
    found = json.loads(capsys.readouterr().out)
    assert found["parity"]["mismatched_codes"] == 0 and found["parity"]["compared_codes"] > 1000
    assert found["images"] == {"engine": 32, "integer": 32} and found["threads"] == 1
    assert ("warning" in found) == (found["same_class"] < 0.98)
    assert 0 <= found["accuracy"]["engine"] <= 1 and found["same_class"] > 0.5
    assert min(found["images_per_second"].values()) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["engine=tensorrt"], "engine must be one of litert, onnxruntime, got 'tensorrt'"),
        (["engine=litert", "calibrate=perhaps"], "calibrate must be true or false"),
        (["engine=litert", "threads=0"], "threads must be a whole number from 1, got 0"),
        (["threads=4"], "threads is said to an engine; give engine=NAME too"),
        (["engine=litert", "memory=0"], "memory must be a whole number from 1, got 0"),
        (["engine"], "arguments must be key=value"),
        (["engine=litert", "engine=litert"], "every key once"),
    ],
)
def test_evaluate_says_what_is_wrong(words: list[str], message: str, folder: Path, capsys):
    with pytest.raises(SystemExit):
        evaluate.main([f"folder={folder}", *words])
    assert message in capsys.readouterr().err
