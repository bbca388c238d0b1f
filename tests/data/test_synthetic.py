"""The synthetic set: repeatable, learnable, and never to be mistaken for a real one."""

import numpy as np
import pytest

from qjax.data import synthetic


def test_it_says_that_it_is_synthetic():
    dataset = synthetic.load(seed=4)
    assert dataset.name == "synthetic"
    assert dataset.source == "synthetic patterns and noise, seed 4; no real images"


def test_shape_classes_and_sizes_are_as_asked():
    dataset = synthetic.load(
        height=7, width=9, channels=3, classes=4, train_size=42, test_size=10, test_limit=5
    )
    assert dataset.train_images.shape == (42, 7, 9, 3)
    assert dataset.test_images.shape == (5, 7, 9, 3)
    assert sorted(np.bincount(dataset.train_labels)) == [10, 10, 11, 11]


def test_the_same_arguments_give_the_same_images():
    first, again, other = synthetic.load(seed=1), synthetic.load(seed=1), synthetic.load(seed=2)
    np.testing.assert_array_equal(first.train_images, again.train_images)
    assert first.sha256 == again.sha256 != other.sha256


def test_the_size_of_one_split_leaves_the_other_alone():
    small, large = synthetic.load(train_size=20), synthetic.load(train_size=90)
    np.testing.assert_array_equal(small.test_images, large.test_images)


def test_the_splits_do_not_share_images():
    dataset = synthetic.load()
    seen = {image.tobytes() for image in dataset.train_images}
    assert not any(image.tobytes() in seen for image in dataset.test_images)


def test_class_means_of_the_train_split_tell_the_test_images_apart():
    dataset = synthetic.load()
    train = dataset.train_images.reshape(512, -1).astype(float)
    test = dataset.test_images.reshape(128, -1).astype(float)
    means = np.stack([train[dataset.train_labels == label].mean(0) for label in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
    assert np.mean(nearest == dataset.test_labels) >= 0.99


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 0}, "height of synthetic must be a whole number from 1, got 0"),
        ({"classes": 257}, "classes of synthetic must be a whole number from 2 to 256, got 257"),
        ({"seed": -1}, "seed of synthetic must be a whole number from 0 to 4294967295, got -1"),
        ({"noise": -0.1}, "noise of synthetic must be finite and 0 or more, got -0.1"),
    ],
)
def test_arguments_out_of_range_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        synthetic.load(**change)
