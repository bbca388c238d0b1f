"""The IDX format of MNIST and its successors: big-endian sizes, then the bytes."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from qjax.data.source import Arrays

IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_UNSIGNED_BYTE = 0x08


def read_idx_folder(folder: Path) -> Arrays:
    """The four IDX files of a folder, each plain or compressed, one channel added to images."""
    images, labels, test_images, test_labels = (
        read_idx(_present(folder, name), axes=3 if "images" in name else 1) for name in IDX_FILES
    )
    return Arrays(images[..., None], labels, test_images[..., None], test_labels)


def read_idx(path: Path, axes: int) -> np.ndarray:
    """One IDX file of unsigned bytes.

    Raises:
        ValueError: the header, the number of axes or the length is not as it must be.
    """
    opener = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with opener(path, "rb") as file:
            header = file.read(4 + 4 * axes)
            if header[:4] != bytes([0, 0, _UNSIGNED_BYTE, axes]) or len(header) < 4 + 4 * axes:
                raise ValueError(f"{path} is not an IDX file of unsigned bytes with {axes} axes")
            shape = struct.unpack(f">{axes}I", header[4:])
            content = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); get it again") from None
    if len(content) != math.prod(shape):
        raise ValueError(
            f"{path} must hold {math.prod(shape)} bytes after its header, as that says, "
            f"got {len(content)}; get it again"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _present(folder: Path, name: str) -> Path:
    for candidate in (folder / name.removesuffix(".gz"), folder / name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{folder} holds neither {name.removesuffix('.gz')} nor {name}")
