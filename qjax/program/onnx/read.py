"""Import of ONNX files of quantized operators: a file's nodes as a program's operators.

    program = read_onnx("net.onnx")

What `write.py` writes, and files that others wrote of the same operators, as QLinear nodes or as
float ones between DequantizeLinear and QuantizeLinear (`fold.py`). Every operator keeps
onnxruntime's arithmetic (policy `f32_even`). Images stand in the program as (n, h, w, c) wherever
the file has their channels.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from qjax.program.imported import Import, Translated, alone
from qjax.program.onnx.file import Node, OnnxFile, read_file
from qjax.program.onnx.fold import folded
from qjax.program.onnx.graph import Graph, Unsupported
from qjax.program.onnx.operators import OPERATORS, POLICY
from qjax.program.program import Program

_FIRST, _MOST = 10, 26
"""Versions of ONNX's operator set in which the operators here mean what they mean here."""
_LATER: Mapping[str, int] = MappingProxyType({"Pad": 11, "MaxPool": 12, "Clip": 12, "ArgMax": 12})
"""Those that have their operands, or take bytes, only from a later version on."""


def read_onnx(path: str | Path) -> Program:
    """Import an ONNX file of quantized operators.

    Raises:
        FileNotFoundError: there is no such file.
        UnsupportedError: naming operator, version and tensor of what a program cannot hold.
        ValueError: the file is damaged.
        ImportError: onnx is not installed.
    """
    return translate(read_file(path)).program()


def translate(file: OnnxFile) -> Import:
    """Translate every node that some output needs; groups in QDQ form as the nodes they are.

    Raises:
        ValueError: an input that no program can have.
    """
    file = folded(file)
    graph = Graph(file)
    steps = [_translated(graph, node) for node in graph.live()]
    outputs = []
    for declared in file.outputs:
        known = graph.known.get(declared.name)
        outputs.append(declared.name if known is None else known.tensor.name)
    return Import(
        graph,
        tuple(step for step in steps if step.program is not None or step.problem),
        tuple(declared.name for declared in file.inputs),
        tuple(outputs),
        graph.all(),
        POLICY,
    )


def _translated(graph: Graph, node: Node) -> Translated:
    graph.begin()
    try:
        if node.kind not in OPERATORS:
            note = graph.file.notes.get(node.outputs[0]) if node.outputs else None
            between = f"; between QuantizeLinear and DequantizeLinear: {note}" if note else ""
            raise Unsupported(f"no operator of a program computes it{between}")
        most = 1 if "." in node.kind else _MOST
        least = 1 if "." in node.kind else _LATER.get(node.kind, _FIRST)
        if not least <= node.version <= most:
            raise Unsupported(f"versions {least} to {most} are known")
        if len(node.outputs) != 1 or not node.outputs[0]:
            raise Unsupported("it has not one output")
        operator = OPERATORS[node.kind](graph, node)
        if operator is None:
            return Translated(node, None)
        return Translated(node, alone(operator, graph.used(), POLICY))
    except ValueError as error:
        where = f"operator {node.kind} version {node.version}, output tensor"
        return Translated(node, None, f"{where} {', '.join(map(repr, node.outputs))}: {error}")
