"""Programs as ONNX files of QLinear operators: unsigned activations, signed weights (U8S8).

ONNX keeps channels in front, a program has them last. Images go in as they come, (n, h, w, c); what
needs the other order is transposed once. Names of tensors are the program's.
"""

from pathlib import Path
from typing import Any

import numpy as np

from qjax.program.base import NotExpressible, Operator
from qjax.program.extras import require
from qjax.program.onnx.file import MICROSOFT
from qjax.program.onnx.writers import WRITERS
from qjax.program.program import Program
from qjax.program.tensor import Tensor
from qjax.program.whole import write_whole

OPSET = 17
"""What files ask of a runtime: ONNX 1.12, and onnxruntime's own operators (`MICROSOFT`)."""
_IR_VERSION = 8
_FRONT = "channels_first"
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Transpositions that take the channels to the front, and back."""


def write_onnx(program: Program, path: str | Path) -> int:
    """Write a program as an ONNX file; returns its bytes. The file appears whole or not at all.

    Args:
        program: under `f32_even`, every operator of a form that onnxruntime has.
        path: of the file.

    Raises:
        NotExpressible: naming the operator, why, and the format that can hold it.
        ImportError: onnx is not installed.
    """
    if program.policy != "f32_even":
        raise NotExpressible(
            f"policy {program.policy} is not onnxruntime's arithmetic, which is f32_even; "
            "StableHLO holds a program under any policy"
        )
    return write_whole(path, _Writer(program).content())


class _Writer:
    """Collects nodes, constants and the shapes of what they compute."""

    def __init__(self, program: Program) -> None:
        self.onnx = require("onnx", "onnx")
        self.program = program
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.shapes: dict[str, Any] = {}
        # Images in the program's own order, where that is how the file has them.
        self.channels_last = {name for name in program.inputs if len(program[name].shape) == 4}

    def content(self) -> bytes:
        """The file."""
        program, helper = self.program, self.onnx.helper
        for operator in program.operators:
            self.operator(operator)
        inputs = [self.info(name, program[name], program[name].shape) for name in program.inputs]
        outputs = [self.output(program[name]) for name in program.outputs]
        between = [info for name, info in self.shapes.items() if name not in program.outputs]
        constants = list(self.constants.values())
        graph = helper.make_graph(
            self.nodes, "network", inputs, outputs, constants, value_info=between
        )
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(
            graph, opset_imports=imports, producer_name="qjax", ir_version=_IR_VERSION
        )
        self.onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)

    def operator(self, operator: Operator) -> None:
        """Add the nodes of an operator."""
        site = self.program.site(operator)
        if operator.kind not in WRITERS:
            raise NotExpressible(
                f"{operator.kind} -> {operator.output!r} has no form here among ONNX's "
                "quantized operators; StableHLO holds it"
            )
        for tensor in (*site.inputs, site.output):
            if tensor.dtype not in ("int8", "uint8", "int32", "float32"):
                raise NotExpressible(f"{tensor} is {tensor.dtype}; TFLite and StableHLO hold it")
        WRITERS[operator.kind](self, operator, site)

    def output(self, tensor: Tensor) -> Any:
        """How the file declares one of its outputs, an image in the program's order."""
        if self.front(tensor) != tensor.name:
            self.add("Transpose", [self.front(tensor)], tensor.name, perm=LAST)
        return self.info(tensor.name, tensor, tensor.shape)

    def front(self, tensor: Tensor) -> str:
        """The name that a node computes a tensor under: an image that leaves is turned behind."""
        leaves = len(tensor.shape) == 4 and tensor.name in self.program.outputs
        return (
            f"{tensor.name}/{_FRONT}"
            if leaves and tensor.name not in self.channels_last
            else (tensor.name)
        )

    def info(self, name: str, tensor: Tensor, shape: tuple) -> Any:
        """How the file declares a tensor."""
        helper = self.onnx.helper
        # ONNX counts in 64 bits what a program does in 32: the index of a class.
        word = "INT64" if tensor.quantization is None else tensor.dtype.upper()
        word = {"FLOAT32": "FLOAT"}.get(word if tensor.dtype != "float32" else "FLOAT32", word)
        sizes = ["n" if size is None else size for size in shape]
        kind = getattr(self.onnx.TensorProto, word)
        return helper.make_tensor_value_info(name, kind, sizes)

    def add(
        self, kind: str, inputs: list[str], name: str, domain: str = "", **attributes: object
    ) -> str:
        """Add a node; returns the name of its output."""
        node = self.onnx.helper.make_node(
            kind, inputs, [name], name=name, domain=domain, **attributes
        )
        self.nodes.append(node)
        return name

    def computes(self, tensor: Tensor, *, last: bool = False) -> str:
        """The name of a node's output, its shape noted: an image has its channels in front."""
        shape = tensor.shape
        if len(shape) == 4 and not last:
            shape = tuple(shape[axis] for axis in FIRST)
        elif len(shape) == 4:
            self.channels_last.add(tensor.name)
        name = self.front(tensor)
        self.shapes[name] = self.info(name, tensor, shape)
        return name

    def first(self, tensor: Tensor) -> str:
        """A tensor with the channels of an image in front."""
        if tensor.name not in self.channels_last:
            return self.front(tensor)
        return self._turned(tensor, _FRONT, FIRST)

    def last(self, tensor: Tensor) -> str:
        """A tensor with the channels of an image behind, as in the program."""
        trivial = len(tensor.shape) != 4 or tensor.shape[1:3] == (1, 1) or tensor.shape[3] == 1
        if trivial or tensor.name in self.channels_last:
            return self.front(tensor)
        return self._turned(tensor, "channels_last", LAST)

    def _turned(self, tensor: Tensor, word: str, order: tuple[int, ...]) -> str:
        name = f"{tensor.name}/{word}"
        if name not in self.shapes:
            source = self.front(tensor) if order == LAST else tensor.name
            self.add("Transpose", [source], name, perm=order)
            shape = tensor.shape
            if order == FIRST:
                shape = tuple(shape[axis] for axis in FIRST)
            self.shapes[name] = self.info(name, tensor, shape)
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """The name of a constant, added where it is new."""
        if name not in self.constants:
            self.constants[name] = self.onnx.numpy_helper.from_array(values, name)
        return name

    def units(self, tensor: Tensor) -> list[str]:
        """Names of a tensor's scale and zero point, as constants."""
        units = tensor.units
        scale = units.scale.value
        if (scale.astype(np.float32) != scale).any():
            raise NotExpressible(
                f"{tensor}: ONNX's scales are float32, got {np.atleast_1d(scale)[:3]}; StableHLO "
                "holds any"
            )
        dtype = np.dtype(tensor.dtype)
        zero = np.broadcast_to(units.zero_point.value, scale.shape).astype(dtype)
        return [
            self.constant(f"{tensor.name}/scale", scale.astype(np.float32)),
            self.constant(f"{tensor.name}/zero_point", zero),
        ]
