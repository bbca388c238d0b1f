"""Accuracy of a network over a split, in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from qjax.integerize import PixelInput


def batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The images in order, at most `size` at a time."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


class Evaluator:
    """Predicted classes of a float or simulated model, compiled once for a graph definition.

    Args:
        graph: evaluation-mode graph definition of the model.
        pixels: how uint8 pixels become the model's input.
        size: images at a time.
    """

    def __init__(self, graph: nnx.GraphDef, pixels: PixelInput, size: int = 256):
        self.size = size

        @jax.jit
        def predict(states: tuple, images: Array) -> Array:
            logits = nnx.merge(graph, *states, copy=True)(pixels.normalise(images))
            return jnp.argmax(logits, -1).astype(jnp.int32)

        self.predict = predict

    def classes(self, states: tuple, images: np.ndarray) -> np.ndarray:
        """Class index of each image."""
        # The last batch is filled up, so that one compiled program serves all.
        found = []
        for batch in batches(images, self.size):
            missing = min(self.size, len(images)) - len(batch)
            filled = (
                np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
            )
            found.append(np.asarray(self.predict(states, filled))[: len(batch)])
        return np.concatenate(found)

    def accuracy(self, states: tuple, images: np.ndarray, labels: np.ndarray) -> float:
        """Fraction of images whose class is right."""
        return float(np.mean(self.classes(states, images) == labels))
