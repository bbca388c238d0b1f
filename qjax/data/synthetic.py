"""A made-up set for smoke tests: each class is a coarse random pattern, each image adds noise.

It shows that code runs and that a network learns; it says nothing of any method's accuracy.
"""

import math

import numpy as np

from qjax.data.dataset import NO_AUGMENTATION, Augmentation, Dataset, dataset_of, require_count
from qjax.data.source import Arrays, digest, fingerprint

# Pattern cells an edge: coarse enough to survive convolutions and pooling.
_CELLS = 4
_LARGEST_SEED = 2**32 - 1


def load(
    height: int = 16,
    width: int = 16,
    channels: int = 1,
    classes: int = 10,
    train_size: int = 512,
    test_size: int = 128,
    noise: float = 0.15,
    seed: int = 0,
    augmentation: Augmentation = NO_AUGMENTATION,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> Dataset:
    """Class patterns plus noise, the same for the same arguments.

    Args:
        height: of an image in pixels, at least 1.
        width: of an image in pixels, at least 1.
        channels: of an image, at least 1.
        classes: number of classes, 2-256, equally frequent as far as the sizes allow.
        train_size: training images, at least 1.
        test_size: test images, at least 1.
        noise: standard deviation of the noise as a fraction of the pixel range, 0 or more.
        seed: 0 to 2^32 - 1.
        augmentation: what training may do to an image; nothing by default.
        train_limit: first so many training images only; None keeps all.
        test_limit: first so many test images only; None keeps all.
    """
    sizes = {"height": height, "width": width, "channels": channels}
    for field, size in {**sizes, "train_size": train_size, "test_size": test_size}.items():
        require_count(f"{field} of synthetic", size, 1)
    require_count("classes of synthetic", classes, 2, 256)
    require_count("seed of synthetic", seed, 0, _LARGEST_SEED)
    if not math.isfinite(noise) or noise < 0:
        raise ValueError(f"noise of synthetic must be finite and 0 or more, got {noise}")
    patterns = _patterns(_stream(seed, 0), classes, (height, width, channels))
    train = _noisy(_stream(seed, 1), patterns, train_size, noise)
    test = _noisy(_stream(seed, 2), patterns, test_size, noise)
    arrays = Arrays(*train, *test)
    return dataset_of(
        arrays,
        name="synthetic",
        classes=classes,
        source=f"synthetic patterns and noise, seed {seed}; no real images",
        sha256=fingerprint([digest(array) for array in arrays]),
        licence="synthetic, free of rights",
        augmentation=augmentation,
    ).limit(train_limit, test_limit)


def _stream(seed: int, purpose: int) -> np.random.Generator:
    """Patterns, train and test noise are independent, so that a size changes only its split."""
    return np.random.Generator(np.random.PCG64([seed, purpose]))


def _patterns(random: np.random.Generator, classes: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixel values (classes, h, w, c) between 0 and 255, constant on coarse cells."""
    height, width, channels = shape
    coarse = random.uniform(0, 255, (classes, _CELLS, _CELLS, channels))
    rows = np.arange(height) * _CELLS // height
    columns = np.arange(width) * _CELLS // width
    return coarse[:, rows][:, :, columns]


def _noisy(
    random: np.random.Generator, patterns: np.ndarray, size: int, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Images (size, h, w, c) and labels (size,), both uint8, classes in random order."""
    labels = random.permutation(np.arange(size) % len(patterns)).astype(np.uint8)
    images = patterns[labels] + random.normal(0, 255 * noise, (size, *patterns.shape[1:]))
    return np.clip(np.round(images), 0, 255).astype(np.uint8), labels
