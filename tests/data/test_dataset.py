"""The dataset value: what it accepts, and the numbers it computes."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import jaxtyping
import numpy as np
import pytest

from qjax.data.dataset import Augmentation, Dataset, channel_statistics, dataset_of
from qjax.data.source import Arrays


@pytest.fixture
def dataset(arrays: Arrays) -> Dataset:
    return dataset_of(
        arrays,
        name="tiny",
        classes=2,
        source="made here",
        sha256="0" * 64,
        licence="free",
        augmentation=Augmentation(),
    )


def test_arrays_arrive_unchanged_and_read_only(dataset: Dataset, arrays: Arrays):
    np.testing.assert_array_equal(dataset.train_images, arrays.train_images)
    np.testing.assert_array_equal(dataset.test_labels, arrays.test_labels)
    assert dataset.train_labels.dtype == np.int32
    assert dataset.shape == (4, 5, 1)
    with pytest.raises(ValueError, match="read-only"):
        dataset.train_images[0] = 0
    assert arrays.train_images.flags.writeable


@pytest.fixture
def as_a_user() -> Iterator[None]:
    """Without the type checks of the test session, which come before the class's own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"classes": 1}, ValueError, "classes must be a whole number from 2, got 1"),
        ({"classes": True}, TypeError, "classes must be a whole number from 2, got True"),
        ({"train_images": np.zeros((3, 4, 5), np.uint8)}, TypeError, "train_images must be uint8"),
        ({"test_images": np.zeros((2, 4, 5, 1))}, TypeError, "test_images.*got float64"),
        ({"test_images": np.zeros((2, 4, 4, 1), np.uint8)}, ValueError, r"got \(4, 4, 1\)"),
        ({"train_labels": np.zeros(2, np.int32)}, TypeError, r"train_labels.*shape \(3,\)"),
        ({"train_labels": np.zeros(3, np.int64)}, TypeError, "train_labels.*got int64"),
        (
            {"test_labels": np.array([0, 2], np.int32)},
            ValueError,
            "test_labels must be 0-1.*0 to 2",
        ),
        ({"test_labels": np.array([-1, 0], np.int32)}, ValueError, "test_labels must be 0-1"),
        ({"mean": (0.1, 0.2)}, ValueError, "mean must be 1 finite"),
        ({"mean": (float("nan"),)}, ValueError, "mean must be 1 finite"),
        ({"std": (0.0,)}, ValueError, "std must be positive.*constant"),
        ({"name": ""}, ValueError, "name must be a non-empty text"),
        ({"sha256": "abc"}, ValueError, "sha256 must be 64 hexadecimal digits, got 'abc'"),
    ],
)
def test_what_does_not_fit_is_named(dataset: Dataset, change, error, words):
    with pytest.raises(error, match=words):
        replace(dataset, **change)


def test_an_empty_split_is_refused(dataset: Dataset):
    with pytest.raises(ValueError, match="train_images must not be empty"):
        replace(
            dataset,
            train_images=np.zeros((0, 4, 5, 1), np.uint8),
            train_labels=np.zeros(0, np.int32),
        )


@pytest.mark.parametrize("pad", [-1, 65])
def test_augmentation_shift_is_bounded(pad: int):
    with pytest.raises(ValueError, match=f"pad must be a whole number from 0 to 64, got {pad}"):
        Augmentation(pad=pad)


def test_limit_keeps_the_first_images_and_the_whole_set_statistics(dataset: Dataset):
    limited = dataset.limit(train=2, test=1)
    np.testing.assert_array_equal(limited.train_images, dataset.train_images[:2])
    np.testing.assert_array_equal(limited.train_labels, dataset.train_labels[:2])
    np.testing.assert_array_equal(limited.test_images, dataset.test_images[:1])
    np.testing.assert_array_equal(limited.test_labels, dataset.test_labels[:1])
    assert (limited.mean, limited.std, limited.sha256) == (dataset.mean, dataset.std, "0" * 64)
    assert limited.source == "made here, first 2 train images only, first 1 test images only"


def test_no_limit_changes_nothing(dataset: Dataset):
    whole = dataset.limit()
    assert len(whole.train_labels) == 3
    assert len(whole.test_labels) == 2
    assert whole.source == dataset.source


@pytest.mark.parametrize("count", [0, 4])
def test_limit_beyond_the_split_is_refused(dataset: Dataset, count: int):
    with pytest.raises(ValueError, match=f"train_limit of tiny .* from 1 to 3, got {count}"):
        dataset.limit(train=count)


def test_normalise_gives_the_nearest_float32():
    every_pixel = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = np.concatenate([every_pixel, every_pixel[:, ::-1]], axis=3)
    dataset = dataset_of(
        Arrays(images, np.zeros(1, np.uint8), images, np.zeros(1, np.uint8)),
        name="ramp",
        classes=2,
        source="made here",
        sha256="0" * 64,
        licence="free",
        augmentation=Augmentation(),
    )
    normal = dataset.normalise(images)
    assert normal.dtype == np.float32
    for channel in range(2):
        mean, std = Fraction(dataset.mean[channel]), Fraction(dataset.std[channel])
        for pixel, value in zip(images[..., channel].flat, normal[..., channel].flat, strict=True):
            exact = (Fraction(int(pixel), 255) - mean) / std
            neighbours = (np.nextafter(value, np.float32(s), dtype=np.float32) for s in (-9, 9))
            distance = abs(Fraction(float(value)) - exact)
            assert all(distance <= abs(Fraction(float(near)) - exact) for near in neighbours)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    "images", [np.zeros((1, 4, 5, 1), np.int32), np.zeros((1, 4, 5, 3), np.uint8)]
)
def test_normalise_refuses_what_are_no_pixels_of_the_set(dataset: Dataset, images: np.ndarray):
    with pytest.raises(TypeError, match=r"must be uint8 \(n, h, w, 1\), got .*int"):
        dataset.normalise(images)


def test_statistics_are_those_of_every_channel():
    random = np.random.Generator(np.random.PCG64(1))
    # More than one chunk of a thousand images, and channels that differ.
    images = random.integers(0, [[[[40, 256]]]], (1300, 2, 3, 2), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2), dtype=np.float64) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, images.std((0, 1, 2), dtype=np.float64) / 255, rtol=1e-12)


def test_a_sample_is_spread_over_the_train_split(dataset: Dataset, arrays: Arrays):
    images, labels = dataset.sample(2)
    np.testing.assert_array_equal(images, arrays.train_images[[0, 2]])
    assert labels.tolist() == [0, 1]
    assert len(dataset.sample(9)[0]) == 3


def test_held_out_images_come_in_batches_in_order(dataset: Dataset, arrays: Arrays):
    batches = list(dataset.test_batches(1))
    assert [len(batch) for batch in batches] == [1, 1]
    np.testing.assert_array_equal(np.concatenate(batches), arrays.test_images)
