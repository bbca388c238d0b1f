"""From source to dataset: the order of places, and what is said when none delivers."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qjax.data import cache as caching
from qjax.data import mnist
from qjax.data.dataset import Augmentation
from qjax.data.fetch import FetchError, assemble, fetch, read_root, sources
from qjax.data.source import Arrays, Source
from tests.data.fabricate import CopyOrigin, FailingOrigin

Tiny = Callable[..., Source]


def test_every_published_set_is_known():
    known = sources()
    assert sorted(known) == ["cifar10", "fashion_mnist", "mnist"]
    assert all(name == source.name for name, source in known.items())


def test_a_set_is_fetched_on_first_use_and_read_from_the_cache_after(
    tiny: Tiny, idx_folder: Path, arrays: Arrays
):
    dataset = assemble(tiny(CopyOrigin(idx_folder)), None)
    np.testing.assert_array_equal(dataset.train_images, arrays.train_images)
    np.testing.assert_array_equal(dataset.test_labels, arrays.test_labels)
    assert dataset.source == "the copying origin"
    assert dataset.sha256 == tiny().fingerprint()
    again = assemble(tiny(FailingOrigin(OSError("must not be asked"))), None)
    np.testing.assert_array_equal(again.train_images, dataset.train_images)


@pytest.mark.parametrize(
    "error",
    [OSError("no connection"), ValueError("wrong hash"), EOFError("cut"), zlib.error("broken")],
)
def test_the_next_origin_is_asked_and_the_failure_told(
    tiny: Tiny, idx_folder: Path, cache: Path, capsys: pytest.CaptureFixture, error: Exception
):
    fetch(tiny(FailingOrigin(error), CopyOrigin(idx_folder)))
    assert caching.read_origin("tiny") == "the copying origin"
    assert capsys.readouterr().err == f"tiny not from the failing origin: {error}\n"
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_when_none_delivers_the_message_says_what_to_do(tiny: Tiny, idx_folder: Path, cache: Path):
    (idx_folder / "t10k-labels-idx1-ubyte").write_bytes(b"not the labels")
    source = tiny(FailingOrigin(OSError("no connection")), CopyOrigin(idx_folder))
    with pytest.raises(FetchError) as caught:
        assemble(source, None)
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["cannot fetch tiny. Tried:", "  the failing origin: no connection"]
    assert lines[2].startswith("  the copying origin: ")
    assert "t10k-labels-idx1-ubyte is not an IDX file" in lines[2]
    assert lines[3:] == [
        "By hand: put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz (see the tests' own page) "
        "into a folder and run",
        "  python -m qjax.data fetch tiny --root FOLDER",
        "or pass data.root=FOLDER to a run.",
    ]
    assert list(cache.iterdir()) == []


def test_an_origin_with_other_images_is_refused(tiny: Tiny, idx_folder: Path):
    content = bytearray((idx_folder / "t10k-images-idx3-ubyte").read_bytes())
    content[-1] ^= 1
    (idx_folder / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(FetchError, match="test_images of tiny has sha256 .*, must be "):
        fetch(tiny(CopyOrigin(idx_folder)))
    assert not caching.is_cached("tiny")


def test_a_full_disk_is_not_blamed_on_the_origin(
    tiny: Tiny, idx_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: object, **options: object):
        raise OSError("no space left")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="^no space left$"):
        fetch(tiny(CopyOrigin(idx_folder)))


def test_a_folder_of_the_callers_comes_before_the_cache(
    tiny: Tiny, idx_folder: Path, arrays: Arrays, cache: Path
):
    dataset = assemble(tiny(), str(idx_folder))
    np.testing.assert_array_equal(dataset.test_images, arrays.test_images)
    assert dataset.source == "canonical files in data.root"
    assert not cache.exists()


def test_a_folder_of_the_callers_is_never_silently_replaced(tiny: Tiny, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="holds neither train-images.*By hand: put train-"):
        assemble(tiny(), str(empty))
    with pytest.raises(FileNotFoundError, match="data.root must be a folder, got .*missing"):
        assemble(tiny(), str(tmp_path / "missing"))


def test_other_images_in_a_folder_of_the_callers_are_refused(tiny: Tiny, idx_folder: Path):
    source = tiny()
    pins = (replace(source.pins[0], sha256="0" * 64), *source.pins[1:])
    with pytest.raises(ValueError, match=f"data.root={idx_folder}: train_images of tiny has sha"):
        read_root(replace(source, pins=pins), idx_folder)


def test_padding_is_black_and_on_every_side(tiny: Tiny, idx_folder: Path, arrays: Arrays):
    augmentation = Augmentation(pad=2)
    dataset = assemble(tiny(), str(idx_folder), augmentation, pad=3)
    assert dataset.shape == (10, 11, 1)
    np.testing.assert_array_equal(dataset.train_images[:, 3:-3, 3:-3], arrays.train_images)
    assert dataset.test_images.sum() == arrays.test_images.sum()
    assert dataset.mean[0] == pytest.approx(dataset.train_images.mean() / 255, rel=1e-12)
    assert dataset.augmentation == augmentation


def test_a_negative_padding_is_refused(tiny: Tiny, idx_folder: Path):
    with pytest.raises(
        ValueError, match="pad of tiny must be a whole number from 0 to 256, got -1"
    ):
        assemble(tiny(), str(idx_folder), pad=-1)


def test_a_loader_hands_on_its_arguments(
    tiny: Tiny, idx_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mnist, "SOURCE", tiny())
    dataset = mnist.load(str(idx_folder), pad=1, train_limit=2, test_limit=1)
    assert dataset.train_images.shape == (2, 6, 7, 1)
    assert len(dataset.test_labels) == 1
