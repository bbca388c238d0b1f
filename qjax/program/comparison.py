"""A file's operators against the runtime it was made for, each fed the runtime's own inputs.

An operator that differs is then found where it stands: its error does not spread. End to end the
program and the runtime are compared by the class they choose.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from qjax.program import tflite, tflite_file
from qjax.program.apart import Limits, opened
from qjax.program.batched import Batched, Values, batch_size
from qjax.program.imported import Import
from qjax.program.onnx import file as onnx_file
from qjax.program.onnx import read as onnx_read
from qjax.program.onnx import reference as onnxruntime
from qjax.program.program import Program
from qjax.program.run import run
from qjax.program.tensor import Tensor, code_range

type Samples = Callable[[Sequence[Tensor], int, int], list[np.ndarray]]
"""(inputs, first sample, number) -> for each input, (number, *its shape)."""


@dataclasses.dataclass
class OperatorResult:
    """How one operator fared.

    Attributes:
        kind, output: the operator.
        compared, mismatched: codes; numbers of a float output.
        largest: largest difference of a code.
    """

    kind: str
    output: str
    compared: int = 0
    mismatched: int = 0
    largest: float = 0.0

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Count one batch.

        Raises:
            ValueError: the shapes differ.
        """
        if ours.shape != theirs.shape:
            raise ValueError(
                f"{self.kind} {self.output!r} has the shape {ours.shape[1:]} a sample, the "
                f"runtime's {theirs.shape[1:]}"
            )
        difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        self.compared += ours.size
        self.mismatched += int(np.count_nonzero(difference))
        self.largest = max(self.largest, float(difference.max(initial=0.0)))


@dataclasses.dataclass
class Comparison:
    """How a file fared.

    Attributes:
        results: its operators, in order.
        unsupported: one line for each operator that a program cannot hold.
        agreeing: samples on which program and runtime choose the same class, end to end.
        samples: how many; 0 where no class could be compared.
        classes: what they choose, batch by batch: the program, the runtime.
    """

    results: list[OperatorResult]
    unsupported: tuple[str, ...]
    agreeing: int = 0
    samples: int = 0
    classes: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    def accuracy(self, labels: np.ndarray) -> dict[str, float] | None:
        """Shares of samples whose label the program and the runtime choose.

        Args:
            labels: of the samples.

        Returns:
            None where there is not one class a sample.
        """
        if not self.samples or self.samples != len(labels):
            return None
        ours, theirs = (np.concatenate(parts) for parts in zip(*self.classes, strict=True))
        return {
            "program": float(np.mean(ours == labels)),
            "runtime": float(np.mean(theirs == labels)),
        }

    def summary(self) -> dict[str, object]:
        """The line that `python -m qjax.compare` prints."""
        return {
            "operators": len(self.results),
            "compared_codes": sum(result.compared for result in self.results),
            "mismatched_codes": sum(result.mismatched for result in self.results),
            "argmax_agreement": self.agreeing / self.samples if self.samples else None,
            "unsupported": list(self.unsupported),
        }


class RuntimeUnfit(ValueError):
    """The runtime cannot be a reference on this machine; the message says why."""


def compare_tflite(
    path: str | Path, samples: int, inputs: Samples, limits: Limits | None = None
) -> Comparison:
    """Run every operator of a .tflite file on LiteRT's own tensors and count differing codes.

    Args:
        path: of the file.
        samples: how many.
        inputs: where samples come from, as `random_inputs`.
        limits: of a process that LiteRT gets of its own; without them it runs in this one, which a
            file can end.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `read_tflite`, but for operators that are
            not supported: these are listed and the others compared; or LiteRT fails.
    """
    imported = tflite.translate(tflite_file.read_file(path))
    places = {tensor.name: place for place, tensor in enumerate(imported.file.tensors)}
    with contextlib.ExitStack() as stack:

        def runtime(names: Sequence[str]) -> Runtime:
            run_file = stack.enter_context(opened("litert", Path(path).read_bytes(), limits))

            def call(batch: Sequence[np.ndarray]) -> Values:
                given = {str(place): values for place, values in enumerate(batch)}
                found = run_file([places[name] for name in names], given)
                return dict(zip(names, found, strict=True))

            return call

        return _compare(imported, runtime, samples, inputs, limits)


def compare_onnx(
    path: str | Path, samples: int, inputs: Samples, limits: Limits | None = None
) -> Comparison:
    """Run every operator of an ONNX file on onnxruntime's own tensors and count differing codes.

    Args and errors as `compare_tflite`, and

    Raises:
        RuntimeUnfit: onnxruntime's sums saturate on this processor.
    """
    imported = onnx_read.translate(onnx_file.read_file(path))
    reason = onnxruntime.why_not(imported, onnxruntime.cpu_flags())
    if reason:
        raise RuntimeUnfit(reason)
    with contextlib.ExitStack() as stack:

        def start(content: bytes) -> onnxruntime.Call:
            return stack.enter_context(opened("onnxruntime", content, limits))

        def runtime(names: Sequence[str]) -> Runtime:
            return onnxruntime.Reference(imported, names, start).run

        return _compare(imported, runtime, samples, inputs, limits)


type Runtime = Callable[[Sequence[np.ndarray]], Values]
"""Samples of each input -> the tensors that were asked for."""


def _compare(
    imported: Import,
    runtime: Callable[[Sequence[str]], Runtime],
    samples: int,
    inputs: Samples,
    limits: Limits | None,
) -> Comparison:
    singles = [_Single(program) for program in imported.singles]
    whole = None if imported.unsupported else _Whole(imported.program())
    result = Comparison([single.result for single in singles], imported.unsupported)
    if not singles:
        return result
    given = _inputs(imported)
    names = {name for single in singles for name in (*single.program.inputs, single.output)}
    names |= {tensor.name for tensor in given}
    size = batch_size([tensor for tensor in imported.tensors if tensor.name in names], limits)
    names -= {tensor.name for tensor in given}
    last = [] if whole is None else imported.outputs[:1]
    call = runtime(sorted(names | set(last)))
    for start in range(0, samples, size):
        batch = inputs(given, start, min(size, samples - start))
        values = dict(call(batch))
        values |= {tensor.name: data for tensor, data in zip(given, batch, strict=True)}
        for single in singles:
            single.add(values)
        if whole is not None and whole.has_classes:
            ours = whole.classes([values[name] for name in imported.inputs]).reshape(-1)
            theirs = np.argmax(values[imported.outputs[0]], axis=-1).reshape(-1)
            result.classes.append((ours, theirs))
            result.agreeing += int(np.sum(ours == theirs))
            result.samples += theirs.size
    return result


def _inputs(imported: Import) -> list[Tensor]:
    """The file's inputs, in its own shapes."""
    known = {tensor.name: tensor for tensor in imported.tensors}
    missing = [name for name in imported.inputs if name not in known]
    if missing:
        raise ValueError(f"input {missing[0]!r} feeds no operator that is supported")
    return [known[name] for name in imported.inputs]


class _Single:
    """One operator by itself."""

    def __init__(self, program: Program) -> None:
        (operator,) = program.operators
        self.program = program
        self.output = operator.output
        self.result = OperatorResult(operator.kind, operator.output)
        self._run = Batched(program, lambda values: run(program, values)[operator.output])

    def add(self, values: Values) -> None:
        """Compare on one batch of the runtime's tensors."""
        self.result.add(self._run(values), values[self.output])


class _Whole:
    """The program end to end."""

    def __init__(self, program: Program) -> None:
        output = program[program.outputs[0]]
        self.has_classes = bool(output.shape) and output.shape[-1] not in (None, 1)
        self._run = Batched(program, lambda values: run(program, values)[output.name])
        self._names = program.inputs

    def classes(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The index of the largest number along the last axis of the first output."""
        return np.argmax(self._run(dict(zip(self._names, inputs, strict=True))), axis=-1)


def random_inputs(seed: int = 0) -> Samples:
    """Codes over the whole range of each input; for a float input, numbers over [-1, 1]."""

    def samples(inputs: Sequence[Tensor], start: int, count: int) -> list[np.ndarray]:
        drawn = []
        for place, tensor in enumerate(inputs):
            rng = np.random.default_rng((seed, start, place))
            shape = (count, *(1 if size is None else size for size in tensor.shape))
            if tensor.dtype == "float32":
                drawn.append(rng.uniform(-1, 1, shape).astype(np.float32))
            else:
                low, high = code_range(tensor.dtype)
                drawn.append(rng.integers(low, high + 1, shape, np.dtype(tensor.dtype)))
        return drawn

    return samples


def image_inputs(images: np.ndarray) -> Samples:
    """8-bit images as a file's one input takes them: pixel, pixel - 128, or pixel / 255.

    Args:
        images: uint8 (n, h, w, c).
    """

    def samples(inputs: Sequence[Tensor], start: int, count: int) -> list[np.ndarray]:
        (tensor,) = inputs
        pixels = images[start : start + count, None]
        if pixels.shape[2:] != tensor.shape[1:] or tensor.shape[0] not in (1, None):
            raise ValueError(
                f"images of shape {images.shape[1:]} do not fit {tensor} of shape {tensor.shape}"
            )
        if tensor.dtype == "float32":
            return [pixels.astype(np.float32) / 255]
        if tensor.dtype == "int8":
            return [(pixels.astype(np.int16) - 128).astype(np.int8)]
        return [pixels.astype(tensor.dtype)]

    return samples
