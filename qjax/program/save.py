"""Programs on disk: one zip file with two members, no pickle, nothing that is executed.

    program.json   format, version, policy, inputs, outputs, arrays, tensors, operators
    arrays.bin     the arrays one after the other, without gaps, in the order of the list

An entry of `arrays` says how many elements an array has and how they are packed: integers as
{"elements", "low", "step", "bits"} (`packing.py`), other numbers as {"elements", "bits": 64}, which
are little-endian float64. Since sizes follow from the list, no offset can point anywhere. Tensors
refer to arrays by index, each array once, as `data`; a number of tensors or operators that varies
by channel is {"array": index}. `unzip -p FILE program.json` shows all but the weights.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qjax.core.host import HostArray
from qjax.program.base import Operator
from qjax.program.packing import pack, packing_of
from qjax.program.program import Program
from qjax.program.tensor import Tensor

FORMAT, VERSION = "qjax integer program", 1
JSON_MEMBER, ARRAYS_MEMBER = "program.json", "arrays.bin"


class FileSizes(NamedTuple):
    """Bytes: of the whole file, and of the packed arrays in it."""

    total: int
    arrays: int


def save(program: Program, path: str | Path) -> FileSizes:
    """Write a program; the file appears whole or not at all."""
    writer = _Writer()
    document = {
        "format": FORMAT,
        "version": VERSION,
        "policy": program.policy,
        "inputs": program.inputs,
        "outputs": program.outputs,
        "tensors": [writer.tensor(tensor) for tensor in program.tensors],
        "operators": [writer.operator(operator) for operator in program.operators],
        "arrays": writer.entries,
    }
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            # A fixed date: the same program is the same bytes.
            for name, content, method in (
                (JSON_MEMBER, json.dumps(document).encode(), zipfile.ZIP_DEFLATED),
                (ARRAYS_MEMBER, b"".join(writer.parts), zipfile.ZIP_STORED),
            ):
                member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                member.compress_type = method
                archive.writestr(member, content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return FileSizes(path.stat().st_size, sum(map(len, writer.parts)))


class _Writer:
    """Collects arrays while a program is written down."""

    def __init__(self) -> None:
        self.entries: list[dict[str, int]] = []
        self.parts: list[bytes] = []

    def array(self, values: np.ndarray) -> int:
        """Index of an array that joins the file; whole real numbers take as few bits as codes."""
        entry: dict[str, int] = {"elements": values.size}
        if (values == np.round(values)).all() and (np.abs(values) < 2.0**31).all():
            packing = packing_of(values)
            entry |= packing._asdict()
            self.parts.append(pack(values, packing))
        else:
            entry["bits"] = 64
            self.parts.append(values.astype("<f8").tobytes())
        self.entries.append(entry)
        return len(self.entries) - 1

    def value(self, value: object) -> object:
        """An attribute as JSON holds it."""
        if isinstance(value, HostArray):
            if value.value.ndim == 0:
                return {"number": float(value.value)}
            return {"array": self.array(value.value)}
        if isinstance(value, tuple):
            return [self.value(item) for item in value]
        return value

    def tensor(self, tensor: Tensor) -> dict[str, object]:
        """A tensor; its codes join the arrays."""
        written: dict[str, object] = {
            "name": tensor.name,
            "shape": tensor.shape,
            "dtype": tensor.dtype,
            "low": tensor.low,
            "high": tensor.high,
        }
        if tensor.quantization is not None:
            units = tensor.quantization
            written["scale"] = self.value(units.scale)
            written["zero_point"] = self.value(units.zero_point)
            written["axis"] = units.axis
        if tensor.data is not None:
            written["data"] = self.array(tensor.data)
        return written

    def operator(self, operator: Operator) -> dict[str, object]:
        """An operator with its attributes."""
        attributes = {name: self.value(value) for name, value in operator.attributes().items()}
        return {
            "kind": operator.kind,
            "inputs": operator.inputs,
            "output": operator.output,
            **attributes,
        }
