"""onnxruntime, every tensor kept: what ONNX files of ours must equal.

Its kernels for U8S8 products differ between processors. With VNNI (or AMX) instructions sums are
exact; without, two neighbouring products meet in 16 bits and saturate, unless every weight is
within +-64. Elsewhere than on x86 its additions and means follow other rules. `why_not` says so.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qjax.program.extras import require
from qjax.program.imported import Import
from qjax.program.onnx.graph import FIRST, LAST, Graph

type Call = Callable[[Sequence[str], Mapping[str, np.ndarray]], Sequence[np.ndarray]]
"""(names, inputs by name) -> the tensors of these names."""

_EXACT = {"avx512_vnni", "avx_vnni", "amx_int8"}
_SAFE = 64


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What the processor can do, as Linux tells; empty where it does not."""
    if not path.exists():
        return set()
    lines = path.read_text(errors="replace").splitlines()
    return {word for line in lines if line.startswith("flags") for word in line.split()[2:]}


def why_not(imported: Import, flags: set[str]) -> str:
    """Why onnxruntime on this processor is no reference for a file; empty where it is one.

    Args:
        imported: the file.
        flags: as `cpu_flags`.
    """
    if "avx2" not in flags:
        return (
            "onnxruntime's quantized kernels are compared on x86 processors with AVX2 under Linux; "
            "this one is not known to be one"
        )
    widest = max(
        (_widest(tensor.constant) for tensor in imported.tensors if _is_weight(tensor)), default=0
    )
    if flags & _EXACT or widest <= _SAFE:
        return ""
    return (
        f"this processor has no VNNI instructions ({', '.join(sorted(_EXACT))}): onnxruntime's "
        f"sums saturate in 16 bits, since weights reach {widest}, beyond +-{_SAFE}"
    )


def _is_weight(tensor: Any) -> bool:
    return tensor.data is not None and tensor.dtype in ("int8", "uint8") and len(tensor.shape) > 1


def _widest(values: np.ndarray) -> int:
    return int(np.abs(values.astype(np.int32)).max(initial=0))


class Reference:
    """A file with every tensor an output, its nodes run one by one as they stand.

    Args:
        imported: the file, whose `file` is its `Graph`.
        names: the program's tensors to keep.
        start: what a file holds -> onnxruntime with it.

    Raises:
        ImportError: onnx is not installed.
    """

    def __init__(
        self,
        imported: Import,
        names: Sequence[str],
        start: Callable[[bytes], Call],
    ) -> None:
        graph: Graph = imported.file
        onnx = require("onnx", "onnx")
        self.graph = graph
        inputs = {declared.name for declared in graph.file.inputs}
        self.names = [name for name in names if name not in inputs]
        model = onnx.ModelProto()
        model.ParseFromString(graph.file.content)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names)
        self._run = start(model.SerializeToString())

    def run(self, inputs: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        """Tensors of some samples.

        Args:
            inputs: for each input of the file, (samples, rows, ...) in the program's order of axes;
                rows are 1 where the first axis is the batch.

        Returns:
            By name, (samples, rows, ...) in the same order.

        Raises:
            ValueError: onnxruntime fails on them.
        """
        declared = self.graph.file.inputs
        if all(item.shape[:1] == (None,) for item in declared):
            found = self._call([values[:, 0] for values in inputs])
            return {name: values[:, None] for name, values in found.items()}
        samples = [self._call(list(sample)) for sample in zip(*inputs, strict=True)]
        return {name: np.stack([sample[name] for sample in samples]) for name in self.names}

    def _call(self, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
        feeds = {}
        for declared, values in zip(self.graph.file.inputs, inputs, strict=True):
            first = self.graph.known[declared.name].first
            feeds[declared.name] = values.transpose(FIRST) if first else values
        found = dict(zip(self.names, self._run(self.names, feeds), strict=True))
        known = self.graph.known
        return {
            name: values.transpose(LAST) if known[name].first else values
            for name, values in found.items()
        }
