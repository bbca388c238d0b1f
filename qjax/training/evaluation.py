"""Accuracy of a network over a split, in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, UInt8

from qjax.integerize import PixelInput


class Evaluator:
    """Predicted classes of a float or simulated model, compiled once for a graph definition.

    Args:
        graph: evaluation-mode graph definition of the model.
        pixels: how uint8 pixels become the model's input.
    """

    def __init__(self, graph: nnx.GraphDef, pixels: PixelInput):
        @jax.jit
        def predict(states: tuple, images: Array) -> Array:
            logits = nnx.merge(graph, *states, copy=True)(pixels.normalise(images))
            return jnp.argmax(logits, -1).astype(jnp.int32)

        self.predict = predict

    def classes(self, states: tuple, batches: Iterable[UInt8[np.ndarray, "n h w c"]]) -> np.ndarray:
        """Class index of each image; every batch but the last has the same number."""
        # The last batch is filled up, so that one compiled program serves all.
        found, size = [], 0
        for batch in batches:
            size = max(size, len(batch))
            missing = size - len(batch)
            filled = (
                np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
            )
            found.append(np.asarray(self.predict(states, filled))[: len(batch)])
        return np.concatenate(found)

    def accuracy(
        self, states: tuple, batches: Iterable[UInt8[np.ndarray, "n h w c"]], labels: np.ndarray
    ) -> float:
        """Fraction of images whose class is right."""
        return float(np.mean(self.classes(states, batches) == labels))
