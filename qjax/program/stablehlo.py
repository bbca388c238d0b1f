"""Programs as StableHLO: any operator, any policy; read back by `jax.export`.

A file is for one batch size and one kind of processor: the form of each integer convolution is
chosen by both (`core/intforms.py`).
"""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from qjax.program.program import Program
from qjax.program.run import run
from qjax.program.tensor import DTYPES
from qjax.program.whole import write_whole


def write_stablehlo(program: Program, path: str | Path, batch: int = 1) -> int:
    """Write a program as a serialised `jax.export` of one function; returns its bytes.

    The function takes the inputs in the program's order and returns its outputs in theirs.

    Args:
        program: under any policy.
        path: of the file.
        batch: samples a call.
    """
    return write_whole(path, bytes(exported(program, batch).serialize()))


def exported(program: Program, batch: int = 1) -> export.Exported:
    """The exported function; `.mlir_module()` is its text."""
    given = [
        jax.ShapeDtypeStruct(
            [batch if size is None else size for size in program[name].shape],
            jnp.dtype(DTYPES[program[name].dtype]),
        )
        for name in program.inputs
    ]

    def function(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        values = run(program, dict(zip(program.inputs, inputs, strict=True)))
        return tuple(values[name] for name in program.outputs)

    return export.export(jax.jit(function))(*given)


def read_stablehlo(path: str | Path) -> export.Exported:
    """The exported function of a file; `.call(*inputs)` runs it."""
    return export.deserialize(bytearray(Path(path).read_bytes()))
