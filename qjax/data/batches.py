"""Which images come when, and how they are moved about: functions of seed, epoch and step only.

Nothing is carried from step to step, so a resumed run sees exactly what an unbroken one sees.
"""

import numpy as np
from jaxtyping import Int32, UInt8

from qjax.data.dataset import Augmentation, require_count

_ORDER, _AUGMENT, _CROP = 0, 1, 2
_LARGEST_WORD = 2**32 - 1


def epoch_order(seed: int, epoch: int, n: int) -> Int32[np.ndarray, " n"]:
    """The order of `n` images in an epoch, a permutation of 0 to `n - 1`.

    Args:
        seed: of the run, 0 to 2^32 - 1.
        epoch: counted from 0.
        n: images in the train split, at least 1.
    """
    require_count("n", n, 1)
    return _generator(_ORDER, seed, epoch, 0).permutation(n).astype(np.int32)


def batch_indices(
    order: Int32[np.ndarray, " n"], batch_size: int, drop_last: bool = True
) -> list[Int32[np.ndarray, " b"]]:
    """`order` cut into batches.

    Args:
        order: positions of images, in the order in which they come.
        batch_size: images a batch, at least 1.
        drop_last: leave out a last batch that is not full, so that all have one shape.

    Raises:
        ValueError: nothing would be left.
    """
    require_count("batch_size", batch_size, 1)
    if drop_last and batch_size > len(order):
        raise ValueError(
            f"batch_size must be 1-{len(order)}, the number of images, where an incomplete last "
            f"batch is dropped, got {batch_size}"
        )
    end = len(order) - len(order) % batch_size if drop_last else len(order)
    return [order[start : start + batch_size] for start in range(0, end, batch_size)]


def step_generator(seed: int, epoch: int, step: int) -> np.random.Generator:
    """The random generator of one step's augmentation.

    Args:
        seed: of the run, 0 to 2^32 - 1.
        epoch: counted from 0.
        step: counted from 0 within the epoch.
    """
    return _generator(_AUGMENT, seed, epoch, step)


def image_generator(seed: int, epoch: int, image: int) -> np.random.Generator:
    """The random generator of one image's crop.

    Args:
        seed: of the run, 0 to 2^32 - 1.
        epoch: counted from 0.
        image: position in the train split.
    """
    return _generator(_CROP, seed, epoch, image)


def augment(
    images: UInt8[np.ndarray, "n h w c"],
    augmentation: Augmentation,
    generator: np.random.Generator,
) -> UInt8[np.ndarray, "n h w c"]:
    """Each image shifted and mirrored as `augmentation` allows, independently of the others.

    A shift of up to `pad` pixels each way, the uncovered border black, is the same as cutting the
    original size out of an image padded by `pad`.
    """
    count, height, width, _ = images.shape
    if pad := augmentation.pad:
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        rows, columns = generator.integers(0, 2 * pad + 1, (2, count))
        images = windows.transpose(0, 1, 2, 4, 5, 3)[np.arange(count), rows, columns]
    if augmentation.flip:
        mirrored = np.flatnonzero(generator.integers(0, 2, count))
        images = images.copy()
        images[mirrored] = images[mirrored, :, ::-1]
    return images


def _generator(purpose: int, seed: int, epoch: int, step: int) -> np.random.Generator:
    # Four words of 32 bits always: a shorter or longer list could seed the same stream as another.
    for field, value in (("seed", seed), ("epoch", epoch), ("step", step)):
        require_count(field, value, 0, _LARGEST_WORD)
    return np.random.Generator(np.random.PCG64([purpose, seed, epoch, step]))
