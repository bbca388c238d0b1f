"""Files that are sound in form and hostile in what they ask of a reader or of a runtime."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import flatbuffers
import numpy as np
import onnx
from onnx import TensorProto, helper

from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.program import Program
from qjax.program.tensor import Quantization, Tensor
from qjax.program.tflite_file import schema
from qjax.program.tflite_write import write_tflite


def aborting_add(path: Path) -> None:
    """A sum on steps of 1e-7: a check in LiteRT's kernel fails, which aborts its process."""

    def tensor(name: str, step: float) -> Tensor:
        units = Quantization(HostArray(np.float32(step)), HostArray(0))
        return Tensor(name, (None, 4), "int8", units)

    tensors = (tensor("a", 1.0), tensor("b", 1.0), tensor("y", 1e-7))
    add = ops.Add(("a", "b"), "y")
    write_tflite(Program(("a", "b"), ("y",), tensors, (add,), "gemmlowp"), path)


def endless_loop(path: Path) -> None:
    """A `Loop` of 2^62 trips, which a reader refuses and a runtime never ends."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["v"], ["v_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 4]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_on", TensorProto.FLOAT, ["n", 4]),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["trips", "", "x"], ["looped"], body=body),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"]),
        helper.make_node("QuantizeLinear", ["looped", "s", "z"], ["w"]),
    ]
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [2**62])
    _write(path, nodes, ("n", 4), ("y", "w"), [trips])


def huge_input(path: Path) -> None:
    """One float input of 30,000 by 30,000, which is quantized."""
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    _write(path, [node], ("n", 30_000, 30_000), ("y",))


def fixed_reshape(path: Path) -> None:
    """Any number of rows, reshaped to one."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"]),
        helper.make_node("Reshape", ["y", "one_row"], ["w"]),
    ]
    shape = helper.make_tensor("one_row", TensorProto.INT64, [2], [1, 4])
    _write(path, nodes, ("n", 4), ("w",), [shape])


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: tuple[str | int, ...],
    outputs: tuple[str, ...],
    constants: list[onnx.TensorProto] | None = None,
) -> None:
    """A graph of a float `x` and uint8 outputs, all of one shape, on steps of 1/2."""
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in outputs],
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("z", TensorProto.UINT8, [], [0]),
            *(constants or []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())


RUN: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        "add.tflite": aborting_add,
        "huge.onnx": huge_input,
        "reshape.onnx": fixed_reshape,
    }
)
"""Files that a reader takes and a runtime fails on, by name."""


def shared_scales(path: Path) -> None:
    """4,000 tensors that share one list of 100,000 scales: 1.6 GB, were it copied for each."""
    path.write_bytes(_shared(scales=100_000, tensors=4000))


def shared_operands(path: Path) -> None:
    """20,000 operators that are one table of 1,024 operands."""
    path.write_bytes(_shared(operands=1024, operators=20_000))


def shared_names(path: Path) -> None:
    """50,000 tensors that are one table, whose name has 4 MB."""
    path.write_bytes(_shared(name=4_000_000, tensors=50_000))


def _shared(
    scales: int = 1, tensors: int = 1, operands: int = 1, operators: int = 1, name: int = 1
) -> bytes:
    """A .tflite file in which every tensor is one table, and every operator another."""
    generated = schema()
    builder = flatbuffers.Builder(1024)

    def table(kind: str, **fields: int) -> int:
        getattr(generated, f"{kind}Start")(builder)
        for field, value in fields.items():
            getattr(generated, f"{kind}Add{field}")(builder, value)
        return builder.EndObject()

    def offsets(number: int, times: int = 1) -> int:
        builder.StartVector(4, times, 4)
        for _ in range(times):
            builder.PrependUOffsetTRelative(number)
        return builder.EndVector()

    places = builder.CreateNumpyVector(np.zeros(operands, np.int32))
    spread = builder.CreateNumpyVector(np.ones(scales, np.float32))
    units = table("QuantizationParameters", Scale=spread)
    shape = builder.CreateNumpyVector(np.ones(1, np.int32))
    label = builder.CreateString("x" * name)
    one = table("Tensor", Shape=shape, Type=9, Name=label, Quantization=units)
    operator = table("Operator", Inputs=places, Outputs=places)
    parts = {"Tensors": offsets(one, tensors), "Operators": offsets(operator, operators)}
    graph = table("SubGraph", Inputs=places, Outputs=places, **parts)
    model = table(
        "Model",
        Version=3,
        OperatorCodes=offsets(table("OperatorCode", BuiltinCode=22, Version=1)),
        Subgraphs=offsets(graph),
        Buffers=offsets(table("Buffer")),
    )
    builder.Finish(model, b"TFL3")
    return bytes(builder.Output())


READ: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        "scales.tflite": shared_scales,
        "operands.tflite": shared_operands,
        "names.tflite": shared_names,
        "loop.onnx": endless_loop,
    }
)
"""Files that a reader must refuse: most before it copies what their tables share. By name."""
