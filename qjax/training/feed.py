"""Where a step's images come from: the device that holds the whole split, or a stream of files.

Both follow the same order, `qjax.data.batches.epoch_order`, and both start at any step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import jax.numpy as jnp
import numpy as np

from qjax.data.batches import batch_indices, epoch_order
from qjax.data.dataset import Dataset
from qjax.data.imagefolder import ImageFolder
from qjax.training.calls import in_calls
from qjax.training.step import Batch

Images = Dataset | ImageFolder


class Resident:
    """Batches of a split that stays on the device; a step receives positions only.

    Args:
        data: with both splits in memory.
        batch_size: images a step.
        seed: of the order of images.
    """

    def __init__(self, data: Dataset, batch_size: int, seed: int):
        self.images = jnp.asarray(data.train_images)
        self.labels = jnp.asarray(data.train_labels)
        self.batch_size = batch_size
        self.seed = seed

    def batches(self, first: int, last: int) -> Generator[Batch]:
        """Those of the steps from `first` to before `last`, counted over all epochs."""
        for order in self._orders(first, last):
            for index in order:
                yield Batch(self.images, self.labels, jnp.asarray(index))

    def calls(self, first: int, last: int, length: int) -> Generator[Batch]:
        """The same, `length` steps at a time as `qjax.training.calls.scanned` takes them; a call
        ends where an epoch ends.
        """
        for order in self._orders(first, last):
            for index in in_calls(np.stack(order), length):
                yield Batch(self.images, self.labels, jnp.asarray(index))

    def _orders(self, first: int, last: int) -> Iterator[list[np.ndarray]]:
        """Indices of each step from `first` to before `last`, epoch by epoch."""
        count = len(self.labels)
        while first < last:
            epoch, position = divmod(first, count // self.batch_size)
            order = batch_indices(epoch_order(self.seed, epoch, count), self.batch_size)
            order = order[position : position + last - first]
            yield order
            first += len(order)


class Streamed:
    """Batches that are decoded while the device computes.

    Args:
        data: image files.
        batch_size: images a step.
        seed: of the order of images and of their crops.
    """

    def __init__(self, data: ImageFolder, batch_size: int, seed: int):
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.whole = jnp.arange(batch_size, dtype=jnp.int32)

    def batches(self, first: int, last: int) -> Generator[Batch]:
        """Those of the steps from `first` to before `last`, counted over all epochs."""
        for images, labels in self.data.train_batches(self.seed, self.batch_size, first, last):
            yield Batch(jnp.asarray(images), jnp.asarray(labels), self.whole)


def feed(data: Images, batch_size: int, seed: int) -> Resident | Streamed:
    """The way that fits the data."""
    return (Resident if isinstance(data, Dataset) else Streamed)(data, batch_size, seed)  # pyright: ignore
