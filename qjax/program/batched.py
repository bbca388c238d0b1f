"""Programs on samples that are stacked, whatever first axis the file gives its tensors."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from qjax.program.apart import Limits
from qjax.program.program import Program
from qjax.program.tensor import DTYPES, Tensor

_BATCH = 20
_PART = 8
"""The kept tensors of a batch take at most one part in so many of the memory: they are copied, and
compared as float64."""

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


def batch_size(kept: Sequence[Tensor], limits: Limits | None) -> int:
    """Samples whose tensors the memory holds, `_BATCH` at most."""
    memory = (limits or Limits()).memory
    sample = sum(tensor.elements * np.dtype(DTYPES[tensor.dtype]).itemsize for tensor in kept)
    size = memory * 2**20 // (_PART * max(sample, 1))
    if size == 0:
        needed = -(-sample * _PART // 2**20)
        raise ValueError(
            f"the tensors of one sample take {sample:,} bytes, which is more than 1/{_PART} of "
            f"memory={memory} MiB; give memory={needed} if the machine has it"
        )
    return min(size, _BATCH)
