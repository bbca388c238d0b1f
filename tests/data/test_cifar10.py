"""The two file forms of CIFAR-10, on three fabricated images a batch."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qjax.data import cifar10

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
PIXELS = np.random.Generator(np.random.PCG64(2)).integers(0, 256, (6, 3, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(18, dtype=np.uint8).reshape(6, 3) % 10


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """The authors' form: a label, then the red, green and blue planes."""
    folder = tmp_path / "binary"
    folder.mkdir()
    for name, images, labels in zip(BATCHES, PIXELS, LABELS, strict=True):
        rows = [
            bytes([label]) + b"".join(image[:, :, plane].tobytes() for plane in range(3))
            for image, label in zip(images, labels, strict=True)
        ]
        (folder / f"{name}.bin").write_bytes(b"".join(rows))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The package's form: a row of 1024 pixels an image, labels beside."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, images in zip(BATCHES, PIXELS, strict=True):
        Image.fromarray(images.reshape(3, 1024, 3)).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps(LABELS[:5].ravel().tolist()))
    (folder / "test_lables.json").write_text(json.dumps(LABELS[5].tolist()))
    return folder


def check(folder: Path):
    decoded = cifar10.decode(folder)
    np.testing.assert_array_equal(decoded.train_images, PIXELS[:5].reshape(15, 32, 32, 3))
    np.testing.assert_array_equal(decoded.train_labels, LABELS[:5].ravel())
    np.testing.assert_array_equal(decoded.test_images, PIXELS[5])
    np.testing.assert_array_equal(decoded.test_labels, LABELS[5])
    assert all(array.dtype == np.uint8 for array in decoded)


def test_the_binary_form(binary: Path):
    check(binary)


def test_the_binary_form_in_the_folder_of_its_archive(binary: Path, tmp_path: Path):
    (tmp_path / "root").mkdir()
    binary.rename(tmp_path / "root" / "cifar-10-batches-bin")
    check(tmp_path / "root")


def test_the_picture_form(pictures: Path):
    check(pictures)


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="neither test_batch.bin nor test_batch.png"):
        cifar10.decode(tmp_path)


def test_a_missing_batch_is_named(binary: Path, pictures: Path):
    (binary / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin"):
        cifar10.decode(binary)
    (pictures / "data_batch_2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_2\.png"):
        cifar10.decode(pictures)


@pytest.mark.parametrize("content", [b"", b"x" * 3072])
def test_a_binary_batch_of_wrong_length_is_named(binary: Path, content: bytes):
    path = binary / "data_batch_4.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} must be a multiple of 3073 bytes"):
        cifar10.decode(binary)


def test_a_damaged_picture_is_named(pictures: Path):
    path = pictures / "data_batch_1.png"
    for content in (path.read_bytes()[:-500], b"no picture at all"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} is a damaged PNG"):
            cifar10.decode(pictures)


def test_a_picture_of_another_kind_is_named(pictures: Path):
    path = pictures / "test_batch.png"
    Image.new("L", (1024, 3)).save(path)
    with pytest.raises(ValueError, match=f"{path} must be an RGB picture 1024 .* got L, 1024"):
        cifar10.decode(pictures)


@pytest.mark.parametrize("text", ["[1, 2", "[300]", '["a"]', "[-1]"])
def test_labels_that_are_no_list_of_bytes_are_named(pictures: Path, text: str):
    path = pictures / "test_lables.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path} must be a JSON list of labels"):
        cifar10.decode(pictures)
