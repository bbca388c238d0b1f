"""Hostile and damaged ONNX files: an error of ours, never a crash, a hang or much memory."""

import time
from pathlib import Path

import numpy as np
import pytest

from qjax.program.imported import UnsupportedError
from qjax.program.lowering.container import ONNX
from qjax.program.lowering.lower import lower, observe
from qjax.program.onnx.file import read_file
from qjax.program.onnx.read import read_onnx, translate
from qjax.program.onnx.reference import why_not
from qjax.program.onnx.write import write_onnx
from qjax.program.program import Program
from tests.program.networks import network
from tests.program.test_files import damaged

onnx = pytest.importorskip("onnx", reason="it reads and writes the files; qjax[export] has it")

FUZZED = 150


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A network's file: a convolution and what stands around it."""
    program, pixels = network("small", "pact", 4)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    write_onnx(lower(program, ONNX, observe(program, pixels)).program, path)
    return path.read_bytes()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    return path


def rewritten(path: Path, change) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def node(model, kind: str):
    return next(item for item in model.graph.node if item.op_type == kind)


def constant(model, ending: str):
    return next(item for item in model.graph.initializer if item.name.endswith(ending))


def attribute(model, kind: str, name: str):
    return next(item for item in node(model, kind).attribute if item.name == name)


def replaced(items, *values) -> None:
    del items[:]
    items.extend(values)


CHANGES = {
    "another operator": (
        lambda m: setattr(node(m, "MaxPool"), "op_type", "Sigmoid"),
        "operator Sigmoid version 17, output tensor 'act2': no operator of a program",
    ),
    "a domain of nobody": (
        lambda m: setattr(node(m, "QLinearAdd"), "domain", "evil"),
        "operator evil.QLinearAdd version 0",
    ),
    "an old version": (lambda m: setattr(m.opset_import[0], "version", 9), "versions 10 to 26"),
    "a version of floats alone": (
        lambda m: setattr(m.opset_import[0], "version", 11),
        "MaxPool version 11, output tensor 'act2': versions 12 to 26|Clip version 11",
    ),
    "no version": (lambda m: replaced(m.opset_import), "version 0, output tensor"),
    "a cycle": (
        lambda m: node(m, "QLinearConv").input.__setitem__(0, "class"),
        "'class', is not known here",
    ),
    "an operand that is nowhere": (
        lambda m: node(m, "QLinearConv").input.__setitem__(0, "nowhere"),
        "'nowhere', is not known here",
    ),
    "too few operands": (
        lambda m: replaced(node(m, "QLinearConv").input, "pixels"),
        "must be a constant|scale and zero point",
    ),
    "a scale that is computed": (
        lambda m: node(m, "QLinearAdd").input.__setitem__(1, "conv1.input"),
        "must be constants",
    ),
    "two outputs": (
        lambda m: node(m, "MaxPool").output.append("indices"),
        "it has not one output",
    ),
    "an output computed twice": (
        lambda m: node(m, "MaxPool").output.__setitem__(0, "conv3.output"),
        "computed twice|not known here|reads .* before",
    ),
    "strides of zero": (
        lambda m: replaced(attribute(m, "QLinearConv", "strides").ints, 0, 1),
        "strides",
    ),
    "strides of another kind": (
        lambda m: setattr(attribute(m, "QLinearConv", "strides"), "type", 3),
        "must be a list of whole numbers",
    ),
    "huge padding": (
        lambda m: replaced(attribute(m, "QLinearConv", "pads").ints, 2**40, 0, 0, 0),
        "from 0 to 65536",
    ),
    "negative padding": (
        lambda m: replaced(attribute(m, "QLinearConv", "pads").ints, -1, 0, 0, 0),
        "from 0 to 65536",
    ),
    "groups that do not divide": (
        lambda m: setattr(attribute(m, "QLinearConv", "group"), "i", 3),
        "does not fit",
    ),
    "a huge image": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**40),
        r"2\*\*31 - 1 elements",
    ),
    "a large image": (
        lambda m: [
            setattr(m.graph.input[0].type.tensor_type.shape.dim[i], "dim_value", 20000)
            for i in (1, 2)
        ],
        r"2\*\*31",
    ),
    "too many axes": (
        lambda m: [m.graph.input[0].type.tensor_type.shape.dim.add() for _ in range(9)],
        "at most 8 axes",
    ),
    "no type": (lambda m: m.graph.input[0].ClearField("type"), "must be a tensor"),
    "an input of text": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8),
        "of type STRING",
    ),
    "weights elsewhere": (
        lambda m: setattr(constant(m, "act1.weights"), "data_location", 1),
        "lies in another file",
    ),
    "a path to elsewhere": (
        lambda m: constant(m, "act1.weights").external_data.add(key="location", value="../x"),
        "lies in another file",
    ),
    "weights cut off": (
        lambda m: setattr(constant(m, "act1.weights"), "raw_data", b"\1\2\3"),
        "has 3 bytes",
    ),
    "weights of a huge shape": (
        lambda m: replaced(constant(m, "act1.weights").dims, 2**40, 2**40, 3, 3),
        "bytes",
    ),
    "a negative size": (
        lambda m: replaced(constant(m, "act1.weights").dims, -8, 1, 3, 3),
        "has shape",
    ),
    "weights of another type": (
        lambda m: setattr(constant(m, "act1.weights"), "data_type", 16),
        "of type BFLOAT16",
    ),
    "two constants of one name": (
        lambda m: setattr(constant(m, "act1.bias"), "name", "act1.weights"),
        "two constants have one name",
    ),
    "a scale of zero": (
        lambda m: setattr(constant(m, "act1.wide/scale"), "raw_data", bytes(4)),
        "must be positive float32",
    ),
    "a scale that is no number": (
        lambda m: setattr(constant(m, "act1.wide/scale"), "raw_data", np.float32("nan").tobytes()),
        "must be positive float32",
    ),
    "an infinite scale": (
        lambda m: setattr(constant(m, "act1.wide/scale"), "raw_data", np.float32("inf").tobytes()),
        "finite",
    ),
    "another scale where it is read": (
        lambda m: node(m, "QLinearAdd").input.__setitem__(1, "act1.wide/scale"),
        "it reads tensor",
    ),
    "no graph": (lambda m: m.ClearField("graph"), "no graph with a node and an output"),
    "functions": (lambda m: m.functions.add(), "functions of its own"),
    "a name with a newline": (
        lambda m: node(m, "MaxPool").output.__setitem__(0, "a\nb"),
        "names must be printable",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_is_refused(file: Path, name: str):
    change, message = CHANGES[name]
    rewritten(file, change)
    with pytest.raises(ValueError, match=message):
        read_onnx(file)


def test_one_error_names_the_first_and_counts_the_rest(file: Path):
    rewritten(file, lambda model: setattr(model.opset_import[1], "version", 7))
    imported = translate(read_file(file))
    assert len(imported.unsupported) > 2 and imported.singles
    with pytest.raises(UnsupportedError, match="QLinearAdd version 7.*and .* more"):
        imported.program()


def test_other_files_are_said_to_be_none(tmp_path: Path):
    path = tmp_path / "net.onnx"
    for content in (b"", b"\x08", b"\xff" * 64, b"PK\3\4" + bytes(60), b"\x3a\xff\xff\xff\xff\x0f"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no ONNX file that can be read"):
            read_onnx(path)
    with pytest.raises(FileNotFoundError):
        read_onnx(tmp_path / "none.onnx")


def test_deep_nesting_is_refused(tmp_path: Path):
    """A graph in an attribute of a node of a graph in an attribute, two thousand times."""

    def wrapped(field: int, content: bytes) -> bytes:
        size, count = b"", len(content)
        while count > 127:
            size, count = size + bytes([count & 127 | 128]), count >> 7
        return bytes([field << 3 | 2]) + size + bytes([count]) + content

    content = b""
    for _ in range(2000):
        # GraphProto.node, NodeProto.attribute, AttributeProto.g
        content = wrapped(6, wrapped(5, wrapped(1, content)))
    path = tmp_path / "net.onnx"
    path.write_bytes(wrapped(7, content))
    with pytest.raises(ValueError, match="no ONNX file that can be read"):
        read_onnx(path)


def read_or_refuse(path: Path) -> Program | ValueError:
    try:
        return read_onnx(path)
    except ValueError as error:
        return error


def test_damaged_files_are_errors_and_nothing_else(file: Path, content: bytes):
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(FUZZED):
        file.write_bytes(damaged(content, rng))
        started = time.process_time()
        outcomes.append(read_or_refuse(file))
        assert time.process_time() - started < 5
    refused = sum(isinstance(outcome, ValueError) for outcome in outcomes)
    assert FUZZED // 4 < refused < FUZZED


def test_processors_without_exact_sums_are_told(file: Path):
    imported = translate(read_file(file))
    assert why_not(imported, {"avx2", "avx512_vnni"}) == ""
    assert "is not known to be one" in why_not(imported, set())
    # The 8-bit ends reach beyond 64.
    assert "saturate in 16 bits, since weights reach 127" in why_not(imported, {"avx2"})
