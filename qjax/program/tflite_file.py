"""A .tflite file as plain records, read by the schema's own accessors and trusted in nothing.

The file is a FlatBuffer: tables that point at each other by offsets. The accessors do not check
them, so a damaged file can point outside (which raises), or at one large vector from many places.
Every length is therefore compared with the size of the file, and the numbers of tensors, operators
and their operands are bounded, before anything is walked; all that is copied is a small multiple of
the file.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qjax.program.extras import require

MAX_TENSORS = 100_000
MAX_OPERANDS = 1024
MAX_RANK = 8
MAX_NAME = 256
_MULTIPLE = 4
"""Vectors that tables share are read once for each of them, up to so many times the file."""

# What the accessors raise on offsets that lead nowhere.
_DAMAGE = (struct.error, IndexError, TypeError, ValueError, OverflowError, UnicodeDecodeError)


class FileTensor(NamedTuple):
    """A tensor as the file has it.

    Attributes:
        number: its place in the file's list.
        name: unique among the tensors, printable, without spaces.
        shape: sizes; -1 where unknown.
        type: the schema's word for its type, "INT8".
        content: its bytes where it is a constant, else None.
        scale, zero_point: float32 and int64, empty where it has none.
        axis: along which they run.
        plain: whether it is neither sparse, nor a variable, nor quantized in blocks.
    """

    number: int
    name: str
    shape: tuple[int, ...]
    type: str
    content: np.ndarray | None
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    plain: bool


class FileOperator(NamedTuple):
    """An operator as the file has it.

    Attributes:
        code: the schema's word, "CONV_2D", or CUSTOM and a name.
        version: of its semantics.
        inputs, outputs: indices of tensors; -1 for an optional one left out.
        options: what reads the options of a type: options("Conv2DOptions") is its accessor object.
    """

    code: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Callable[[str], Any]


class File(NamedTuple):
    """The one graph of a file."""

    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def schema() -> Any:
    """The accessors that the schema's compiler generated.

    Raises:
        ImportError: ai-edge-litert, which ships them, is not installed.
    """
    return require("ai_edge_litert.schema_py_generated", "ai-edge-litert")


def read_file(path: str | Path) -> File:
    """Read a .tflite file of one graph.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, damaged, or of several graphs.
        ImportError: ai-edge-litert is not installed.
    """
    content = Path(path).read_bytes()
    generated = schema()
    try:
        return _Reader(content, generated).file()
    except _DAMAGE as error:
        raise ValueError(f"{path} is no .tflite file that can be read: {error}") from error


class _Reader:
    """Walks one file's tables."""

    def __init__(self, content: bytes, generated: Any) -> None:
        if len(content) < 8 or content[4:8] != b"TFL3":
            raise ValueError("it does not begin as a .tflite file does")
        self.content = content
        self.schema = generated
        self.model = generated.Model.GetRootAs(content)
        self.builtins = _words(generated.BuiltinOperator)
        self.types = _words(generated.TensorType)
        self.codes: dict[int, str] = {}
        self.read = 0

    def file(self) -> File:
        """All of it."""
        if self.count(self.model.SubgraphsLength(), 64) != 1:
            raise ValueError(f"it must have one graph, got {self.model.SubgraphsLength()}")
        graph = self.model.Subgraphs(0)
        names: set[str] = set()
        tensors = tuple(
            self.tensor(index, graph.Tensors(index), names)
            for index in range(self.count(graph.TensorsLength(), MAX_TENSORS))
        )
        operators = tuple(
            self.operator(graph.Operators(index), len(tensors))
            for index in range(self.count(graph.OperatorsLength(), MAX_TENSORS))
        )
        inputs = self.indices(graph.InputsAsNumpy(), len(tensors))
        outputs = self.indices(graph.OutputsAsNumpy(), len(tensors))
        read = sum(t.content.size for t in tensors if t.content is not None)
        if read > _MULTIPLE * len(self.content):
            raise ValueError(f"its constants claim {read} bytes of a file of {len(self.content)}")
        return File(tensors, operators, inputs, outputs)

    def count(self, length: int, most: int) -> int:
        """A length of a vector of 4-byte entries, after a look at what the file can hold."""
        if length > min(most, len(self.content) // 4):
            raise ValueError(f"a list of {length} entries is longer than the file or {most} allow")
        return length

    def spend(self, size: int) -> None:
        """Count bytes that are copied: scales, zero points, shapes, operands, names.

        Raises:
            ValueError: they are many times the file's own.
        """
        self.read += size
        if self.read > _MULTIPLE * len(self.content):
            raise ValueError(
                f"its scales, zero points, operands and names are more than {_MULTIPLE} times its "
                f"{len(self.content)} bytes: its tables share them"
            )

    def vector(self, values: Any, most: int) -> np.ndarray:
        """A vector of numbers; the accessors return 0 for one that is not there."""
        if not isinstance(values, np.ndarray):
            return np.zeros(0, np.int64)
        self.count(values.size, most)
        self.spend(values.nbytes)
        return values

    def text(self, content: bytes | None) -> str:
        """A readable text."""
        self.spend(len(content or b""))
        return _readable(content)

    def indices(self, values: Any, tensors: int) -> tuple[int, ...]:
        """Tensor numbers, -1 among them for one left out."""
        found = tuple(int(value) for value in self.vector(values, MAX_OPERANDS))
        if any(not -1 <= index < tensors for index in found):
            raise ValueError(f"tensor numbers must be below {tensors}, got {found}")
        return found

    def tensor(self, index: int, tensor: Any, names: set[str]) -> FileTensor:
        """One tensor; its name joins `names`."""
        name = _name(self.text(tensor.Name()), index, names)
        shape = tuple(int(size) for size in self.vector(tensor.ShapeAsNumpy(), MAX_RANK))
        units = tensor.Quantization()
        scale = zero = np.zeros(0)
        if units is not None:
            scale = self.vector(units.ScaleAsNumpy(), len(self.content))
            zero = self.vector(units.ZeroPointAsNumpy(), len(self.content))
        plain = tensor.Sparsity() is None and not tensor.IsVariable()
        return FileTensor(
            number=index,
            name=name,
            shape=shape,
            type=self.types.get(tensor.Type(), f"type {tensor.Type()}"),
            content=self.buffer(tensor.Buffer(), name),
            scale=scale.astype(np.float32),
            zero_point=zero.astype(np.int64),
            axis=0 if units is None else int(units.QuantizedDimension()),
            plain=plain and (units is None or units.DetailsType() == 0),
        )

    def buffer(self, index: int, name: str) -> np.ndarray | None:
        """The bytes of a buffer, None where it is empty: a tensor that is computed."""
        if not 0 <= index < self.count(self.model.BuffersLength(), MAX_TENSORS):
            raise ValueError(f"tensor {name!r} is in buffer {index}, which is not there")
        buffer = self.model.Buffers(index)
        start, size = int(buffer.Offset()), int(buffer.Size())
        if start > 1:
            # Files above 2 GiB keep their data behind the tables.
            if start + size > len(self.content):
                raise ValueError(f"the data of tensor {name!r} lie outside the file")
            return np.frombuffer(self.content, np.uint8, size, start)
        length = buffer.DataLength()
        if length == 0:
            return None
        if length > len(self.content):
            raise ValueError(f"the data of tensor {name!r} are longer than the file")
        return buffer.DataAsNumpy()

    def operator(self, operator: Any, tensors: int) -> FileOperator:
        """One operator."""
        place = operator.OpcodeIndex()
        if not 0 <= place < self.count(self.model.OperatorCodesLength(), MAX_TENSORS):
            raise ValueError(f"operator code {place} is not there")
        if place not in self.codes:
            self.codes[place] = self.code(self.model.OperatorCodes(place))
        version = int(self.model.OperatorCodes(place).Version())

        table, found = operator.BuiltinOptions(), operator.BuiltinOptionsType()

        def options(kind: str) -> Any:
            if table is None or found != getattr(self.schema.BuiltinOptions, kind):
                raise ValueError(f"it needs {kind}")
            accessor = getattr(self.schema, kind)()
            accessor.Init(table.Bytes, table.Pos)
            try:
                # Looks the table's layout up, which is where an offset that leads nowhere shows.
                table.Offset(4)
            except _DAMAGE as error:
                raise ValueError(f"its {kind} are damaged: {error}") from error
            return accessor

        inputs = self.indices(operator.InputsAsNumpy(), tensors)
        outputs = self.indices(operator.OutputsAsNumpy(), tensors)
        return FileOperator(self.codes[place], version, inputs, outputs, options)

    def code(self, entry: Any) -> str:
        """The word for what operators of a code compute."""
        number = max(entry.BuiltinCode(), entry.DeprecatedBuiltinCode())
        word = self.builtins.get(number, f"operator {number}")
        return f"CUSTOM {self.text(entry.CustomCode())}" if word == "CUSTOM" else word


def _words(enum: type) -> dict[int, str]:
    return {value: word for word, value in vars(enum).items() if isinstance(value, int)}


def _readable(text: bytes | None) -> str:
    # Cut before it is decoded; a character takes 4 bytes at most.
    decoded = (text or b"")[: 4 * MAX_NAME].decode("utf-8", "replace")[:MAX_NAME]
    return "".join(c if c.isprintable() and c != " " else "_" for c in decoded)


def _name(text: str, index: int, names: set[str]) -> str:
    """A readable name that no other tensor has."""
    name = text or f"tensor{index}"
    if name in names:
        name = f"{name}#{index}"
    while name in names:
        name += "_"
    names.add(name)
    return name
