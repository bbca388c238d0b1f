"""An ONNX file as plain records, trusted in nothing.

The file is a protocol buffer, which its parser checks for form. What it claims is checked here:
constants have as many bytes as their shapes say, nothing refers to other files, be it a constant or
a tensor in an attribute, no node holds a graph of its own, and counts are bounded. Nothing else of
the `onnx` package sees it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from qjax.program.extras import require

MAX_NODES = 100_000
MAX_ENDS = 1024
MAX_OPERANDS = 1024
MAX_RANK = 8

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators."""

type Sizes = tuple[int | None, ...]
type Attribute = int | float | str | tuple[int, ...]

_TYPES = {
    "FLOAT": ("<f4", "float_data"),
    "UINT8": ("|u1", "int32_data"),
    "INT8": ("|i1", "int32_data"),
    "INT32": ("<i4", "int32_data"),
    "INT64": ("<i8", "int64_data"),
}


class Declared(NamedTuple):
    """A graph's input or output: the schema's word for its type, and sizes, None where free."""

    name: str
    type: str
    shape: Sizes


class Node(NamedTuple):
    """A node as the file has it; `kind` has its domain in front where it is not ONNX's own.

    Attributes:
        kind: "QLinearConv", "com.microsoft.QGemm".
        version: of the operator set it is from.
        inputs, outputs: names of tensors; empty for one left out.
        attributes: by name; None for kinds that no operator here has.
    """

    kind: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute | None]

    def ints(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of whole numbers.

        Raises:
            ValueError: it is something else.
        """
        value = self.attributes.get(name, default)
        if not isinstance(value, tuple):
            raise ValueError(f"its {name} must be a list of whole numbers, got {value!r}")
        return value

    def whole(self, name: str, default: int) -> int:
        """A whole number.

        Raises:
            ValueError: it is something else.
        """
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise ValueError(f"its {name} must be a whole number, got {value!r}")
        return value

    def text(self, name: str, default: str) -> str:
        """A word.

        Raises:
            ValueError: it is something else.
        """
        value = self.attributes.get(name, default)
        if not isinstance(value, str):
            raise ValueError(f"its {name} must be a word, got {value!r}")
        return value


class OnnxFile(NamedTuple):
    """The one graph of a file.

    Attributes:
        inputs, outputs: of the graph, constants left out.
        constants: by name.
        nodes: in order.
        content: what was read.
        notes: by a node's output, why it is no part of an operator among codes.
    """

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    constants: dict[str, np.ndarray]
    nodes: tuple[Node, ...]
    content: bytes
    notes: Mapping[str, str] = MappingProxyType({})


def read_file(path: str | Path) -> OnnxFile:
    """Read an ONNX file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, damaged, or keeps its data elsewhere.
        ImportError: onnx is not installed.
    """
    content = Path(path).read_bytes()
    onnx = require("onnx", "onnx")
    message = require("google.protobuf.message", "protobuf")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        return _Reader(model, content, onnx).file()
    except (message.DecodeError, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"{path} is no ONNX file that can be read: {error}") from error


class _Reader:
    """Walks one file's messages."""

    def __init__(self, model: Any, content: bytes, onnx: Any) -> None:
        self.model = model
        self.content = content
        self.types = {value: word for word, value in onnx.TensorProto.DataType.items()}
        self.external = onnx.TensorProto.EXTERNAL
        self.kinds = onnx.AttributeProto

    def file(self) -> OnnxFile:
        """All of it."""
        model, graph = self.model, self.model.graph
        if not graph.node or not graph.output:
            raise ValueError("it has no graph with a node and an output")
        if len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES} nodes or constants")
        if model.training_info:
            raise ValueError("it has graphs for training beside its own")
        if model.functions or graph.sparse_initializer:
            raise ValueError("it has functions of its own or sparse constants")
        versions = {_text(entry.domain): int(entry.version) for entry in model.opset_import}
        versions.setdefault("", versions.get("ai.onnx", 0))
        constants = {_named(item.name): self.constant(item) for item in graph.initializer}
        if len(constants) != len(graph.initializer):
            raise ValueError("two constants have one name")
        # Files of old list their constants among the inputs, too.
        inputs = [item for item in graph.input if item.name not in constants]
        if max(len(inputs), len(graph.output)) > MAX_ENDS:
            raise ValueError(f"it has more than {MAX_ENDS} inputs or outputs")
        return OnnxFile(
            tuple(self.declared(item) for item in inputs),
            tuple(self.declared(item) for item in graph.output),
            constants,
            tuple(self.node(item, versions) for item in graph.node),
            self.content,
        )

    def declared(self, item: Any) -> Declared:
        """An input or an output of the graph."""
        name, kind = _named(item.name), item.type.tensor_type
        if not item.type.HasField("tensor_type") or len(kind.shape.dim) > MAX_RANK:
            raise ValueError(f"{name!r} must be a tensor of at most {MAX_RANK} axes")
        sizes = [
            int(dim.dim_value) if dim.HasField("dim_value") else None for dim in kind.shape.dim
        ]
        word = self.types.get(kind.elem_type, f"type {kind.elem_type}")
        return Declared(name, word, tuple(sizes))

    def constant(self, item: Any) -> np.ndarray:
        """The values of a constant, in its shape."""
        name, shape = _named(item.name), tuple(int(size) for size in item.dims)
        word = self.types.get(item.data_type, f"type {item.data_type}")
        self.here(item, f"constant {name!r}")
        if word not in _TYPES:
            raise ValueError(f"constant {name!r} is of type {word}")
        if len(shape) > MAX_RANK or any(size < 0 for size in shape):
            raise ValueError(f"constant {name!r} has shape {shape}")
        dtype, field = _TYPES[word]
        count = math.prod(shape)
        if item.HasField("raw_data"):
            if len(item.raw_data) != count * np.dtype(dtype).itemsize:
                raise ValueError(
                    f"constant {name!r} of shape {shape} has {len(item.raw_data)} bytes"
                )
            return np.frombuffer(item.raw_data, dtype).reshape(shape)
        values = getattr(item, field)
        if len(values) != count:
            raise ValueError(f"constant {name!r} of shape {shape} has {len(values)} values")
        wide = np.asarray(values, np.float32 if word == "FLOAT" else np.int64)
        narrow = wide.astype(dtype)
        if word != "FLOAT" and (narrow != wide).any():
            raise ValueError(f"constant {name!r} has values that do not fit {word}")
        return narrow.reshape(shape)

    def here(self, item: Any, what: str) -> None:
        """Raise if a tensor's values are kept outside of the file."""
        if item.data_location == self.external or item.external_data:
            raise ValueError(f"{what} lies in another file")

    def node(self, item: Any, versions: dict[str, int]) -> Node:
        """One node."""
        if max(len(item.input), len(item.output), len(item.attribute)) > MAX_OPERANDS:
            raise ValueError(f"a node has more than {MAX_OPERANDS} operands or attributes")
        domain, word = _text(item.domain), _text(item.op_type)
        domain = "" if domain == "ai.onnx" else domain
        kind = readable(f"{domain}.{word}" if domain else word)
        for entry in item.attribute:
            self.plain(entry, f"attribute {readable(_text(entry.name))!r} of operator {kind}")
        return Node(
            kind,
            versions.get(domain, 0),
            tuple(_named(name, empty=True) for name in item.input),
            tuple(_named(name, empty=True) for name in item.output),
            {readable(_text(entry.name)): self.attribute(entry) for entry in item.attribute},
        )

    def plain(self, entry: Any, what: str) -> None:
        """Raise if an attribute holds a graph, or a tensor whose values are elsewhere.

        Its fields say so, whatever type it claims to have.
        """
        if entry.HasField("g") or entry.graphs:
            raise ValueError(f"{what} is a graph of its own; only plain operators are read")
        sparse = [entry.sparse_tensor] if entry.HasField("sparse_tensor") else []
        parts = [p for s in (*sparse, *entry.sparse_tensors) for p in (s.values, s.indices)]
        for tensor in ([entry.t] if entry.HasField("t") else []) + [*entry.tensors, *parts]:
            self.here(tensor, what)

    def attribute(self, entry: Any) -> Attribute | None:
        """The value of an attribute of a plain kind."""
        kinds = self.kinds
        if entry.ref_attr_name:
            return None
        if entry.type == kinds.INT:
            return int(entry.i)
        if entry.type == kinds.FLOAT:
            return float(entry.f)
        if entry.type == kinds.STRING:
            return readable(entry.s.decode("utf-8", "replace"))
        if entry.type == kinds.INTS and len(entry.ints) <= MAX_OPERANDS:
            return tuple(int(value) for value in entry.ints)
        return None


def readable(text: str) -> str:
    """A word without anything that a line of text could not hold."""
    return "".join(c if c.isprintable() and c != " " else "_" for c in text[:256])


def _text(value: str | bytes) -> str:
    """A field of text; the parser leaves bytes where they are no UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _named(value: str | bytes, empty: bool = False) -> str:
    """A name that is one already: two that read the same would become one."""
    text = _text(value)
    if isinstance(value, bytes) or text != readable(text) or (not text and not empty):
        raise ValueError(f"names must be printable, without spaces, up to 256 letters: {text!r}")
    return text
