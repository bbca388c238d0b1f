"""The embedded digits: the split never moves, and the pixels are the published ones."""

import hashlib

import numpy as np
import pytest
import sklearn.datasets

from qjax.data import digits
from qjax.data.dataset import Augmentation

HELD_OUT = "83a55892ecd2ac4158834f55be5b1bc364b2fedce7bbda41544287f719e8d1f8"


@pytest.fixture(scope="module")
def published() -> tuple[np.ndarray, np.ndarray]:
    """Pixels 0-16, shape (1797, 64), and labels."""
    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    return pixels, labels


def test_the_held_out_positions_never_move(published):
    positions = digits.held_out(published[1])
    text = ",".join(map(str, positions.tolist()))
    assert hashlib.sha256(text.encode()).hexdigest() == HELD_OUT


def test_a_fifth_of_each_class_is_held_out(published):
    labels = published[1]
    held_out = np.bincount(labels[digits.held_out(labels)])
    assert np.all(np.abs(held_out - np.bincount(labels) / 5) <= 0.5)


def test_the_splits_are_disjoint_and_complete(published):
    dataset = digits.load()
    test = digits.held_out(published[1])
    train = np.setdiff1d(np.arange(1797), test)
    assert len(np.unique(test)) == 359
    for images, labels, positions in (
        (dataset.train_images, dataset.train_labels, train),
        (dataset.test_images, dataset.test_labels, test),
    ):
        # An integer form of round(v * 255 / 16); the one tie, 127.5, goes up as to even.
        expected = (published[0][positions].astype(int) * 255 + 8) // 16
        np.testing.assert_array_equal(images.reshape(-1, 64), expected)
        np.testing.assert_array_equal(labels, published[1][positions])
    seen = {image.tobytes() for image in dataset.train_images}
    assert not any(image.tobytes() in seen for image in dataset.test_images)


def test_what_the_dataset_says_of_itself():
    augmentation = Augmentation(pad=1)
    dataset = digits.load(augmentation=augmentation, train_limit=100, test_limit=20)
    assert (dataset.name, dataset.classes, dataset.shape) == ("digits", 10, (8, 8, 1))
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (100, 20)
    assert dataset.augmentation == augmentation
    assert dataset.source.startswith("scikit-learn load_digits, first 100 train")


def test_other_numbers_in_scikit_learn_are_noticed(published, monkeypatch: pytest.MonkeyPatch):
    pixels = published[0].copy()
    pixels[1000, 20] = (pixels[1000, 20] + 1) % 17
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda return_X_y: (pixels, published[1]))
    with pytest.raises(ValueError, match="load_digits is not the known one: .*_images has sha256"):
        digits.load()
