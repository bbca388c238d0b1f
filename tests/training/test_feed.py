"""A step's images: the same order from memory and from files, from any step on."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.data.batches import batch_indices, epoch_order
from qjax.data.imagefolder import ImageFolder, load
from qjax.data.pipeline import Crops
from qjax.models.small import SmallCNN
from qjax.training.feed import Resident, Streamed, feed
from qjax.training.loop import LoopSettings, PhaseLoop
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from tests.data.photos import made_up
from tests.training.small import DATA


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    return load(str(made_up(tmp_path / "photos")), crops=Crops(size=8, resize=10))


def test_steps_are_counted_over_epochs() -> None:
    held = feed(DATA, batch_size=16, seed=3)
    assert isinstance(held, Resident)
    count = len(DATA.train_labels)
    expected = [
        index for epoch in range(3) for index in batch_indices(epoch_order(3, epoch, count), 16)
    ]
    per_epoch = count // 16
    batches = list(held.batches(per_epoch - 1, 2 * per_epoch + 1))
    assert len(batches) == per_epoch + 2
    for batch, index in zip(batches, expected[per_epoch - 1 :], strict=False):
        np.testing.assert_array_equal(batch.index, index)
        np.testing.assert_array_equal(batch.images, DATA.train_images)
    assert list(held.batches(5, 5)) == []


def test_files_come_as_whole_batches(folder: ImageFolder) -> None:
    streamed = feed(folder, batch_size=4, seed=3)
    assert isinstance(streamed, Streamed)
    labels = [batch.labels for batch in streamed.batches(0, 3)]
    np.testing.assert_array_equal(
        np.concatenate(labels), folder.train_labels[epoch_order(3, 0, 15)[:12]]
    )
    assert list(streamed.batches(2, 2)) == []


def loop(folder: ImageFolder) -> PhaseLoop:
    model = SmallCNN(3, folder.classes, width=2, rngs=nnx.Rngs(0))
    phase = Phase("float", 2, Sgd(0.05), quantized=False)
    return PhaseLoop(model, phase, folder, LoopSettings(batch_size=4, seed=1, eval_batch=4))


def test_a_phase_reads_files_and_goes_on_where_it_stood(folder: ImageFolder) -> None:
    whole = loop(folder)
    middle = None
    for epoch in whole.epochs():
        assert np.isfinite(epoch.loss) and 0 <= epoch.test_accuracy <= 1
        middle = middle or jax.tree.map(jnp.copy, whole.state)
    assert whole.steps_done == 6
    resumed = loop(folder)
    assert middle is not None
    resumed.state = middle
    (last,) = resumed.epochs()
    assert last.index == 1
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_can_be_looked_at_again(folder: ImageFolder) -> None:
    made = loop(folder)
    seen = list(made.feed.batches(0, 6))
    again = made.batch(1, 2)
    np.testing.assert_array_equal(again.images, seen[5].images)
    np.testing.assert_array_equal(again.labels, seen[5].labels)
