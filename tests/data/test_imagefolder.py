"""Image folders: what is listed, in which order it comes, how it is cut, what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qjax.data.batches import epoch_order
from qjax.data.imagefolder import ChannelStatistics, ImageFolder, load
from qjax.data.pipeline import Crops, TrainReader, open_image
from qjax.launchers.errors import plain_errors
from tests.data.photos import NAMES, made_up, photographs

SMALL = Crops(size=16, resize=18)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return made_up(tmp_path / "photos")


@pytest.fixture
def folder(root: Path) -> ImageFolder:
    return load(str(root), crops=SMALL)


def test_a_missing_extra_is_said_before_any_file_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match="grain, which is not installed"):
        load("nowhere")
    with pytest.raises(SystemExit), plain_errors():
        instantiate({"_target_": "qjax.data.imagefolder.load", "root": "nowhere"})
    (line,) = capsys.readouterr().err.splitlines()
    assert "install it with pip install -e '.[imagenet]'" in line


def test_classes_are_numbered_by_name_and_hidden_files_left_out(root: Path) -> None:
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / ".thumbnail.jpg").write_bytes(b"")
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    folder = load(str(root), crops=SMALL)
    assert folder.classes == 3 and folder.shape == (16, 16, 3)
    assert folder.train_labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert folder.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert folder.train.paths[5] == f"{NAMES[1]}/00.jpg"
    assert (folder.mean, folder.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_labels_come_with_their_images(folder: ImageFolder) -> None:
    for images, labels in folder.train_batches(seed=0, batch_size=4, first=0, last=3):
        assert images.shape == (4, 16, 16, 3) and images.dtype == np.uint8
        # Each class is brightest in the channel of its own number.
        assert images.mean((1, 2)).argmax(-1).tolist() == labels.tolist()
    held_out = np.concatenate(list(folder.test_batches(4)))
    assert held_out.mean((1, 2)).argmax(-1).tolist() == folder.test_labels.tolist()


def test_an_epoch_holds_each_image_once_in_the_order_of_its_seed(folder: ImageFolder) -> None:
    labels = [y for _, y in folder.train_batches(seed=7, batch_size=5, first=0, last=6)]
    for epoch, part in enumerate((labels[:3], labels[3:])):
        expected = folder.train_labels[epoch_order(7, epoch, 15)]
        assert np.concatenate(part).tolist() == expected.tolist()


def test_the_incomplete_batch_of_an_epoch_is_left_out(folder: ImageFolder) -> None:
    batches = list(folder.train_batches(seed=1, batch_size=4, first=2, last=5))
    second = folder.train_labels[epoch_order(1, 1, 15)]
    assert batches[1][1].tolist() == second[:4].tolist()


def test_a_later_start_gives_the_same_stream(folder: ImageFolder) -> None:
    whole = list(folder.train_batches(seed=3, batch_size=4, first=0, last=6))
    rest = list(folder.train_batches(seed=3, batch_size=4, first=4, last=6))
    for (images, labels), (again, also) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, also)
    # Another epoch, another crop of the same image.
    reader = TrainReader(
        folder.train.folder, folder.train.paths, folder.train.labels, SMALL, 3, 15, 0, 2
    )
    one, two = (
        reader[int(np.flatnonzero(epoch_order(3, epoch, 15) == 0)[0]) + 15 * epoch]
        for epoch in (0, 1)
    )
    assert one[1] == two[1] == 0 and not np.array_equal(one[0], two[0])


@pytest.mark.slow
def test_worker_processes_give_the_same_stream(root: Path) -> None:
    alone, helped = (load(str(root), crops=SMALL, workers=workers) for workers in (0, 2))
    for (images, labels), (again, also) in zip(
        alone.train_batches(5, 4, 1, 6), helped.train_batches(5, 4, 1, 6), strict=True
    ):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, also)
    for images, again in zip(alone.test_batches(4), helped.test_batches(4), strict=True):
        np.testing.assert_array_equal(images, again)


@pytest.mark.slow
def test_a_damaged_image_is_named_by_a_worker_process_too(root: Path) -> None:
    (root / "val" / "dog" / "00.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="dog/00.jpg cannot be decoded"):
        list(load(str(root), crops=SMALL, workers=1).test_batches(4))


@pytest.mark.usefixtures("real_cache")
def test_real_photographs_are_read(tmp_path: Path) -> None:
    folder = load(str(photographs(tmp_path)), name="imagenet")
    assert folder.classes == 19 and len(folder.train.paths) == 20
    ((images, labels),) = folder.train_batches(seed=0, batch_size=20, first=0, last=1)
    assert images.shape == (20, 224, 224, 3)
    assert sorted(labels.tolist()) == folder.train_labels.tolist()
    # A photograph, not noise: neighbouring pixels are alike, contrasts are not lost.
    (held_out,) = folder.test_batches(32)
    steps = np.abs(np.diff(held_out.astype(int), axis=1)).mean((1, 2, 3))
    assert (steps < held_out.std((1, 2, 3)) / 2).all() and (held_out.std((1, 2, 3)) > 20).all()


def test_the_sample_is_spread_over_the_classes(folder: ImageFolder) -> None:
    images, labels = folder.sample(3)
    assert images.mean((1, 2)).argmax(-1).tolist() == labels.tolist() == [0, 1, 2]
    assert len(folder.sample(99)[0]) == 15


def test_a_limit_is_spread_over_the_classes(root: Path) -> None:
    limited = load(str(root), crops=SMALL, train_limit=3, test_limit=3)
    assert limited.train_labels.tolist() == limited.test_labels.tolist() == [0, 1, 2]
    assert "limits 3 and 3" in limited.source
    with pytest.raises(ValueError, match="train_limit must be a whole number from 1 to 15, got 16"):
        load(str(root), train_limit=16)


def test_the_fingerprint_follows_names_and_sizes(root: Path) -> None:
    before = load(str(root)).sha256
    assert load(str(root), train_limit=4).sha256 == before
    (root / "val" / "eel" / "00.jpg").rename(root / "val" / "eel" / "moved.jpg")
    assert load(str(root)).sha256 != before


def test_the_evaluation_crop_is_the_centre() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 301, 3), dtype=np.uint8)
    cut = Crops().evaluate(Image.fromarray(pixels))  # shorter side 256: nothing is scaled
    np.testing.assert_array_equal(cut, pixels[16:240, 38:262])
    tall = Crops(size=8, resize=10).evaluate(Image.fromarray(pixels).resize((20, 50)))
    assert tall.shape == (8, 8, 3)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 99))
def test_a_training_crop_lies_within_its_bounds(width: int, height: int, seed: int) -> None:
    crops = Crops(size=4, resize=4, least_area=0.08)
    left, top, right, bottom = crops._box(width, height, np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    across, down = right - left, bottom - top
    # Sides are rounded to whole pixels.
    assert (across - 0.5) / (down + 0.5) <= 4 / 3 and (across + 0.5) / (down - 0.5) >= 3 / 4
    assert (across + 0.5) * (down + 0.5) >= 0.08 * min(width, height) ** 2


def test_crops_reach_everywhere_and_half_are_mirrored() -> None:
    crops = Crops(size=64, resize=64, flip=True)
    ramp = np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], (100, 100, 3))
    picture = Image.fromarray(np.ascontiguousarray(ramp))
    cuts = [crops.train(picture, np.random.default_rng(seed)) for seed in range(200)]
    mirrored = np.mean([cut[0, 0, 0] > cut[0, -1, 0] for cut in cuts])
    assert 0.4 < mirrored < 0.6
    assert min(cut.min() for cut in cuts) < 10 and max(cut.max() for cut in cuts) > 180


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA"])
def test_pictures_of_other_modes_become_colour(mode: str, tmp_path: Path) -> None:
    suffix = "png" if mode in ("P", "RGBA") else "jpg"
    Image.new("RGB", (9, 7), (200, 30, 60)).convert(mode).save(tmp_path / f"x.{suffix}")
    picture = open_image(tmp_path / f"x.{suffix}")
    assert picture.mode == "RGB" and picture.size == (9, 7)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "missing"])
def test_a_damaged_image_is_named(damage: str, root: Path) -> None:
    victim = root / "val" / "dog" / "01.jpg"
    folder = load(str(root), crops=SMALL)
    if damage == "missing":
        victim.unlink()
    else:
        content = victim.read_bytes()
        whole = {"empty": b"", "text": b"hello", "truncated": content[: len(content) // 2]}
        victim.write_bytes(whole[damage])
    with pytest.raises(ValueError, match=r"dog/01\.jpg cannot be decoded .*get the image again"):
        list(folder.test_batches(4))


def test_a_root_that_is_none_or_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.root must name a folder"):
        load()
    with pytest.raises(FileNotFoundError, match="no such folder; data.root must hold train"):
        load(str(tmp_path))


def test_folders_that_do_not_fit_are_refused(root: Path) -> None:
    (root / "train" / "fox").mkdir()
    with pytest.raises(ValueError, match="only one of them has fox"):
        load(str(root))
    (root / "val" / "fox").mkdir()
    with pytest.raises(ValueError, match=r"train/fox holds no image \(\.jpg, \.jpeg, \.png\)"):
        load(str(root))


def test_one_class_is_no_classification(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="2 or more classes"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Crops(size=0), "Crops.size must be a whole number from 1"),
        (lambda: Crops(size=32, resize=31), "Crops.resize must be a whole number from 32"),
        (lambda: Crops(least_area=0.0), r"Crops.least_area must be in \(0, 1\], got 0.0"),
        (lambda: ChannelStatistics(std=(1.0, 0.0, 1.0)), "std must be positive"),
        (lambda: ChannelStatistics(mean=(1.0, float("nan"), 1.0)), "mean must be 3 finite"),
    ],
)
def test_numbers_out_of_range_are_named(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
