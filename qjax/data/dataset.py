"""The value every loader returns: images, labels and what is needed to use and to cite them."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from qjax.data.source import Arrays

_LARGEST_SHIFT = 64


def require_count(field: str, value: object, least: int, most: int | None = None):
    """Reject what is not a whole number from `least` to `most`, naming the field."""
    allowed = f"a whole number from {least}" + ("" if most is None else f" to {most}")
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{field} must be {allowed}, got {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{field} must be {allowed}, got {value}")


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image before the network sees it.

    Attributes:
        pad: largest shift in pixels, 0-64; the uncovered border is black (pixel 0).
        flip: whether an image is mirrored left to right with probability one half.
    """

    pad: int = 0
    flip: bool = False

    def __post_init__(self):
        require_count("Augmentation.pad", self.pad, 0, _LARGEST_SHIFT)
        if not isinstance(self.flip, bool):
            raise TypeError(f"Augmentation.flip must be true or false, got {self.flip!r}")


NO_AUGMENTATION = Augmentation()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Two splits of labelled 8-bit images. The arrays are read-only views of what was given.

    Attributes:
        name: short name as in `conf/data`.
        train_images: pixels 0-255, channels last.
        train_labels: class of each training image, 0 to `classes - 1`.
        test_images: held-out images, of the same height, width and channels.
        test_labels: class of each held-out image.
        classes: number of classes, at least 2.
        mean: per channel, of pixel/255 over the whole train split.
        std: per channel, of pixel/255 over the whole train split, positive.
        source: where the files came from, in words.
        sha256: fingerprint of the published set, before any limit and padding.
        licence: what is known of the terms of use.
        augmentation: what training may do to an image.

    Raises:
        TypeError: an array is not of the stated type.
        ValueError: shapes, labels or statistics do not fit together.
    """

    name: str
    train_images: UInt8[np.ndarray, "n h w c"]
    train_labels: Int32[np.ndarray, " n"]
    test_images: UInt8[np.ndarray, "m h w c"]
    test_labels: Int32[np.ndarray, " m"]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    sha256: str
    licence: str
    augmentation: Augmentation = NO_AUGMENTATION

    def __post_init__(self):
        require_count("Dataset.classes", self.classes, 2)
        for split in ("train", "test"):
            self._check_split(split)
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"Dataset.test_images must have images of {self.train_images.shape[1:]} as the "
                f"train split has, got {self.test_images.shape[1:]}"
            )
        self._check_statistics()
        for field in ("name", "source", "licence"):
            if not getattr(self, field):
                raise ValueError(f"Dataset.{field} must be a non-empty text")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"Dataset.sha256 must be 64 hexadecimal digits, got {self.sha256!r}")
        for field in ("train_images", "train_labels", "test_images", "test_labels"):
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def _check_split(self, split: str):
        images, labels = (
            getattr(self, f"{split}_images"),
            getattr(self, f"{split}_labels"),
        )
        if images.dtype != np.uint8 or images.ndim != 4:
            raise TypeError(
                f"Dataset.{split}_images must be uint8 of four axes (n, h, w, c), "
                f"got {images.dtype} of shape {images.shape}"
            )
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise TypeError(
                f"Dataset.{split}_labels must be int32 of shape {images.shape[:1]}, one label an "
                f"image, got {labels.dtype} of shape {labels.shape}"
            )
        if 0 in images.shape:
            raise ValueError(f"Dataset.{split}_images must not be empty, got shape {images.shape}")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(
                f"Dataset.{split}_labels must be 0-{self.classes - 1}, "
                f"got values {labels.min()} to {labels.max()}"
            )

    def _check_statistics(self):
        channels = self.train_images.shape[3]
        for field in ("mean", "std"):
            values = getattr(self, field)
            if len(values) != channels or not all(math.isfinite(value) for value in values):
                raise ValueError(
                    f"Dataset.{field} must be {channels} finite numbers (channels), got {values}"
                )
        if min(self.std) <= 0:
            raise ValueError(
                f"Dataset.std must be positive, got {self.std}: a channel of the train images is "
                "constant and cannot be normalised"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of one image."""
        return self.train_images.shape[1:]

    def sample(self, count: int) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:
        """So many training images and their labels, or all there are, spread over the split."""
        available = len(self.train_labels)
        index = np.linspace(0, available - 1, min(count, available)).astype(int)
        return self.train_images[index], self.train_labels[index]

    def test_batches(self, size: int) -> Iterator[UInt8[np.ndarray, "n h w c"]]:
        """The held-out images in their order, at most `size` at a time."""
        for start in range(0, len(self.test_images), size):
            yield self.test_images[start : start + size]

    def limit(self, train: int | None = None, test: int | None = None) -> "Dataset":
        """The first images of each split only, for quick runs.

        Mean, standard deviation and fingerprint stay those of the whole set, so that a quick run
        feeds the network the same numbers as a full one; `source` says what was cut.

        Args:
            train: images kept for training, 1 to the size of the split; None keeps all.
            test: the same for the held-out split.
        """
        counts, notes = {}, [self.source]
        for split, count in (("train", train), ("test", test)):
            available = len(getattr(self, f"{split}_labels"))
            if count is not None:
                require_count(f"{split}_limit of {self.name}", count, 1, available)
                notes.append(f"first {count} {split} images only")
            counts[split] = count
        return replace(
            self,
            train_images=self.train_images[: counts["train"]],
            train_labels=self.train_labels[: counts["train"]],
            test_images=self.test_images[: counts["test"]],
            test_labels=self.test_labels[: counts["test"]],
            source=", ".join(notes),
        )

    def normalise(self, images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n h w c"]:
        """`(pixel/255 - mean) / std`, each value the float32 nearest to the exact one.

        Raises:
            TypeError: `images` are not uint8 with the dataset's channels last.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != len(self.mean):
            raise TypeError(
                f"images to normalise must be uint8 (n, h, w, {len(self.mean)}), "
                f"got {images.dtype} of shape {images.shape}"
            )
        pixels = np.arange(256, dtype=np.float64)[:, None] / 255
        # Only 256 pixels exist, so a table in float64 is both faster and exacter than arithmetic.
        table = ((pixels - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        channels = [table[images[..., channel], channel] for channel in range(len(self.mean))]
        return np.stack(channels, axis=-1)


def channel_statistics(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixel/255 per channel, from exact integer sums."""
    means, deviations = [], []
    for channel in range(images.shape[3]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), 1000):
            chunk = images[start : start + 1000, :, :, channel]
            counts += np.bincount(chunk.ravel(), minlength=256)
        total = int(counts.sum())
        first = sum(pixel * int(count) for pixel, count in enumerate(counts))
        second = sum(pixel * pixel * int(count) for pixel, count in enumerate(counts))
        means.append(first / (255 * total))
        deviations.append(math.sqrt(total * second - first * first) / (255 * total))
    return tuple(means), tuple(deviations)


def dataset_of(
    arrays: Arrays,
    *,
    name: str,
    classes: int,
    source: str,
    sha256: str,
    licence: str,
    augmentation: Augmentation,
) -> Dataset:
    """A dataset of decoded arrays, its statistics taken from the train split."""
    mean, std = channel_statistics(arrays.train_images)
    return Dataset(
        name=name,
        train_images=arrays.train_images,
        train_labels=arrays.train_labels.astype(np.int32),
        test_images=arrays.test_images,
        test_labels=arrays.test_labels.astype(np.int32),
        classes=classes,
        mean=mean,
        std=std,
        source=source,
        sha256=sha256,
        licence=licence,
        augmentation=augmentation,
    )
