"""TFLite's interpreter with its reference kernels, every tensor kept: what imports must equal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qjax.program.extras import require


class Reference:
    """A .tflite file in LiteRT under `BUILTIN_REF`, one sample at a time.

    Args:
        file: its path, or what it holds.

    Raises:
        ImportError: ai-edge-litert is not installed.
        ValueError: LiteRT does not take the file.
    """

    def __init__(self, file: str | Path | bytes) -> None:
        litert = require("ai_edge_litert.interpreter", "ai-edge-litert")
        try:
            self._interpreter: Any = litert.Interpreter(
                model_content=file if isinstance(file, bytes) else Path(file).read_bytes(),
                experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
                experimental_preserve_all_tensors=True,
            )
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"LiteRT does not run the file: {error}") from error
        self.inputs = [int(entry["index"]) for entry in self._interpreter.get_input_details()]

    def run(self, inputs: Sequence[np.ndarray], numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """Tensors of some samples.

        Args:
            inputs: for each input of the file, samples of its shape, (samples, ...); an axis of one
                in front of the sample's own is the samples' axis.
            numbers: which tensors to return.

        Returns:
            By number, (samples, *shape).

        Raises:
            ValueError: LiteRT fails on them.
        """
        try:
            return self._run(inputs, numbers)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"LiteRT does not run the file: {error}") from error

    def _run(self, inputs: Sequence[np.ndarray], numbers: Sequence[int]) -> dict[int, np.ndarray]:
        kept: dict[int, list[np.ndarray]] = {number: [] for number in numbers}
        for sample in zip(*inputs, strict=True):
            for number, value in zip(self.inputs, sample, strict=True):
                self._interpreter.set_tensor(number, value)
            self._interpreter.invoke()
            for number in numbers:
                kept[number].append(self._interpreter.get_tensor(number))
        return {number: np.stack(values) for number, values in kept.items()}
