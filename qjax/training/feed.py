"""Where a step's images come from: the device that holds the whole split, or a stream of files.

Both follow the same order, `qjax.data.batches.epoch_order`, and both start at any step.
"""

from __future__ import annotations

from collections.abc import Generator

import jax.numpy as jnp

from qjax.data.batches import batch_indices, epoch_order
from qjax.data.dataset import Dataset
from qjax.data.imagefolder import ImageFolder
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
        count = len(self.labels)
        step = first
        while step < last:
            epoch, position = divmod(step, count // self.batch_size)
            order = batch_indices(epoch_order(self.seed, epoch, count), self.batch_size)
            for index in order[position : position + last - step]:
                yield Batch(self.images, self.labels, jnp.asarray(index))
                step += 1


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
