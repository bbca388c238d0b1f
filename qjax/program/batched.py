"""Programs on samples that are stacked, whatever first axis the file gives its tensors."""

from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from qjax.program.program import Program

type Values = Mapping[str, np.ndarray]
"""Tensors by name, (samples, *shape in the file)."""


class Batched:
    """A program on samples stacked as the runtime gives them, (samples, *shape in the file)."""

    def __init__(self, program: Program, function: Callable[[Values], jax.Array]) -> None:
        self.program = program
        compiled = jax.jit(function)
        free = program[program.inputs[0]].shape[:1] == (None,)
        self._call = self._together(compiled) if free else self._apart(compiled)

    def _together(self, compiled) -> Callable[[Values], np.ndarray]:
        # The file's first axis of one makes way for the samples.
        def call(values: Values) -> np.ndarray:
            given = {name: np.squeeze(values[name], 1) for name in self.program.inputs}
            return np.asarray(compiled(given))[:, None]

        return call

    def _apart(self, compiled) -> Callable[[Values], np.ndarray]:
        def call(values: Values) -> np.ndarray:
            count = len(values[self.program.inputs[0]])
            return np.stack([np.asarray(compiled(sample)) for sample in self._each(values, count)])

        return call

    def _each(self, values: Values, count: int) -> Iterator[dict[str, np.ndarray]]:
        for place in range(count):
            yield {name: values[name][place] for name in self.program.inputs}

    def __call__(self, values: Values) -> np.ndarray:
        """Its output, (samples, *shape in the file)."""
        return self._call(values)
