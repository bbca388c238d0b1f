"""The cache: whole or not there, verified at every reading, never overwritten."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from qjax.data import cache as caching
from qjax.data.source import Arrays, Source


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def stored(tiny: Callable[..., Source], arrays: Arrays) -> Source:
    """The tiny set, in the cache."""
    source = tiny()
    caching.store(source, arrays, "made here")
    return source


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("QJAX_DATA", str(tmp_path / "chosen"))
    assert caching.cache_folder() == tmp_path / "chosen"
    monkeypatch.delenv("QJAX_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert caching.cache_folder() == tmp_path / "user" / "qjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert caching.cache_folder() == tmp_path / "home" / ".cache" / "qjax"


def test_what_is_stored_is_read_back(stored: Source, arrays: Arrays):
    assert caching.is_cached("tiny")
    read, origin = caching.read(stored)
    assert origin == "made here"
    for array, expected in zip(read, arrays, strict=True):
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, expected)


def test_nothing_else_is_left_in_the_cache(stored: Source, cache: Path):
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_a_write_that_fails_leaves_nothing(
    tiny: Callable[..., Source], arrays: Arrays, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    written = []

    def save_two_then_fail(path: Path, array: np.ndarray, allow_pickle: bool):
        if len(written) == 2:
            raise OSError("no space left")
        written.append(path)
        path.write_bytes(bytes(array))

    monkeypatch.setattr(np, "save", save_two_then_fail)
    with pytest.raises(OSError, match="no space left"):
        caching.store(tiny(), arrays, "made here")
    assert len(written) == 2
    assert not caching.is_cached("tiny")
    assert list(cache.iterdir()) == []


def test_the_first_copy_stays(stored: Source, arrays: Arrays, cache: Path):
    before = contents(cache)
    caching.store(stored, arrays, "made elsewhere")
    assert contents(cache) == before


def test_many_may_store_at_once(tiny: Callable[..., Source], arrays: Arrays, cache: Path):
    source, together = tiny(), Barrier(8)

    def store(number: int):
        together.wait()
        caching.store(source, arrays, f"number {number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store, range(8)))
    assert [path.name for path in cache.iterdir()] == ["tiny"]
    assert caching.read(source)[1].startswith("number ")


def test_a_cache_that_cannot_be_filled_is_an_error(
    tiny: Callable[..., Source], arrays: Arrays, cache: Path
):
    cache.mkdir()
    (cache / "tiny").write_text("a file where the folder should go")
    with pytest.raises(OSError):
        caching.store(tiny(), arrays, "made here")
    assert (cache / "tiny").read_text() == "a file where the folder should go"


def flip_a_bit(path: Path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def put_a_pickle(path: Path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def swap_axes_in_the_header(path: Path):
    # The same bytes under another shape: a hash of the bytes alone would not notice.
    np.save(path, np.load(path).reshape(3, 5, 4, 1))


def put_an_archive(path: Path):
    with path.open("wb") as file:
        np.savez(file, np.zeros(3, np.uint8))


def break_the_header(path: Path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'shape'", b"'shape("))


def announce_too_much(path: Path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(3, 4, 5, 1)", b"(3, 4, 5, 99999999999)")[:128])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_bit, "has sha256 [0-9a-f]{64}, must be [0-9a-f]{64}"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"no array"), "cannot be read"),
        (Path.unlink, "cannot be read .*No such file"),
        (put_a_pickle, "cannot be read"),
        (put_an_archive, "cannot be read"),
        (break_the_header, "cannot be read"),
        (announce_too_much, "cannot be read"),
        (swap_axes_in_the_header, r"is uint8 of shape \(3, 5, 4, 1\), must be .*\(3, 4, 5, 1\)"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(
    stored: Source, cache: Path, damage: Callable[[Path], object], words: str
):
    path = cache / "tiny" / "train_images.npy"
    damage(path)
    before = contents(cache)
    remedy = f"Nothing was changed. Delete the folder {cache / 'tiny'} and run: "
    with pytest.raises(ValueError, match=f"cache file {path} is damaged: it ({words})") as caught:
        caching.read(stored)
    assert str(caught.value).endswith(remedy + "python -m qjax.data fetch tiny")
    assert contents(cache) == before


@pytest.mark.parametrize("field", Arrays._fields)
def test_every_array_is_verified(stored: Source, cache: Path, field: str):
    flip_a_bit(cache / "tiny" / f"{field}.npy")
    with pytest.raises(ValueError, match=f"{field}.npy is damaged"):
        caching.read(stored)


def test_a_missing_origin_is_named(stored: Source, cache: Path):
    os.unlink(cache / "tiny" / "origin.txt")
    with pytest.raises(ValueError, match="origin.txt is damaged: it cannot be read"):
        caching.read(stored)
