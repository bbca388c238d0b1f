"""The IDX reader: what is not exactly such a file is refused by name."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from qjax.data.idx import read_idx, read_idx_folder
from qjax.data.source import Arrays
from tests.data.fabricate import idx_bytes

CONTENT = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_plain_and_compressed_files_read_alike(tmp_path: Path):
    (tmp_path / "plain").write_bytes(idx_bytes(CONTENT))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx_bytes(CONTENT)))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain", 3), CONTENT)
    np.testing.assert_array_equal(read_idx(tmp_path / "packed.gz", 3), CONTENT)


def test_a_folder_may_mix_both(idx_folder: Path, arrays: Arrays):
    for read, expected in zip(read_idx_folder(idx_folder), arrays, strict=True):
        np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an IDX file"),
        (idx_bytes(CONTENT)[:10], "is not an IDX file"),
        (b"<html>no such page</html>", "is not an IDX file"),
        (idx_bytes(CONTENT[0]), "is not an IDX file of unsigned bytes with 3 axes"),
        (idx_bytes(CONTENT)[:-1], "must hold 24 bytes .* got 23"),
        (idx_bytes(CONTENT) + b"x", "must hold 24 bytes .* got 25"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} {words}"):
        read_idx(path, 3)


@pytest.mark.parametrize("damage", ["cut", "not-gzip", "flipped"])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, damage: str):
    packed = bytearray(gzip.compress(idx_bytes(CONTENT)))
    if damage == "cut":
        packed = packed[:-10]
    elif damage == "not-gzip":
        packed[0] ^= 255
    else:
        packed[-6] ^= 255
    path = tmp_path / "images.gz"
    path.write_bytes(packed)
    with pytest.raises(ValueError, match=f"{path} is a damaged gzip file"):
        read_idx(path, 3)


def test_a_missing_file_is_named(idx_folder: Path):
    (idx_folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="neither t10k-images-idx3-ubyte nor .*ubyte.gz"):
        read_idx_folder(idx_folder)
