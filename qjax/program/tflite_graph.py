"""A file's tensors as a program's, made when an operator asks for them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from qjax.core.host import HostArray
from qjax.core.tables import round_half_away
from qjax.program.tensor import DTYPES, Quantization, Tensor, code_range
from qjax.program.tflite_file import File, FileTensor

_TYPES = {
    "INT8": "int8",
    "UINT8": "uint8",
    "INT16": "int16",
    "INT32": "int32",
    "FLOAT32": "float32",
}
# Real bounds of the activation functions that an operator can end with.
_BOUNDS = {
    "NONE": (-np.inf, np.inf),
    "RELU": (0.0, np.inf),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
    "RELU6": (0.0, 6.0),
}
FUSED = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")
"""Activation functions by the number that options hold."""


class Unsupported(ValueError):
    """What a program cannot hold; caught where operator and version are known."""


class Graph:
    """Tensors by number; remembers which ones the operator at hand used.

    Args:
        file: the whole graph.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self._made: dict[tuple[int, str], Tensor] = {}
        self._roles: Counter[int] = Counter()
        self._names = {tensor.name for tensor in file.tensors}
        self._tables: list[Tensor] = []
        self._used: dict[str, Tensor] = {}

    def all(self) -> tuple[Tensor, ...]:
        """Every tensor that was made."""
        return (*self._made.values(), *self._tables)

    def begin(self) -> None:
        """Forget what the last operator used."""
        self._used = {}

    def used(self) -> tuple[Tensor, ...]:
        """What the operator at hand used."""
        return tuple(self._used.values())

    def at(self, indices: Sequence[int], place: int) -> FileTensor:
        """The operand at a place of an operator.

        Raises:
            Unsupported: it is left out, sparse, a variable, or of an unknown shape.
        """
        if place >= len(indices) or indices[place] < 0:
            raise Unsupported(f"operand {place + 1} is missing")
        tensor = self.file.tensors[indices[place]]
        if not tensor.plain:
            raise Unsupported(f"tensor {tensor.name!r} is sparse, a variable or block-quantized")
        if any(size < 1 for size in tensor.shape):
            raise Unsupported(f"tensor {tensor.name!r} has an unknown size in {tensor.shape}")
        return tensor

    def has(self, indices: Sequence[int], place: int) -> bool:
        """Whether an optional operand is there."""
        return place < len(indices) and indices[place] >= 0

    def given(self, indices: Sequence[int], place: int) -> Tensor:
        """An activation or a constant as it stands."""
        source = self.at(indices, place)
        return self._make(source, "", self.values(source), units(source))

    def weights(
        self, indices: Sequence[int], place: int, order: tuple[int, ...], channels: int
    ) -> Tensor:
        """Constant weights with axes in another order.

        Args:
            indices, place: which operand.
            order: of its axes, output channels last.
            channels: the file's axis of the output channels.
        """
        source = self.at(indices, place)
        if len(source.shape) != len(order):
            raise Unsupported(f"weights {source.name!r} must have {len(order)} axes")
        grid = units(source)
        if grid is None:
            raise Unsupported(f"weights {source.name!r} have no scale")
        if grid.axis is not None and grid.axis != channels:
            raise Unsupported(f"weights {source.name!r} have scales along axis {grid.axis}")
        # The kernels read a zero point of uint8 weights, and of dense ones with one scale.
        reads_zero = grid.axis is None and (len(order) == 2 or source.type == "UINT8")
        if grid.zero_point.value.any() and not reads_zero:
            raise Unsupported(f"weights {source.name!r} must have a zero point of 0")
        if grid.axis is not None:
            grid = Quantization(grid.scale, grid.zero_point, len(order) - 1)
        values = np.ascontiguousarray(self.constant(source).transpose(order))
        return self._make(source, f"order{order}", values, grid)

    def bias(self, indices: Sequence[int], place: int) -> Tensor:
        """A constant int32 bias; one of 64 bits has to fit."""
        source = self.at(indices, place)
        values = self.constant(source)
        if (np.abs(values) > 2**31 - 1).any():
            raise Unsupported(f"bias {source.name!r} leaves int32")
        return self._make(source, "bias", values.astype(np.int32).reshape(-1), None)

    def output(self, indices: Sequence[int], activation: str = "NONE") -> Tensor:
        """The result of an operator, clamped as its activation function says."""
        source = self.at(indices, 0)
        if source.content is not None or (source.number, "") in self._made:
            raise Unsupported(f"tensor {source.name!r} is computed and given, or computed twice")
        grid = units(source)
        low = high = None
        if grid is not None and source.type in _TYPES:
            low, high = clamp(_TYPES[source.type], grid, activation)
        elif activation != "NONE":
            raise Unsupported(f"activation function {activation} on an unquantized tensor")
        return self._make(source, "", None, grid, low, high)

    def table(self, output: Tensor, values: np.ndarray) -> Tensor:
        """A table of codes that the file only implies."""
        name = f"{output.name}.table"
        if name in self._names:
            name = f"{name}#{len(self.file.tensors)}"
        table = Tensor(name, values.shape, output.dtype, data=values)
        self._tables.append(table)
        self._used[name] = table
        return table

    def values(self, source: FileTensor) -> np.ndarray | None:
        """The codes of a constant, None for an activation."""
        return None if source.content is None else self.constant(source)

    def constant(self, source: FileTensor) -> np.ndarray:
        """The integers of a constant, in its shape.

        Raises:
            Unsupported: it is computed, not of integers, or its bytes do not fill its shape.
        """
        if source.content is None:
            raise Unsupported(f"tensor {source.name!r} must be a constant, it is computed")
        count = int(np.prod(source.shape, dtype=object)) if source.shape else 1
        if source.type == "INT4":
            return _nibbles(source.content, count).reshape(source.shape)
        dtypes = {"INT64": "<i8"} | {
            word: np.dtype(DTYPES[name]).newbyteorder("<") for word, name in _TYPES.items()
        }
        if source.type not in dtypes or source.type == "FLOAT32":
            raise Unsupported(f"constant {source.name!r} is of type {source.type}")
        dtype = np.dtype(dtypes[source.type])
        if source.content.size != count * dtype.itemsize:
            raise Unsupported(
                f"constant {source.name!r} of shape {source.shape} has {source.content.size} bytes"
            )
        return source.content.view(dtype).reshape(source.shape)

    def _make(
        self,
        source: FileTensor,
        role: str,
        data: np.ndarray | None,
        grid: Quantization | None,
        low: int | None = None,
        high: int | None = None,
    ) -> Tensor:
        key = (source.number, role)
        if key not in self._made:
            dtype = _TYPES.get(source.type, "") if data is None else data.dtype.name
            if dtype not in DTYPES:
                raise Unsupported(f"tensor {source.name!r} is of type {source.type}")
            roles = self._roles[source.number]
            self._roles[source.number] += 1
            name = f"{source.name}#{roles}" if roles else source.name
            shape = source.shape if data is None else data.shape
            self._made[key] = Tensor(name, shape, dtype, grid, low, high, data)
        tensor = self._made[key]
        self._used[tensor.name] = tensor
        return tensor


def units(source: FileTensor) -> Quantization | None:
    """Scale and zero point of a tensor, None where it has none.

    Raises:
        Unsupported: lists that do not fit together.
    """
    if not source.scale.size:
        return None
    zero = source.zero_point if source.zero_point.size else np.zeros(1, np.int64)
    if zero.size not in (1, source.scale.size) or (source.scale <= 0).any():
        raise Unsupported(
            f"tensor {source.name!r} has {source.scale.size} scales from {source.scale.min()} and "
            f"{zero.size} zero points"
        )
    if source.scale.size == 1:
        return Quantization(HostArray(source.scale[0]), HostArray(zero[0]))
    zeros = np.broadcast_to(zero, source.scale.shape)
    return Quantization(HostArray(source.scale), HostArray(zeros), source.axis)


def clamp(dtype: str, grid: Quantization, activation: str) -> tuple[int, int]:
    """Least and largest code behind an activation function; divisions in float32, as TFLite's."""
    low, high = code_range(dtype)
    first, last = _BOUNDS[activation]
    if np.isfinite(first):
        low = max(low, grid.zero + _steps(first, grid.step))
    if np.isfinite(last):
        high = min(high, grid.zero + _steps(last, grid.step))
    return low, max(low, high)


def _steps(bound: float, scale: float) -> int:
    with np.errstate(over="ignore"):
        steps = round_half_away(np.asarray(np.float32(bound) / np.float32(scale)))
    return int(np.clip(steps, -(2.0**31), 2.0**31))


def _nibbles(content: np.ndarray, count: int) -> np.ndarray:
    """Signed 4-bit codes, the low half of a byte first."""
    if content.size != (count + 1) // 2:
        raise Unsupported(f"{count} codes of 4 bits take {(count + 1) // 2} bytes")
    pairs = np.stack([content & 15, content >> 4], axis=-1).reshape(-1)[:count]
    return ((pairs.astype(np.int8) ^ 8) - 8).astype(np.int8)
