"""Import of full-integer .tflite files: a file's operators as a program's.

    program = read_tflite("net.tflite")

Every operator keeps TFLite's reference arithmetic (policy `gemmlowp`). Where all tensors have a
first axis of one and every operator leaves it alone, it becomes the batch, and the program runs any
number of samples; otherwise shapes are the file's own. Operators whose results nothing needs (those
that compute the shape a reshape is given, which the file states anyway) are left out.
"""

import struct
from pathlib import Path

from qjax.program.imported import Import, Translated, UnsupportedError, alone
from qjax.program.program import Program
from qjax.program.tflite_file import File, FileOperator, read_file
from qjax.program.tflite_operators import OPERATORS, Graph, Unsupported

__all__ = ["Import", "UnsupportedError", "read_tflite", "translate"]

POLICY = "gemmlowp"


def read_tflite(path: str | Path) -> Program:
    """Import a full-integer .tflite file.

    Raises:
        FileNotFoundError: there is no such file.
        UnsupportedError: naming operator, version and tensor of what a program cannot hold.
        ValueError: the file is damaged.
        ImportError: ai-edge-litert, whose schema reads the file, is not installed.
    """
    return translate(read_file(path)).program()


def translate(file: File) -> Import:
    """Translate every operator that some output needs.

    Raises:
        ValueError: an input that no program can have.
    """
    live = _live(file)
    graph = Graph(file)
    for place in range(len(file.inputs)):
        graph.given(file.inputs, place)
    steps = tuple(_translated(graph, operator) for operator in live)
    inputs, outputs = (
        tuple(file.tensors[number].name for number in ends) for ends in (file.inputs, file.outputs)
    )
    return Import(file, steps, inputs, outputs, graph.all(), POLICY)


def _translated(graph: Graph, source: FileOperator) -> Translated:
    graph.begin()
    try:
        if source.code not in OPERATORS:
            raise Unsupported("no operator of a program computes it")
        most, convert = OPERATORS[source.code]
        if not 1 <= source.version <= most:
            raise Unsupported(f"versions up to {most} are known")
        if len(source.outputs) != 1:
            raise Unsupported("it has several outputs")
        operator = convert(graph, source)
        return Translated(source, alone(operator, graph.used(), POLICY))
    except (ValueError, struct.error) as error:
        outputs = [graph.file.tensors[i].name for i in source.outputs if i >= 0]
        where = f"operator {source.code} version {source.version}, output tensor"
        problem = f"{where} {', '.join(map(repr, outputs))}: {error}"
        return Translated(source, None, problem)


def _live(file: File) -> list[FileOperator]:
    """Operators that outputs depend on; the shape given to a reshape is no dependence."""
    needed = set(file.outputs)
    live = []
    for operator in reversed(file.operators):
        if not needed.isdisjoint(operator.outputs):
            live.append(operator)
            needed.update(operator.inputs[:1] if operator.code == "RESHAPE" else operator.inputs)
    return live[::-1]
