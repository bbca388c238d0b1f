"""A program as a page of text: what a researcher reads, one operator a line."""

from collections.abc import Sequence

from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.tensor import Shape, Tensor, code_range

_HEADINGS = ("", "operator", "inputs", "output", "codes", "scale", "zero", "attributes")


def listing(program: Program) -> str:
    """Operators in order, each with its inputs, its output's codes and units, its attributes."""
    rows = [_input_row(program[name]) for name in program.inputs]
    rows += [_row(program, place, op) for place, op in enumerate(program.operators, start=1)]
    weights = [tensor for tensor in program.tensors if tensor.data is not None]
    head = (
        f"program of {len(program.operators)} operators, policy {program.policy}, "
        f"{sum(tensor.elements for tensor in weights):,} constants"
    )
    tail = f"outputs: {', '.join(program.outputs)}"
    return "\n".join([head, "", *aligned([_HEADINGS, *rows]), "", tail])


def _input_row(tensor: Tensor) -> tuple[str, ...]:
    return ("", "input", "", tensor.name, *_units(tensor), "")


def _row(program: Program, place: int, operator: Operator) -> tuple[str, ...]:
    inputs = ", ".join(_named(program[name]) for name in operator.inputs)
    output = program[operator.output]
    return (str(place), operator.kind, inputs, output.name, *_units(output), operator.note())


def _named(tensor: Tensor) -> str:
    if tensor.data is None:
        return tensor.name
    return f"{tensor.name} {tensor.bits}b {shape_text(tensor.shape)}"


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
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return [line.rstrip() for line in lines]
