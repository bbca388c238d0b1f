"""Order, batches and augmentation: exact, resumable, and nothing else than promised."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from qjax.data.batches import augment, batch_indices, epoch_order, step_generator
from qjax.data.dataset import Augmentation

WORDS = st.integers(0, 2**32 - 1)
# Pinned: a change breaks the resumption of every run that is under way.
GOLDEN_ORDER = [7, 3, 4, 0, 6, 2, 5, 1]


@given(seed=WORDS, epoch=WORDS, n=st.integers(1, 200))
def test_an_epoch_shows_every_image_once(seed: int, epoch: int, n: int):
    order = epoch_order(seed, epoch, n)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_the_order_depends_on_seed_and_epoch_alone():
    assert epoch_order(seed=3, epoch=1, n=8).tolist() == GOLDEN_ORDER
    assert epoch_order(seed=1, epoch=3, n=8).tolist() != GOLDEN_ORDER
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(n=st.integers(1, 100), batch_size=st.integers(1, 100))
def test_batches_cut_the_order_without_loss(n: int, batch_size: int):
    order = epoch_order(0, 0, n)
    np.testing.assert_array_equal(
        np.concatenate(batch_indices(order, batch_size, drop_last=False)), order
    )


def test_a_last_batch_that_is_not_full_is_dropped_on_request():
    order = epoch_order(0, 0, 10)
    assert [len(batch) for batch in batch_indices(order, 4, drop_last=True)] == [4, 4]
    assert [len(batch) for batch in batch_indices(order, 4, drop_last=False)] == [4, 4, 2]
    assert [len(batch) for batch in batch_indices(order, 5, drop_last=True)] == [5, 5]


def test_a_batch_larger_than_the_split_is_an_error():
    with pytest.raises(ValueError, match="batch_size must be 1-10.*got 11"):
        batch_indices(epoch_order(0, 0, 10), 11)


@pytest.mark.parametrize("field", ["seed", "epoch"])
@pytest.mark.parametrize("value", [-1, 2**32])
def test_what_would_alias_another_stream_is_refused(field: str, value: int):
    arguments = {"seed": 0, "epoch": 0, field: value}
    with pytest.raises(ValueError, match=f"{field} must be a whole number from 0 to 4294967295"):
        epoch_order(n=4, **arguments)


def test_streams_of_order_and_of_steps_are_distinct():
    draws = {step_generator(0, epoch, step).bytes(8) for epoch in range(4) for step in range(4)}
    assert len(draws) == 16
    assert not np.array_equal(step_generator(0, 0, 0).permutation(50), epoch_order(0, 0, 50))


@pytest.fixture
def images() -> np.ndarray:
    # No black pixel and no two alike, so that a shift can be told from the border.
    pixels = np.random.Generator(np.random.PCG64(0)).integers(1, 256, (600, 5, 6, 3))
    return pixels.astype(np.uint8)


def cuts(image: np.ndarray, pad: int, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every result that the augmentation may have, by its bytes."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    results = {}
    for row in range(2 * pad + 1):
        for column in range(2 * pad + 1):
            cut = padded[row : row + height, column : column + width]
            results[cut.tobytes()] = (row, column, False)
            if flip:
                results[cut[:, ::-1].tobytes()] = (row, column, True)
    return results


@pytest.mark.parametrize("pad", [0, 1, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_each_image_is_one_of_the_allowed_cuts_and_all_occur(images, pad: int, flip: bool):
    result = augment(images, Augmentation(pad, flip), step_generator(0, 0, 0))
    assert result.dtype == np.uint8
    seen = [
        cuts(before, pad, flip)[after.tobytes()]
        for before, after in zip(images, result, strict=True)
    ]
    counts = {kind: seen.count(kind) for kind in set(seen)}
    kinds = (2 * pad + 1) ** 2 * (2 if flip else 1)
    assert len(counts) == kinds
    # Independent draws: no kind is more than five standard deviations from its share.
    expected = len(images) / kinds
    spread = 5 * np.sqrt(expected * (1 - 1 / kinds))
    assert all(abs(count - expected) <= spread for count in counts.values())


def test_augmentation_repeats_and_leaves_its_input_alone(images):
    before = images.copy()
    first = augment(images, Augmentation(2, True), step_generator(7, 1, 3))
    again = augment(images, Augmentation(2, True), step_generator(7, 1, 3))
    other = augment(images, Augmentation(2, True), step_generator(7, 1, 4))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(images, before)
    assert not np.array_equal(first, other)


def test_augmentation_takes_read_only_images(images):
    images.flags.writeable = False
    assert augment(images, Augmentation(0, True), step_generator(0, 0, 0)).shape == images.shape
