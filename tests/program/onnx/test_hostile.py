"""ONNX files whose nodes hold more than operators, and files of very many inputs."""

import time
from pathlib import Path

import numpy as np
import pytest

from qjax.program.onnx.file import Declared, Node, OnnxFile
from qjax.program.onnx.graph import Graph
from qjax.program.onnx.read import read_onnx

onnx = pytest.importorskip("onnx", reason="it reads and writes the files; qjax[export] has it")


def elsewhere():
    """A tensor whose values another file has."""
    tensor = onnx.TensorProto(name="v", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="../x")
    return tensor


def sparse():
    indices = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i")
    return onnx.helper.make_sparse_tensor(elsewhere(), indices, [4])


def graph():
    return onnx.helper.make_graph([], "body", [], [])


def added(model, kind: str, **attributes):
    """A node that no output needs: what it holds is none the safer."""
    model.graph.node.append(onnx.helper.make_node(kind, [], ["unused"], **attributes))
    return model.graph.node[-1]


def mislabelled(item, name: str) -> None:
    entry = next(entry for entry in item.attribute if entry.name == name)
    entry.type = onnx.AttributeProto.INT


CHANGES = {
    "a value elsewhere in an attribute": (
        lambda m: added(m, "Constant", value=elsewhere()),
        "attribute 'value' of operator Constant lies in another file",
    ),
    "a list of values elsewhere": (
        lambda m: added(m, "Constant", values=[elsewhere()]),
        "attribute 'values' of operator Constant lies in another file",
    ),
    "a sparse value elsewhere": (
        lambda m: added(m, "Constant", sparse_value=sparse()),
        "attribute 'sparse_value' of operator Constant lies in another file",
    ),
    "a value elsewhere, said to be a number": (
        lambda m: mislabelled(added(m, "Constant", value=elsewhere()), "value"),
        "attribute 'value' of operator Constant lies in another file",
    ),
    "an input without axes": (
        lambda m: m.graph.input[0].type.tensor_type.shape.ClearField("dim"),
        "has no axes, so none for the images",
    ),
    "a loop": (
        lambda m: added(m, "Loop", body=graph()),
        "attribute 'body' of operator Loop is a graph of its own",
    ),
    "a branch": (
        lambda m: added(m, "If", then_branch=graph(), else_branch=graph()),
        "'(else|then)_branch' of operator If is a graph of its own",
    ),
    "graphs in a known node": (
        lambda m: m.graph.node[0].attribute.append(
            onnx.helper.make_attribute("strides", [graph()])
        ),
        "attribute 'strides' of operator MaxPool is a graph of its own",
    ),
    "a graph, said to be a number": (
        lambda m: mislabelled(added(m, "Loop", body=graph()), "body"),
        "attribute 'body' of operator Loop is a graph of its own",
    ),
    "a graph for training": (lambda m: m.training_info.add(), "graphs for training"),
    "too many inputs": (
        lambda m: [m.graph.input.add(name=f"more{place}") for place in range(1024)],
        "more than 1024 inputs",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_with_more_than_operators_is_refused(name: str, tmp_path: Path):
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])
    ends = [value(word, onnx.TensorProto.UINT8, [1, 1, 4, 4]) for word in "xy"]
    net = onnx.helper.make_graph([node], "net", ends[:1], ends[1:])
    imports = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(net, opset_imports=imports)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    read_onnx(path)
    change, message = CHANGES[name]
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=message):
        read_onnx(path)


def test_many_inputs_and_nodes_take_little_time():
    """Each node is looked at once, not once for each input."""
    inputs = tuple(Declared(f"x{place}", "UINT8", (1, 4)) for place in range(1024))
    nodes = tuple(Node("Clip", 13, (f"x{n}",), (f"y{n}",), {}) for n in range(90 * 1024))
    started = time.process_time()
    Graph(OnnxFile(inputs, (), {}, nodes, b""))
    assert time.process_time() - started < 3
