"""Where a step's images come from: the device that holds the whole split, or a stream of files.

Both follow the same order, `qjax.data.batches.epoch_order`, and both start at any step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from qjax.data.batches import batch_indices, epoch_order
from qjax.data.dataset import Dataset
from qjax.data.imagefolder import ImageFolder
from qjax.training.calls import in_calls
from qjax.training.devices import ONE, Devices
from qjax.training.evaluation import filled
from qjax.training.programs import Programs
from qjax.training.step import Batch

Images = Dataset | ImageFolder


class OnDevice:
    """A data set's arrays on the devices, which the runs that use it share.

    Args:
        data: with both splits in memory.
        devices: that share a batch; each holds the train split.

    Attributes:
        images, labels: of the train split.
    """

    def __init__(self, data: Dataset, devices: Devices = ONE):
        self._data, self._devices = data, devices
        arrays = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
        self.images, self.labels = devices.replicate(arrays)
        self._held_out: dict[int, list[Array]] = {}

    def held_out(self, size: int) -> Sequence[Array]:
        """The held-out images, `size` at a time, the last ones filled up."""
        if size not in self._held_out:
            batches = self._data.test_batches(size)
            self._held_out[size] = [self._devices.split(filled(batch, size)) for batch in batches]
        return self._held_out[size]


class Resident:
    """Batches of a split that stays on the device, whole on each of several; a step receives
    positions only.

    Args:
        data: with both splits in memory.
        batch_size: images a step.
        seed: of the order of images.
        arrays: of the data, where they are on the devices already.
        devices: that share a batch.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        seed: int,
        arrays: OnDevice | None = None,
        devices: Devices = ONE,
    ):
        self.data = data
        self.devices = devices
        self.arrays = OnDevice(data, devices) if arrays is None else arrays
        self.images, self.labels = self.arrays.images, self.arrays.labels
        self.batch_size = batch_size
        self.seed = seed

    def batches(self, first: int, last: int) -> Generator[Batch]:
        """Those of the steps from `first` to before `last`, counted over all epochs."""
        for order in self._orders(first, last):
            for index in order:
                yield Batch(self.images, self.labels, self.devices.split(index))

    def calls(self, first: int, last: int, length: int) -> Generator[Batch]:
        """The same, `length` steps at a time as `qjax.training.calls.scanned` takes them; a call
        ends where an epoch ends.
        """
        for order in self._orders(first, last):
            for index in in_calls(np.stack(order), length):
                yield Batch(self.images, self.labels, self.devices.split(index, axis=1))

    def pixels(self, step: int) -> UInt8[np.ndarray, "n h w c"]:
        """The images of a step."""
        ((index,),) = self._orders(step, step + 1)
        return self.data.train_images[index]

    def held_out(self, size: int) -> Sequence[Array]:
        """The held-out images, about `size` at a time, the last ones filled up; they stay on the
        device too.
        """
        size = self.devices.filled(min(size, len(self.data.test_labels)))
        return self.arrays.held_out(size)

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
    """Batches that are decoded while the device computes; each of several processes decodes its
    part.

    Args:
        data: image files.
        batch_size: images a step.
        seed: of the order of images and of their crops.
        devices: that share a batch.
    """

    def __init__(self, data: ImageFolder, batch_size: int, seed: int, devices: Devices = ONE):
        self.data = data
        self.devices = devices
        self.batch_size = batch_size
        self.seed = seed

    def batches(self, first: int, last: int) -> Generator[Batch]:
        """Those of the steps from `first` to before `last`, counted over all epochs."""
        part, joined = self.devices.part, self.devices.joined
        own = self.data.train_batches(self.seed, self.batch_size, first, last, part)
        for images, labels in own:
            yield Batch(joined(images), joined(labels), None)

    def pixels(self, step: int) -> UInt8[np.ndarray, "n h w c"]:
        """The images of a step."""
        ((images, _),) = self.data.train_batches(self.seed, self.batch_size, step, step + 1)
        return images

    def held_out(self, size: int) -> Iterator[Array]:
        """The held-out images, about `size` at a time, the last ones filled up."""
        size = self.devices.filled(min(size, len(self.data.test_labels)))
        part = self.devices.part
        for batch in self.data.test_batches(size, part):
            yield self.devices.joined(filled(batch, part.images(size)))


def feed(
    data: Images,
    batch_size: int,
    seed: int,
    programs: Programs | None = None,
    devices: Devices = ONE,
) -> Resident | Streamed:
    """The way that fits the data.

    Args:
        data: in memory, or files.
        batch_size: images a step.
        seed: of the order of images.
        programs: where runs of the same data find its arrays; None for arrays of its own.
        devices: that share a batch.
    """
    if not isinstance(data, Dataset):
        return Streamed(data, batch_size, seed, devices)
    programs = Programs() if programs is None else programs
    arrays = programs.get(("data", data, devices), lambda: OnDevice(data, devices))
    return Resident(data, batch_size, seed, arrays, devices)
