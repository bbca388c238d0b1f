"""Reading programs back: `save.py` says what a file holds. Nothing in it is trusted.

Sizes are compared with what the file holds before memory is asked for, every array is used once,
and `Program` checks the rest: so a file takes memory in proportion to its own size.
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qjax.core.host import HostArray
from qjax.program.base import Operator
from qjax.program.ops import OPERATORS
from qjax.program.packing import Packing, packed_size, unpack
from qjax.program.program import Program
from qjax.program.save import ARRAYS_MEMBER, FORMAT, JSON_MEMBER, VERSION
from qjax.program.tensor import DTYPES, Quantization, Tensor

MAX_JSON = 2**24
"""Bytes of `program.json`, unpacked."""

# What a damaged zip file or a damaged JSON text can raise inside the standard library.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    UnicodeDecodeError,
)


def load(path: str | Path) -> Program:
    """Read a program.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no program, of another version, or damaged; names the file and the field.
    """
    try:
        document, content = _members(Path(path))
        reader = _Reader(_arrays(document, content))
        return Program(
            inputs=_names(document, "inputs"),
            outputs=_names(document, "outputs"),
            tensors=tuple(reader.tensor(item) for item in _objects(document, "tensors")),
            operators=tuple(reader.operator(item) for item in _objects(document, "operators")),
            policy=_field(document, "policy", str),
        )
    except FileNotFoundError:
        raise
    except (*_DAMAGE, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no integer program that can be read: {error}") from error


def _members(path: Path) -> tuple[Mapping[str, Any], bytes]:
    """The JSON document and the arrays' bytes."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sorted(member.filename for member in members) != [ARRAYS_MEMBER, JSON_MEMBER]:
            raise ValueError(
                f"it must hold {JSON_MEMBER} and {ARRAYS_MEMBER}, each once, and nothing else"
            )
        size = archive.getinfo(ARRAYS_MEMBER)
        if size.compress_type != zipfile.ZIP_STORED or size.file_size > path.stat().st_size:
            raise ValueError(f"{ARRAYS_MEMBER} must be stored uncompressed")
        with archive.open(JSON_MEMBER) as file:
            text = file.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise ValueError(f"{JSON_MEMBER} must stay below {MAX_JSON} bytes")
        content = archive.read(ARRAYS_MEMBER)
    document = json.loads(text.decode(), parse_constant=_no_constant)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"its format must be {FORMAT!r}")
    if document.get("version") != VERSION:
        raise ValueError(f"its version must be {VERSION}, got {document.get('version')!r}")
    return document, content


def _no_constant(name: str) -> float:
    raise ValueError(f"numbers must be finite, got {name}")


def _arrays(document: Mapping[str, Any], content: bytes) -> list[np.ndarray]:
    """Every array, flat: of a narrow integer type, or float64 where it has 64 bits."""
    arrays, start = [], 0
    for entry in _objects(document, "arrays"):
        elements, bits = (_field(entry, name, int) for name in ("elements", "bits"))
        if elements < 1 or not 1 <= bits <= 64:
            raise ValueError(f"an array must have elements of 1 to 64 bits, got {entry}")
        size = packed_size(elements, bits)
        part = content[start : start + size]
        if len(part) != size:
            raise ValueError(f"{ARRAYS_MEMBER} ends after {len(content)} bytes, inside an array")
        start += size
        if bits == 64:
            arrays.append(np.frombuffer(part, "<f8").astype(np.float64))
        else:
            packing = Packing(_field(entry, "low", int), _field(entry, "step", int), bits)
            arrays.append(unpack(part, elements, packing))
    if start != len(content):
        raise ValueError(f"{ARRAYS_MEMBER} has {len(content)} bytes, its list accounts for {start}")
    return arrays


class _Reader:
    """Builds tensors and operators from JSON and arrays."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = dict(enumerate(arrays))

    def array(self, index: object) -> np.ndarray:
        """The array of an index, which nothing else may use."""
        if isinstance(index, bool) or not isinstance(index, int) or index not in self.arrays:
            raise ValueError(f"array {index!r} is not in the file, or used twice")
        return self.arrays.pop(index)

    def value(self, value: object) -> object:
        """An attribute from what JSON holds."""
        if isinstance(value, list):
            return tuple(self.value(item) for item in value)
        if isinstance(value, dict):
            if "array" in value:
                return HostArray(self.array(value["array"]).astype(np.float64))
            return HostArray(float(_field(value, "number", float | int)))
        return value

    def tensor(self, item: Mapping[str, Any]) -> Tensor:
        """A tensor with its codes."""
        name, dtype = _field(item, "name", str), _field(item, "dtype", str)
        if dtype not in DTYPES:
            raise ValueError(f"tensor {name!r}: dtype must be one of {', '.join(DTYPES)}")
        shape = self.value(_field(item, "shape", list))
        data = None
        if "data" in item:
            flat = self.array(item["data"])
            data = flat.astype(DTYPES[dtype])
            if (data != flat).any():
                raise ValueError(f"tensor {name!r}: its data do not fit {dtype}")
            data = data.reshape([_whole(size) for size in _field(item, "shape", list)])
        low, high = (_field(item, end, int | None) for end in ("low", "high"))
        return Tensor(name, shape, dtype, self.quantization(item), low, high, data)  # pyright: ignore

    def quantization(self, item: Mapping[str, Any]) -> Quantization | None:
        """Scale, zero point and axis, where the tensor has them."""
        if "scale" not in item:
            return None
        numbers = [self.value(_field(item, name, dict)) for name in ("scale", "zero_point")]
        return Quantization(*numbers, _field(item, "axis", int | None))  # pyright: ignore

    def operator(self, item: Mapping[str, Any]) -> Operator:
        """An operator with its attributes."""
        kind = _field(item, "kind", str)
        if kind not in OPERATORS:
            raise ValueError(f"operator must be one of {', '.join(OPERATORS)}, got {kind!r}")
        fields = {
            name: self.value(value)
            for name, value in item.items()
            if name not in ("kind", "inputs", "output")
        }
        return OPERATORS[kind](_names(item, "inputs"), _field(item, "output", str), **fields)  # pyright: ignore


def _whole(size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"sizes of a constant must be whole and positive, got {size!r}")
    return size


def _field(item: Mapping[str, Any], name: str, kind: Any) -> Any:
    """A field of a JSON object, which must be there and of a type."""
    if name not in item:
        raise ValueError(f"{name!r} is missing")
    value = item[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name!r} is of the wrong type: {str(value)[:80]}")
    return value


def _objects(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    items = _field(document, name, list)
    if not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{name!r} must be a list of objects")
    return items


def _names(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    items = _field(document, name, list)
    if not all(isinstance(item, str) for item in items):
        raise ValueError(f"{name!r} must be a list of names")
    return tuple(items)
