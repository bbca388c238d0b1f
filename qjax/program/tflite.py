"""Import of full-integer .tflite files: a file's operators as a program's.

    program = read_tflite("net.tflite")

Every operator keeps TFLite's reference arithmetic (policy `gemmlowp`). Where all tensors have a
first axis of one and every operator leaves it alone, it becomes the batch, and the program runs any
number of samples; otherwise shapes are the file's own. Operators whose results nothing needs (those
that compute the shape a reshape is given, which the file states anyway) are left out.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.tensor import Shape, Tensor
from qjax.program.tflite_file import File, FileOperator, read_file
from qjax.program.tflite_operators import OPERATORS, Graph, Unsupported

POLICY = "gemmlowp"


class UnsupportedError(ValueError):
    """A file holds an operator, a version or a tensor that a program cannot hold."""


class Translated(NamedTuple):
    """One operator of a file.

    Attributes:
        source: as in the file.
        program: of this operator alone; None where there is none for it.
        problem: why there is none, naming operator, version and tensor; empty where there is one.
    """

    source: FileOperator
    program: Program | None
    problem: str = ""


class Import(NamedTuple):
    """A file's live operators in order, translated as far as possible.

    Attributes:
        file: what was read.
        steps: its operators.
        inputs, outputs: tensor names.
        tensors: all that the translated operators use, in the file's shapes.
    """

    file: File
    steps: tuple[Translated, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[Tensor, ...]

    @property
    def unsupported(self) -> tuple[str, ...]:
        """What stands in the way of a program, one line an operator."""
        return tuple(step.problem for step in self.steps if step.problem)

    def program(self) -> Program:
        """The whole.

        Raises:
            UnsupportedError: naming the first operator that has no translation.
        """
        if self.unsupported:
            more = len(self.unsupported) - 1
            also = f" (and {more} more)" if more else ""
            raise UnsupportedError(f"{self.unsupported[0]}{also}")
        operators = [operator for program in self.singles for operator in program.operators]
        return assemble(self.inputs, self.outputs, self.tensors, operators)

    @property
    def singles(self) -> list[Program]:
        """A program of one operator for each that has a translation."""
        return [step.program for step in self.steps if step.program is not None]


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
    return Import(file, steps, inputs, outputs, graph.all())


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
        tensors = graph.used()
        given = [t.name for t in tensors if t.data is None and t.name != operator.output]
        return Translated(source, assemble(given, [operator.output], tensors, [operator]))
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


def assemble(
    inputs: Sequence[str],
    outputs: Sequence[str],
    tensors: Sequence[Tensor],
    operators: Sequence[Operator],
) -> Program:
    """A program, at any batch where its first axes allow that."""
    parts = (tuple(inputs), tuple(outputs))
    activations = [tensor for tensor in tensors if tensor.data is None]
    if all(tensor.shape[:1] == (1,) for tensor in activations):
        free = [tensor if tensor.data is not None else _batched(tensor) for tensor in tensors]
        try:
            return Program(*parts, tuple(free), tuple(operators), POLICY)
        except ValueError:
            # Some operator mixes the first axis with others: it is no batch.
            pass
    return Program(*parts, tuple(tensors), tuple(operators), POLICY)


def _batched(tensor: Tensor) -> Tensor:
    shape: Shape = (None, *tensor.shape[1:])
    return Tensor(tensor.name, shape, tensor.dtype, tensor.quantization, tensor.low, tensor.high)
