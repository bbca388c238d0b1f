"""A file's operators, each as a program of its own and all together as one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.tensor import Shape, Tensor


class UnsupportedError(ValueError):
    """A file holds an operator, a version or a tensor that a program cannot hold."""


class Translated(NamedTuple):
    """One operator of a file.

    Attributes:
        source: as in the file.
        program: of this operator alone; None where there is none for it.
        problem: why there is none, naming operator, version and tensor; empty where there is one.
    """

    source: Any
    program: Program | None
    problem: str = ""


class Import(NamedTuple):
    """A file's live operators in order, translated as far as possible.

    Attributes:
        file: what was read.
        steps: its operators.
        inputs, outputs: tensor names.
        tensors: all that the translated operators use, in the file's shapes.
        policy: the arithmetic of the runtime that the file is for.
    """

    file: Any
    steps: tuple[Translated, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    policy: str

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
        return assemble(self.inputs, self.outputs, self.tensors, operators, self.policy)

    @property
    def singles(self) -> list[Program]:
        """A program of one operator for each that has a translation."""
        return [step.program for step in self.steps if step.program is not None]


def assemble(
    inputs: Sequence[str],
    outputs: Sequence[str],
    tensors: Sequence[Tensor],
    operators: Sequence[Operator],
    policy: str,
) -> Program:
    """A program, at any batch where its first axes allow that."""
    parts = (tuple(inputs), tuple(outputs))
    activations = [tensor for tensor in tensors if tensor.data is None]
    if all(tensor.shape[:1] == (1,) for tensor in activations):
        free = [tensor if tensor.data is not None else _batched(tensor) for tensor in tensors]
        try:
            return Program(*parts, tuple(free), tuple(operators), policy)
        except ValueError:
            # Some operator mixes the first axis with others: it is no batch.
            pass
    return Program(*parts, tuple(tensors), tuple(operators), policy)


def _batched(tensor: Tensor) -> Tensor:
    shape: Shape = (None, *tensor.shape[1:])
    return Tensor(tensor.name, shape, tensor.dtype, tensor.quantization, tensor.low, tensor.high)


def alone(operator: Operator, tensors: Sequence[Tensor], policy: str) -> Program:
    """A program of one operator."""
    given = [t.name for t in tensors if t.data is None and t.name != operator.output]
    return assemble(given, [operator.output], tensors, [operator], policy)
