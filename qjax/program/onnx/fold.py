"""Operators written as float ones between DequantizeLinear and QuantizeLinear (QDQ), as QLinear.

    DequantizeLinear (each operand) -> Conv -> [Relu, Clip, MaxPool, ...] -> QuantizeLinear

becomes QLinearConv, then what clamps or moves its codes: the node that onnxruntime makes of it
where its optimizations are on. A clamp that the QuantizeLinear makes anyway is left out; clamps and
moves commute with the rounding, so that no code changes. The file that comes out is what is
translated, and what the runtime is asked about.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from qjax.program.extras import require
from qjax.program.onnx.file import MICROSOFT, Node, OnnxFile
from qjax.program.onnx.graph import Unsupported, units_of
from qjax.program.onnx.groups import CLAMPS, GROUPS, INTO, MOVED, OUT, Group, Names
from qjax.program.onnx.rules import BYTES
from qjax.program.tensor import Quantization, code_range

_DEEPEST = 8
# The version of ONNX's operators from which MaxPool and Clip take bytes.
_BYTES_FROM = 12

type Step = Callable[[str, str], Node]
"""What it reads, and the name of its result -> a node."""


def folded(file: OnnxFile) -> OnnxFile:
    """A file whose groups are QLinear nodes; itself where it has none.

    What cannot be put so stays, and `notes` says why.
    """
    kinds = {node.kind for node in file.nodes}
    return _Folder(file).result() if {INTO, OUT} <= kinds else file


class _Folder:
    """One walk over a file's nodes."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.names = Names(file)
        self.notes: dict[str, str] = {}
        self.gone: set[str] = set()
        self.readers: dict[str, list[Node | None]] = {item.name: [None] for item in file.outputs}
        for node in self.names.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def result(self) -> OnnxFile:
        """The file."""
        nodes: list[Node] = []
        for node in self.names.nodes:
            try:
                made = self._group(node) if node.kind == INTO else self._passed(node)
            except ValueError as error:
                # The float operator is the one that a reader is told about.
                core = self._behind(node)[0] if node.kind == INTO else node
                self.notes.update(dict.fromkeys(core.outputs, str(error)))
                made = None
            nodes += [node] if made is None else made
        file = self.file._replace(notes=self.notes)
        if tuple(nodes) == self.file.nodes:
            return file
        nodes = _read(file, [node for node in nodes if self.gone.isdisjoint(node.outputs)])
        constants = file.constants | self.names.added
        content = _content(self.file, nodes, self.names.added)
        return file._replace(nodes=tuple(nodes), constants=constants, content=content)

    def _behind(self, last: Node) -> tuple[Node, list[Node]]:
        """The operator before a QuantizeLinear, and what clamps or moves its result, in order."""
        chain: list[Node] = []
        node = self.names.makers.get(last.inputs[0] if last.inputs else "", last)
        while node.kind in (*CLAMPS, *MOVED) and node.inputs and len(chain) < _DEEPEST:
            before = self.names.makers.get(node.inputs[0])
            if before is None or before.kind == OUT:
                break
            chain.append(node)
            node = before
        return node, chain[::-1]

    def _group(self, last: Node) -> list[Node] | None:
        """What a QuantizeLinear and the operator before it become."""
        core, chain = self._behind(last)
        if core.kind not in (*GROUPS, *CLAMPS, *MOVED):
            return None
        inner = [node.outputs[0] for node in (core, *chain)]
        if any(len(self.readers.get(name, ())) != 1 for name in inner):
            raise Unsupported(f"its result is not read by one {INTO} alone")
        output = self._output(last)
        if core.kind in GROUPS:
            group = Group(self.names, core, output)
            nodes = self._steps("", [partial(_computed, group)], chain, output, last)
        else:
            nodes = self._regridded(core, chain, output, last)
        self.gone.update(inner)
        return nodes

    def _output(self, last: Node) -> tuple[str, str]:
        """A QuantizeLinear's scale and zero point."""
        if len(last.inputs) != 3:
            raise Unsupported(f"the {INTO} behind it has no zero point")
        return last.inputs[1], last.inputs[2]

    def _regridded(
        self, core: Node, chain: list[Node], output: tuple[str, str], last: Node
    ) -> list[Node]:
        """What clamps or moves codes, behind what brings them onto another grid if need be."""
        code, *units = self.names.codes(core, 0)
        if self._told(*units) == self._told(*output):
            return self._steps(code, [], [core, *chain], output, last)
        version = last.version

        def gridded(source: str, name: str) -> Node:
            return Node(INTO, version, (source, *output), (name,), {})

        return self._steps(core.inputs[0], [gridded], [core, *chain], output, last)

    def _told(self, scale: str, zero: str) -> tuple[Quantization, str]:
        """Units and type of codes."""
        units = units_of(self.names.file, Node("", 0, (scale, zero), (), {}), 0)
        dtype = self.names.constant(zero).dtype.name
        if dtype not in BYTES:
            raise Unsupported(f"its codes are {dtype}")
        return units, dtype

    def _steps(
        self, source: str, steps: list[Step], chain: list[Node], output: tuple[str, str], last: Node
    ) -> list[Node]:
        """Nodes in a row, the last of which computes what a QuantizeLinear did.

        Args:
            source: what the first one reads.
            steps: the first ones.
            chain: the float operators that clamp or move.
            output: scale and zero point.
            last: the QuantizeLinear.
        """
        units, dtype = self._told(*output)
        steps = [*steps, *(partial(_moved, node) for node in chain if node.kind in MOVED)]
        ends = code_range(dtype)
        for node in chain:
            if node.kind in CLAMPS:
                low, high = self._ends(node, units, dtype)
                # The upper end wins, as it does in Clip.
                ends = tuple(min(max(end, low), high) for end in ends)
        if ends != code_range(dtype) or not steps:
            steps.append(self._clip(ends, dtype, last))
        nodes = []
        for place, step in enumerate(steps, start=1):
            name = last.outputs[0]
            if place < len(steps):
                name = self.names.fresh(f"{name}/step{place}")
            nodes.append(step(source, name))
            source = name
        return nodes

    def _clip(self, ends: tuple[int, ...], dtype: str, last: Node) -> Step:
        if last.version < _BYTES_FROM:
            raise Unsupported(f"Clip takes codes from version {_BYTES_FROM} on")
        given = [
            self.names.add(f"{last.outputs[0]}/{word}", np.asarray(end, dtype))
            for word, end in zip(("least", "most"), ends, strict=True)
        ]
        return lambda source, name: Node("Clip", last.version, (source, *given), (name,), {})

    def _ends(self, node: Node, units: Quantization, dtype: str) -> tuple[int, int]:
        """Codes that a ReLU or a clip of real numbers leaves."""
        reals = [-np.inf, np.inf]
        if node.kind == "Relu":
            reals[0] = 0.0
        elif node.attributes:
            raise Unsupported(f"the {node.kind} before its {INTO} has attributes")
        for place, name in enumerate(node.inputs[1:3]):
            if name:
                (reals[place],) = self.names.constant(name).reshape(-1).tolist()
        if np.isnan(reals).any():
            raise Unsupported(f"the {node.kind} before its {INTO} has an end that is no number")
        steps = np.rint(np.asarray(reals, np.float32) / np.float32(units.step)) + units.zero
        low, high = np.clip(steps, *code_range(dtype)).astype(int).tolist()
        return low, high

    def _passed(self, node: Node) -> list[Node] | None:
        """What moves codes and is read in floats: codes are moved, then read in floats."""
        if node.kind not in MOVED or not node.inputs or self._quantized(node):
            return None
        before = self.names.makers.get(node.inputs[0])
        if before is None or before.kind != OUT:
            return None
        code, *units = self.names.codes(node, 0)
        _ = self._told(*units)
        name = self.names.fresh(f"{node.outputs[0]}/codes")
        real = Node(OUT, before.version, (name, *units), node.outputs, {})
        self.names.makers[node.outputs[0]] = real
        return [_moved(node, code, name), real]

    def _quantized(self, node: Node) -> bool:
        """Whether a QuantizeLinear is all that reads a result, what clamps or moves it between."""
        for _ in range(_DEEPEST):
            readers = self.readers.get(node.outputs[0], ())
            reader = readers[0] if len(readers) == 1 else None
            if reader is None or not reader.outputs:
                return False
            if reader.kind not in (*CLAMPS, *MOVED):
                return reader.kind == INTO
            node = reader
        return False


def _computed(group: Group, source: str, name: str) -> Node:
    del source
    return GROUPS[group.core.kind](group, name)


def _moved(node: Node, source: str, name: str) -> Node:
    """A node that moves codes instead of numbers."""
    if node.kind == "MaxPool" and node.version < _BYTES_FROM:
        raise Unsupported(f"it takes codes from version {_BYTES_FROM} on")
    if None in node.attributes.values() or len(node.outputs) != 1:
        raise Unsupported("it has an attribute that is not known, or not one output")
    inputs = (source, *node.inputs[1:])
    return Node(node.kind, node.version, inputs, (name,), node.attributes)


def _read(file: OnnxFile, nodes: Sequence[Node]) -> list[Node]:
    """Nodes without each DequantizeLinear that nothing reads any more."""
    needed = {item.name for item in file.outputs} | {n for node in nodes for n in node.inputs}
    return [node for node in nodes if node.kind != OUT or not needed.isdisjoint(node.outputs)]


def _content(file: OnnxFile, nodes: Sequence[Node], added: Mapping[str, np.ndarray]) -> bytes:
    """The file with other nodes and more constants."""
    onnx = require("onnx", "onnx")
    model = onnx.ModelProto()
    model.ParseFromString(file.content)
    old: dict[tuple[str, ...], Any] = {}
    for item in model.graph.node:
        old.setdefault(tuple(item.output), item)
    kept = {node.outputs for node in file.nodes}
    written = [item for outputs, item in old.items() if outputs not in kept]
    before = {id(node) for node in file.nodes}
    for node in nodes:
        if id(node) in before:
            written.append(old[node.outputs])
            continue
        domain, _, word = node.kind.rpartition(".")
        written.append(
            onnx.helper.make_node(
                word, node.inputs, node.outputs, node.outputs[0], domain=domain, **node.attributes
            )
        )
    copies = [onnx.NodeProto.FromString(item.SerializeToString()) for item in written]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(values, name) for name, values in added.items()
    )
    if all(entry.domain != MICROSOFT for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    return model.SerializeToString()
