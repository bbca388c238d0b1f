"""Accuracy of a network over a split, in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, UInt8

from qjax.integerize import PixelInput
from qjax.training.devices import ONE, Devices

AHEAD = 4
"""Batches that may wait on the device while the host fetches the next one."""


def filled(batch: UInt8[np.ndarray, "n h w c"], size: int) -> UInt8[np.ndarray, "{size} h w c"]:
    """A batch with its last image repeated, so that one compiled program serves a last batch too.

    Args:
        batch: at least one image, at most `size`.
    """
    return np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)), "edge")


class Evaluator:
    """Predicted classes of a float or simulated model, compiled once for a graph definition.

    Args:
        graph: evaluation-mode graph definition of the model.
        pixels: how uint8 pixels become the model's input.
        devices: that share a batch.
    """

    def __init__(self, graph: nnx.GraphDef, pixels: PixelInput, devices: Devices = ONE):
        self._graph, self._pixels, self._devices = graph, pixels, devices
        self._compiled: dict[Hashable, Callable] = {}

    def _predict(self, structure: Any) -> Callable[[list, Array], Array]:
        def predict(leaves: list[Array], images: Array) -> Array:
            states = jax.tree.unflatten(structure, leaves)
            model = nnx.merge(self._graph, *states, copy=True)
            return jnp.argmax(model(self._pixels.normalise(images)), -1).astype(jnp.int32)

        return self._devices.jit(predict)

    def classes(self, states: tuple, batches: Iterable[np.ndarray | Array]) -> np.ndarray:
        """Class index of each image.

        Args:
            states: of the model.
            batches: uint8 images, the same number in each; on the host or on the device.
        """
        # Taken apart once: a State costs a call about as much as a small network's forward pass.
        leaves, structure = jax.tree.flatten(states)
        if structure not in self._compiled:
            self._compiled[structure] = self._predict(structure)
        predict = self._compiled[structure]
        found: list[np.ndarray | Array] = []
        for batch in batches:
            found.append(predict(leaves, batch))
            if len(found) > AHEAD:
                found[-1 - AHEAD] = np.asarray(found[-1 - AHEAD])
        return np.concatenate(found)

    def accuracy(
        self, states: tuple, batches: Iterable[np.ndarray | Array], labels: np.ndarray
    ) -> float:
        """Fraction of images whose class is right; images beyond the labels do not count."""
        return float(np.mean(self.classes(states, batches)[: len(labels)] == labels))
