"""Hostile and damaged .tflite files: an error of ours, never a crash, a hang or much memory."""

import dataclasses
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from experiments.reliability import hostile
from qjax.program import ops
from qjax.program.base import NotExpressible
from qjax.program.program import Program
from qjax.program.tensor import Tensor
from qjax.program.tflite import UnsupportedError, read_tflite, translate
from qjax.program.tflite_file import File, FileOperator, FileTensor, read_file, schema
from qjax.program.tflite_graph import Graph
from qjax.program.tflite_write import write_tflite
from tests.program.examples import one
from tests.program.litert_cases import CASES
from tests.program.test_files import damaged

pytest.importorskip("ai_edge_litert", reason="its schema reads .tflite files; qjax[export] has it")
pytest.importorskip("flatbuffers", reason="it builds .tflite files; qjax[export] has it")


FUZZED = 150


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    write_tflite(CASES["conv int8 same"](np.random.default_rng(0)), path)
    return path


def rewritten(path: Path, change) -> None:
    """The file again, its objects changed."""
    generated = schema()
    model = generated.ModelT.InitFromPackedBuf(path.read_bytes())
    change(model, generated)
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def read_or_refuse(path: Path) -> Program | ValueError:
    try:
        return read_tflite(path)
    except ValueError as error:
        return error


def graph(model):
    return model.subgraphs[0]


def code(model):
    return model.operatorCodes[0]


def operator(model):
    return graph(model).operators[0]


def options(model):
    return operator(model).builtinOptions


def first(model):
    return graph(model).tensors[0]


def first_units(model):
    return first(model).quantization


def kernel(model):
    return next(t for t in graph(model).tensors if t.name.startswith(b"w"))


def kernel_units(model):
    return kernel(model).quantization


@pytest.mark.parametrize(
    ("where", "field", "value", "message"),
    [
        (code, "version", 99, "operator CONV_2D version 99, output tensor 'y': versions up to 8"),
        (code, "version", 0, "versions up to 8"),
        (code, "builtinCode", 117, "operator HARD_SWISH version 3, output tensor 'y': no operator"),
        (code, "builtinCode", 2**20, "operator 1048576 version 3, output tensor 'y'"),
        (operator, "opcodeIndex", 7, "operator code 7"),
        (operator, "inputs", [0, 1, 99], "must be below 4"),
        (operator, "inputs", [0, -2, 1], "must be below 4"),
        (operator, "inputs", [0], "operand 2 is missing"),
        (operator, "inputs", [3, 1, 2], "do not fit|computed and given"),
        (operator, "inputs", [0, 0, 2], "must have a zero point of 0"),
        (operator, "outputs", [0], "neither given nor computed|no tensor"),
        (operator, "outputs", [3, 3], "several outputs"),
        (operator, "builtinOptions", None, "needs Conv2DOptions"),
        (options, "strideH", 0, "below 1"),
        (options, "strideW", -3, "below 1"),
        (options, "padding", 5, "padding is number 5"),
        (options, "fusedActivationFunction", 4, "function is number 4"),
        (first, "shape", [1, 2**30, 2**30, 4], r"2\*\*31 - 1 elements"),
        (first, "shape", [1] * 9, "longer than the file or 8 allow"),
        (first, "shape", [1, -1, 9, 4], "unknown size"),
        (first, "shape", [1, 2, 2, 4], "does not fit|shape"),
        (first, "type", 5, "of type STRING"),
        (first, "type", 99, "of type type 99"),
        (first, "buffer", 99, "buffer 99"),
        (first_units, "scale", [np.nan], "finite"),
        (first_units, "scale", [-1.0], "scales from -1"),
        (first_units, "zeroPoint", [1, 2], "2 zero points"),
        (first, "quantization", None, "needs a scale"),
        (kernel_units, "quantizedDimension", 2, "scales along axis 2"),
        (kernel_units, "zeroPoint", [1] * 6, "zero point of 0"),
        (kernel, "shape", [6, 3, 3, 400], "bytes"),
        (kernel, "shape", [6, 3, 12], "must have 4 axes"),
        (kernel, "isVariable", True, "variable"),
    ],
)
def test_a_changed_file_is_refused(file: Path, where, field: str, value, message: str):
    rewritten(file, lambda model, _: setattr(where(model), field, value))
    with pytest.raises(ValueError, match=message):
        read_tflite(file)


def test_a_file_of_two_graphs_is_refused(file: Path):
    rewritten(file, lambda model, _: model.subgraphs.append(graph(model)))
    with pytest.raises(ValueError, match="one graph, got 2"):
        read_tflite(file)


def test_one_error_names_the_first_and_counts_the_rest(tmp_path: Path):
    path = tmp_path / "net.tflite"
    write_tflite(chain(), path)
    rewritten(path, lambda model, _: setattr(code(model), "version", 99))
    imported = translate(read_file(path))
    assert len(imported.unsupported) == 2 and len(imported.steps) == 3
    with pytest.raises(UnsupportedError, match="RELU version 99, output tensor 'a'.*and 1 more"):
        imported.program()


def chain() -> Program:
    """Two clips and a reshape."""
    names = ("x", "a", "b", "y")
    tensors = tuple(Tensor(name, (None, 4), "int8", one(0.125), low=0) for name in names)
    steps = ops.Clip(("x",), "a"), ops.Clip(("a",), "b"), ops.Reshape(("b",), "y")
    plain = tuple(dataclasses.replace(t, low=-128) if t.name in "xy" else t for t in tensors)
    return Program(("x",), ("y",), plain, steps, "gemmlowp")


def test_what_no_output_needs_is_left_out(tmp_path: Path):
    path = tmp_path / "net.tflite"
    write_tflite(chain(), path)
    rewritten(path, lambda model, _: setattr(graph(model), "outputs", [1]))
    assert [operator.output for operator in read_tflite(path).operators] == ["a"]


def test_other_files_are_said_to_be_none(tmp_path: Path):
    path = tmp_path / "net.tflite"
    for content in (
        b"",
        b"TFL3",
        b"\x08\0\0\0TFL3",
        b"\xff" * 64,
        b"\x10\0\0\0TFL3" + b"\xff" * 64,
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no .tflite file that can be read"):
            read_tflite(path)
    with pytest.raises(FileNotFoundError):
        read_tflite(tmp_path / "none.tflite")


def test_damaged_files_are_errors_and_nothing_else(file: Path):
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = []
    tracemalloc.start()
    for _ in range(FUZZED):
        file.write_bytes(damaged(content, rng))
        started = time.process_time()
        outcomes.append(read_or_refuse(file))
        assert time.process_time() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()
    refused = sum(isinstance(outcome, ValueError) for outcome in outcomes)
    assert FUZZED // 4 < refused < FUZZED


def test_one_vector_read_from_many_places_is_refused(file: Path):
    """Operators that share one long list of operands would take quadratic time."""
    content = bytearray(file.read_bytes())
    before = len(content)
    # Every word of the file points at a list that claims to reach to its end.
    for place in range(8, before - 4, 4):
        word = int.from_bytes(content[place : place + 4], "little")
        if word in (3, 4, 6):
            content[place : place + 4] = (2**30).to_bytes(4, "little")
    file.write_bytes(bytes(content))
    started = time.process_time()
    assert isinstance(read_or_refuse(file), ValueError)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("kind", [ops.Requantize, ops.LeakyRelu])
def test_a_clamp_that_an_operator_lacks_is_refused(kind, tmp_path: Path):
    """QUANTIZE has no activation function: its ReLU would be lost without a word."""
    x = Tensor("x", (None, 4), "int8", one(0.125))
    y = Tensor("y", (None, 4), "int8", one(0.25), low=0)
    program = Program(("x",), ("y",), (x, y), (kind(("x",), "y"),), "gemmlowp")
    with pytest.raises(NotExpressible, match=r"clamped to \(0, 127\) by an operator that cannot"):
        write_tflite(program, tmp_path / "net.tflite")


@pytest.mark.parametrize("name", [name for name in hostile.READ if name.endswith(".tflite")])
def test_what_tables_share_is_not_copied_for_each(name: str, tmp_path: Path):
    path = tmp_path / name
    hostile.READ[name](path)
    started = time.process_time()
    tracemalloc.start()
    with pytest.raises(ValueError, match="are more than 4 times its .* bytes: its tables share"):
        read_file(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * path.stat().st_size
    assert time.process_time() - started < 5


def test_long_names_are_cut(file: Path):
    rewritten(file, lambda model, _: setattr(graph(model).tensors[0], "name", "é" * 10_000))
    assert read_file(file).tensors[0].name == "é" * 256


class NotWalked(dict):
    """What is looked up in and never walked, so that time grows with the operators alone."""

    def __iter__(self):
        raise AssertionError("walked")

    keys = values = items = __iter__


def reshapes(count: int) -> File:
    """Reshapes, one behind the other."""

    def tensor(number: int) -> FileTensor:
        units = np.ones(1, np.float32), np.zeros(1, np.int64)
        return FileTensor(number, f"t{number}", (1, 4), "INT8", None, *units, 0, True)

    operators = [
        FileOperator("RESHAPE", 1, (i,), (i + 1,), lambda kind: None) for i in range(count)
    ]
    return File(tuple(map(tensor, range(count + 1))), tuple(operators), (0,), (count,))


def test_no_operator_walks_all_tensors(monkeypatch: pytest.MonkeyPatch):
    def starts(self, file):
        original(self, file)
        self._made = made

    original, made = Graph.__init__, NotWalked()
    monkeypatch.setattr(Graph, "__init__", starts)
    monkeypatch.setattr(Graph, "all", lambda self: ())
    translate(reshapes(3))
    assert len(made) == 4


@pytest.mark.slow
def test_twenty_thousand_operators_take_seconds():
    # Without the checks of the tests, which take most of the time.
    code = (
        "from tests.program.test_tflite_files import reshapes, translate; import time;"
        "file = reshapes(20_000); start = time.process_time(); translate(file).program();"
        "print(time.process_time() - start)"
    )
    places = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    seconds = float(subprocess.check_output([sys.executable, "-c", code], env=places))
    # Half a minute when each operator walked all tensors.
    assert seconds < 15


def test_a_table_gets_a_name_that_is_free():
    file = reshapes(1)
    taken = file.tensors[0]._replace(name="t1.table", number=2)
    graph = Graph(file._replace(tensors=(*file.tensors, taken)))
    output = graph.output((1,))
    assert graph.table(output, np.zeros(256, np.int8)).name == "t1.table#3"
