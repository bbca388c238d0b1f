"""Programs as .tflite files, operator by operator.

What is written is what `tflite.py` reads: full-integer operators with float32 scales, int8 weights
by output channel. The schema's object interface builds the file.
"""

from pathlib import Path
from typing import Any

import numpy as np

from qjax.core.host import HostArray
from qjax.program.base import NotExpressible, Operator, Site
from qjax.program.extras import require
from qjax.program.program import Program
from qjax.program.tensor import Quantization, Tensor
from qjax.program.tflite_file import schema
from qjax.program.tflite_writers import WRITERS
from qjax.program.whole import write_whole


def write_tflite(program: Program, path: str | Path) -> int:
    """Write a program as a .tflite file; returns its bytes.

    Args:
        program: under `gemmlowp`, every operator of a form that TFLite has.
        path: of the file.

    Raises:
        NotExpressible: naming the operator, why, and the format that can hold it.
        ImportError: ai-edge-litert, which ships the schema, is not installed.
    """
    if program.policy != "gemmlowp":
        raise NotExpressible(
            f"policy {program.policy} is not TFLite's arithmetic, which is gemmlowp; StableHLO "
            "holds a program under any policy"
        )
    return write_whole(path, _Writer(program).content())


class _Writer:
    """Collects tensors, buffers and operators of one file."""

    def __init__(self, program: Program) -> None:
        self.schema = schema()
        self.program = program
        self.graph = self.schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        empty = self.schema.BufferT()
        self.model = self.schema.ModelT()
        self.model.version, self.model.description = 3, "qjax"
        self.model.buffers, self.model.operatorCodes = [empty], []
        self.numbers: dict[str, int] = {}
        self.codes: dict[str, int] = {}

    def content(self) -> bytes:
        """The file."""
        program = self.program
        for name in program.inputs:
            self.tensor(program[name])
        for operator in program.operators:
            self.operator(operator)
        self.graph.inputs = [self.numbers[name] for name in program.inputs]
        self.graph.outputs = [self.numbers[name] for name in program.outputs]
        self.model.subgraphs = [self.graph]
        builder = require("flatbuffers", "flatbuffers").Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def operator(self, operator: Operator) -> None:
        """Add an operator and the tensors it needs."""
        if operator.kind not in WRITERS:
            raise NotExpressible(
                f"{operator.kind} -> {operator.output!r} has no form in TFLite; StableHLO holds it"
            )
        WRITERS[operator.kind](self, operator, self.program.site(operator))

    def add(
        self, code: str, inputs: list[int], output: Tensor, options: Any, version: int = 1
    ) -> None:
        """Add an operator of the file."""
        entry = self.schema.OperatorT()
        entry.opcodeIndex = self.code(code, version)
        entry.inputs, entry.outputs = inputs, [self.tensor(output)]
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            entry.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            entry.builtinOptions = options
        self.graph.operators.append(entry)

    def code(self, word: str, version: int) -> int:
        """The number of an operator code in this file."""
        if word not in self.codes:
            number = getattr(self.schema.BuiltinOperator, word)
            code = self.schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
            code.version = version
            self.codes[word] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(code)
        code = self.model.operatorCodes[self.codes[word]]
        code.version = max(code.version, version)
        return self.codes[word]

    def tensor(self, tensor: Tensor) -> int:
        """The number of a tensor as it stands."""
        return self.put(tensor.name, tensor.shape, tensor.dtype, tensor.quantization, tensor.data)

    def weights(self, tensor: Tensor, order: tuple[int, ...], channels: int) -> int:
        """The number of weights whose axes are put in another order, scales along `channels`."""
        units = tensor.units
        if units.axis is not None:
            units = Quantization(units.scale, units.zero_point, channels)
        data = np.ascontiguousarray(tensor.constant.transpose(order))
        return self.put(f"{tensor.name}/order{order}", data.shape, tensor.dtype, units, data)

    def bias(self, site: Site) -> list[int]:
        """The number of a layer's bias, if it has one, with the scale that kernels check."""
        if len(site.inputs) < 3:
            return []
        x, weight, bias = site.inputs
        scale = np.float32(x.units.step) * weight.units.scale.value.astype(np.float32)
        axis = None if weight.units.axis is None else 0
        units = Quantization(HostArray(scale), HostArray(np.zeros_like(scale)), axis)
        data = bias.constant
        if x.dtype == "int16":
            data = data.astype(np.int64)
        return [self.put(f"{site.output.name}/bias", data.shape, data.dtype.name, units, data)]

    def integers(self, name: str, values: object) -> int:
        """The number of a constant that an operator's attributes become."""
        data = np.asarray(values, np.int32)
        return self.put(name, data.shape, "int32", None, data)

    def put(self, name: str, shape: tuple, dtype: str, units: Quantization | None, data) -> int:
        """The number of a tensor, added where it is new."""
        if name in self.numbers:
            return self.numbers[name]
        entry = self.schema.TensorT()
        entry.name = name.encode()
        entry.shape = [1 if size is None else size for size in shape]
        if shape[:1] == (None,):
            entry.shapeSignature = [-1, *shape[1:]]
        entry.type = getattr(self.schema.TensorType, dtype.upper())
        entry.hasRank = True
        entry.buffer = self.buffer(data)
        if units is not None:
            entry.quantization = self.units(units)
        self.graph.tensors.append(entry)
        self.numbers[name] = len(self.graph.tensors) - 1
        return self.numbers[name]

    def buffer(self, data: np.ndarray | None) -> int:
        """The number of a constant's buffer; 0 for an activation."""
        if data is None:
            return 0
        entry = self.schema.BufferT()
        entry.data = np.frombuffer(data.astype(data.dtype.newbyteorder("<")).tobytes(), np.uint8)
        self.model.buffers.append(entry)
        return len(self.model.buffers) - 1

    def units(self, units: Quantization) -> Any:
        """Scale and zero point, the scales in float32."""
        entry = self.schema.QuantizationParametersT()
        scale = np.atleast_1d(units.scale.value)
        if (scale.astype(np.float32) != scale).any():
            raise NotExpressible(
                f"TFLite's scales are float32, got {scale[:3]}; StableHLO holds any"
            )
        entry.scale = scale.astype(np.float32)
        entry.zeroPoint = np.broadcast_to(units.zero_point.value, scale.shape).astype(np.int64)
        entry.quantizedDimension = units.axis or 0
        return entry
