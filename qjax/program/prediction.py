"""What a CPU without VNNI instructions would make of a program: codes, layer by layer, and classes.

Such CPUs add two products of an unsigned and a signed byte in 16 bits (`core/saturation.py`), which
onnxruntime, oneDNN and FBGEMM live with. Nothing of that CPU is needed here.
"""

import dataclasses
from collections.abc import Iterable

import jax
import numpy as np
from jaxtyping import Array

from qjax.program import ops
from qjax.program.base import SATURATING
from qjax.program.program import Program
from qjax.program.run import run, step


@dataclasses.dataclass
class Prediction:
    """Counts over some samples.

    Attributes:
        samples: how many.
        exact, saturating: right classes.
        agreeing: samples whose class stays.
        changed: by layer, fed with exact codes: share of its codes that saturation changes.
    """

    samples: int
    exact: int
    saturating: int
    agreeing: int
    changed: dict[str, float]

    def summary(self) -> dict[str, object]:
        """The line that `python -m qjax.saturation` prints."""
        return {
            "samples": self.samples,
            "accuracy": self.exact / self.samples,
            "accuracy_saturating": self.saturating / self.samples,
            "class_agreement": self.agreeing / self.samples,
            "changed_codes": {name: round(share, 6) for name, share in self.changed.items()},
        }


def predict(program: Program, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Prediction:
    """Run a program exactly and with saturation.

    Args:
        program: with one input, and logits or classes as its last output.
        batches: (inputs, labels).

    Raises:
        ValueError: no batch.
    """
    layers = [op for op in program.operators if isinstance(op, ops.Conv2D | ops.Dense)]

    @jax.jit
    def both(inputs: Array) -> tuple[Array, Array, dict[str, Array]]:
        values = run(program, inputs, all_tensors=True)
        changed = {
            op.output: (step(program, op, values, SATURATING) != values[op.output]).mean()
            for op in layers
        }
        other = run(program, inputs, products=SATURATING)
        return values[program.outputs[-1]], other[program.outputs[-1]], changed

    found = Prediction(0, 0, 0, 0, {op.output: 0.0 for op in layers})
    for inputs, labels in batches:
        exact, other, changed = both(inputs)
        classes = [_classes(np.asarray(value)) for value in (exact, other)]
        found.samples += len(labels)
        found.exact += int(np.sum(classes[0] == labels))
        found.saturating += int(np.sum(classes[1] == labels))
        found.agreeing += int(np.sum(classes[0] == classes[1]))
        for name, share in changed.items():
            found.changed[name] += float(share) * len(labels)
    if not found.samples:
        raise ValueError("a prediction needs samples, got none")
    found.changed = {name: share / found.samples for name, share in found.changed.items()}
    return found


def _classes(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 1 else np.argmax(values, -1)
