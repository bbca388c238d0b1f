"""A runtime in a process of its own: what a file does to it ends as an error that says why."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="comes with qjax[export]")
pytest.importorskip("ai_edge_litert", reason="comes with qjax[export]")

from experiments.reliability import hostile
from qjax import compare
from qjax.core.host import HostArray
from qjax.program.apart import Apart, Limits, opened
from qjax.program.batched import batch_size
from qjax.program.comparison import compare_tflite, random_inputs
from qjax.program.onnx.reference import cpu_flags
from qjax.program.tensor import Quantization, Tensor
from qjax.program.tflite_write import write_tflite
from tests.program.litert_cases import CASES

x86 = pytest.mark.skipif(
    "avx2" not in cpu_flags(), reason="onnxruntime is compared on x86 processors with AVX2"
)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("add.tflite", [], r"litert ended on the file \(SIGABRT\); if it needs more than memory="),
        pytest.param("huge.onnx", [], "4,500,000,000 bytes.*; give memory=34333", marks=x86),
        pytest.param("reshape.onnx", [], "onnxruntime does not run the file: ", marks=x86),
        pytest.param("reshape.onnx", ["memory=40"], "memory=40 MiB is its limit", marks=x86),
        ("add.tflite", ["timeout=0"], "timeout must be a whole number from 1"),
    ],
)
def test_a_file_that_ends_its_runtime_is_an_error(
    name: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    hostile.RUN[name](tmp_path / name)
    assert compare.main([f"file={tmp_path / name}", *options]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ")
    assert re.search(message, err)


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    write_tflite(CASES["dense int8"](np.random.default_rng(0)), path)
    return path


def test_a_process_of_its_own_computes_the_same(dense: Path):
    inputs = {"0": random_codes(dense)}
    found = []
    for limits in (None, Limits()):
        with opened("litert", dense.read_bytes(), limits) as call:
            # Twice: what one call leaves must not reach the next.
            found += [call([0], inputs)[0], call([0], inputs)[0]]
    assert found[0].dtype == np.int8 and len(found[0]) == 3
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def random_codes(path: Path) -> np.ndarray:
    kept: list[np.ndarray] = []

    def keep(inputs, start, count):
        kept[:] = random_inputs()(inputs, start, count)
        return kept

    compare_tflite(path, 3, keep)
    return kept[0]


def test_its_errors_are_those_of_the_runtime():
    with pytest.raises(ValueError, match="LiteRT does not run the file"):
        Apart("litert", b"no file at all", Limits())
    with pytest.raises(ValueError, match="onnxruntime does not run the file"):
        Apart("onnxruntime", b"no file at all", Limits())


@x86
def test_a_runtime_that_does_not_end_is_stopped(tmp_path: Path):
    hostile.endless_loop(tmp_path / "loop.onnx")
    content = (tmp_path / "loop.onnx").read_bytes()
    with Apart("onnxruntime", content, Limits(timeout=2)) as apart:
        rows = np.zeros((1, 4), np.float32)
        with pytest.raises(ValueError, match="longer than timeout=2 s"):
            apart.run(["w"], {"x": rows})


def test_the_process_ends_with_its_context(dense: Path):
    with Apart("litert", dense.read_bytes(), Limits()) as apart:
        number = apart._process.pid
        os.kill(number, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_batches_are_as_small_as_the_memory_asks():
    units = Quantization(HostArray(1.0), HostArray(0))
    kept = [Tensor(name, (None, 2**20), "int8", units) for name in "xy"]
    assert [batch_size(kept, Limits(memory=mib)) for mib in (16, 79, 8192)] == [1, 4, 20]
    with pytest.raises(ValueError, match="take 2,097,152 bytes.*memory=15 MiB; give memory=16 if"):
        batch_size(kept, Limits(memory=15))


def test_a_good_file_is_compared_in_its_own_process(dense: Path, capsys: pytest.CaptureFixture):
    assert compare.main([f"file={dense}", "samples=25", "timeout=60", "memory=2000"]) == 0
    assert json.loads(capsys.readouterr().out)["mismatched_codes"] == 0
