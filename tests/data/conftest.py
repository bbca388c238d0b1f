"""A tiny published set of the tests' own, and a cache folder that is theirs alone."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qjax.data.idx import IDX_FILES, read_idx_folder
from qjax.data.source import Arrays, Origin, Pin, Source, digest
from tests.data.fabricate import idx_bytes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty cache folder, except for tests marked as reading the machine's own."""
    folder = tmp_path / "cache"
    if "real_cache" not in request.fixturenames:
        monkeypatch.setenv("QJAX_DATA", str(folder))
    return folder


@pytest.fixture
def real_cache() -> None:
    """Asked for by tests that read the sets fetched on this machine."""


@pytest.fixture
def arrays() -> Arrays:
    """Three training and two test images of 4x5 pixels, two classes."""
    random = np.random.Generator(np.random.PCG64(5))
    return Arrays(
        random.integers(0, 256, (3, 4, 5, 1), dtype=np.uint8),
        np.array([0, 1, 1], np.uint8),
        random.integers(0, 256, (2, 4, 5, 1), dtype=np.uint8),
        np.array([1, 0], np.uint8),
    )


@pytest.fixture
def idx_folder(tmp_path: Path, arrays: Arrays) -> Path:
    """The tiny set as two plain and two compressed IDX files."""
    folder = tmp_path / "canonical"
    folder.mkdir()
    for name, array in zip(IDX_FILES, arrays, strict=True):
        content = idx_bytes(array[..., 0] if array.ndim == 4 else array)
        if name.startswith("train"):
            (folder / name).write_bytes(gzip.compress(content))
        else:
            (folder / name.removesuffix(".gz")).write_bytes(content)
    return folder


@pytest.fixture
def tiny(arrays: Arrays) -> Callable[..., Source]:
    """Makes the description of the tiny set, with the given origins."""

    def describe(*origins: Origin) -> Source:
        first, second, third, fourth = (Pin(array.shape, digest(array)) for array in arrays)
        return Source(
            name="tiny",
            classes=2,
            homepage="the tests' own page",
            licence="free",
            files=IDX_FILES,
            pins=(first, second, third, fourth),
            origins=origins,
            decode=read_idx_folder,
        )

    return describe
