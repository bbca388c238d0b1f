"""A program as a page of text: what a researcher reads, one operator a line.

Tensors are called by the line that computes them, %4; inputs are %a, %b. Constants are told by bits
and shape. The names they have in the program stand at the end of the lines.
"""

import string
from collections.abc import Mapping, Sequence

from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.tensor import Shape, Tensor, code_range

_HEADINGS = ("", "operator", "of", "constants", "codes", "scale", "zero", "attributes", "name")
_LONGEST_NAME = 40


def listing(program: Program) -> str:
    """Operators in order, each with its inputs, its output's codes and units, its attributes."""
    labels = _labels(program)
    rows = [_row(labels[name], "input", "", "", program[name], "") for name in program.inputs]
    rows += [_operator_row(program, operator, labels) for operator in program.operators]
    constants = [tensor for tensor in program.tensors if tensor.data is not None]
    head = (
        f"program of {len(program.operators)} operators, policy {program.policy}, "
        f"{sum(tensor.elements for tensor in constants):,} constants"
    )
    tail = f"outputs: {', '.join(labels[name] for name in program.outputs)}"
    return "\n".join([head, "", *aligned([_HEADINGS, *rows]), "", tail])


def _labels(program: Program) -> dict[str, str]:
    """Short names of the activations."""
    letters = string.ascii_lowercase
    inputs = {
        name: f"%{letters[place % 26]}{place // 26 or ''}"
        for place, name in enumerate(program.inputs)
    }
    places = enumerate(program.operators, start=1)
    return inputs | {operator.output: f"%{place}" for place, operator in places}


def _operator_row(
    program: Program, operator: Operator, labels: Mapping[str, str]
) -> tuple[str, ...]:
    tensors = [program[name] for name in operator.inputs]
    read = " ".join(labels[tensor.name] for tensor in tensors if tensor.data is None)
    constants = [tensor for tensor in tensors if tensor.data is not None]
    told = " ".join(f"{tensor.bits}b{shape_text(tensor.shape)}" for tensor in constants)
    output, label = program[operator.output], labels[operator.output]
    return _row(label, operator.kind, read, told, output, operator.note())


def _row(
    label: str, kind: str, read: str, constants: str, output: Tensor, note: str
) -> tuple[str, ...]:
    return (label, kind, read, constants, *_units(output), note, shortened(output.name))


def shortened(name: str) -> str:
    """A name cut to the width of a column."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _units(tensor: Tensor) -> tuple[str, str, str]:
    """Type, shape and range; scale; zero point."""
    codes = f"{tensor.dtype} {shape_text(tensor.shape)}"
    if tensor.dtype != "float32" and tensor.range != code_range(tensor.dtype):
        codes += f" {tensor.range[0]}..{tensor.range[1]}"
    units = tensor.quantization
    if units is None:
        return codes, "", ""
    if units.axis is None:
        return codes, f"{float(units.scale.value):.6g}", f"{float(units.zero_point.value):g}"
    scale, zero = units.scale.value, units.zero_point.value
    zeros = f"{zero.min():g}" if (zero == zero.min()).all() else f"{zero.min():g}..{zero.max():g}"
    return codes, f"{scale.min():.3g}..{scale.max():.3g}", zeros


def shape_text(shape: Shape) -> str:
    """A shape in brackets, the batch as n.

    >>> shape_text((None, 32, 32, 3))
    '[n 32 32 3]'
    """
    return "[" + " ".join("n" if size is None else str(size) for size in shape) + "]"


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines with straight columns, two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in cells]
