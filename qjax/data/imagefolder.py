"""Images in folders, one folder a class, as ImageNet is usually laid out; read as they are needed.

    ROOT/train/CLASS/*.jpg
    ROOT/val/CLASS/*.jpg

Classes are numbered in the order of their folders' names. Nothing but the list of files stays in
memory: see `qjax/data/pipeline.py` for what happens to an image.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from qjax.data.dataset import NO_AUGMENTATION, Augmentation, require_count
from qjax.data.pipeline import (
    WHOLE,
    Crops,
    Part,
    TestReader,
    TrainReader,
    open_image,
    read_ahead,
)

SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of pixel/255 per channel, red, green, blue.

    Attributes:
        mean: three numbers, kept as a tuple.
        std: three positive numbers, kept as a tuple.
    """

    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for field in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, field))
            if len(values) != 3 or not np.all(np.isfinite(values)):
                raise ValueError(
                    f"ChannelStatistics.{field} must be 3 finite numbers, got {values}"
                )
            object.__setattr__(self, field, values)
        if min(self.std) <= 0:
            raise ValueError(f"ChannelStatistics.std must be positive, got {self.std}")


IMAGENET = ChannelStatistics()
"""Those of ImageNet's training images, as every published model uses them."""

STANDARD = Crops()


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of one split.

    Attributes:
        folder: of the split.
        paths: of the images below it, class by class.
        labels: class of each image.
    """

    folder: Path
    paths: tuple[str, ...]
    labels: Int32[np.ndarray, " n"]

    def limit(self, count: int | None, field: str) -> "Listing":
        """So many images, spread evenly over the classes' order; None keeps all."""
        if count is None:
            return self
        require_count(field, count, 1, len(self.paths))
        kept = np.linspace(0, len(self.paths) - 1, count).round().astype(int)
        return Listing(self.folder, tuple(self.paths[i] for i in kept), self.labels[kept])


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Two splits of labelled image files.

    Attributes:
        name: in records.
        train, test: the files.
        crops: how an image is cut.
        classes: number of classes, at least 2.
        mean, std: per channel, of pixel/255.
        source: in words.
        sha256: of the names and sizes of all files.
        licence: what is known of the terms of use.
        workers: processes that decode; 0 for threads.
        augmentation: none on the device, since crops and flips happen while an image is decoded.
    """

    name: str
    train: Listing
    test: Listing
    crops: Crops
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    sha256: str
    licence: str
    workers: int = 0
    augmentation: Augmentation = NO_AUGMENTATION

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of one image as the network sees it."""
        return (self.crops.size, self.crops.size, 3)

    @property
    def train_labels(self) -> Int32[np.ndarray, " n"]:
        """Class of each training image, in the order of the listing."""
        return self.train.labels

    @property
    def test_labels(self) -> Int32[np.ndarray, " m"]:
        """Class of each held-out image, in the order of `test_batches`."""
        return self.test.labels

    def sample(self, count: int) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:
        """Centres and labels of so many training images, or of all, spread over the classes."""
        listing = self.train.limit(min(count, len(self.train.paths)), "count")
        pictures = (open_image(listing.folder / path) for path in listing.paths)
        return np.stack([self.crops.evaluate(picture) for picture in pictures]), listing.labels

    def train_batches(
        self, seed: int, batch_size: int, first: int, last: int, part: Part = WHOLE
    ) -> Iterator[tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]]:
        """Images and labels of the steps from `first` to before `last`, counted over all epochs.

        Args:
            seed: of order and crops.
            batch_size: images a step, a multiple of the parts.
            first, last: steps.
            part: of each batch that is wanted.

        Raises:
            ValueError: an image that cannot be decoded.
        """
        if first >= last:
            return
        require_count("batch_size", batch_size, 1, len(self.train.paths))
        listing = self.train
        files = listing.folder, listing.paths, listing.labels, self.crops
        reader = TrainReader(*files, seed, batch_size, first, last, part)
        yield from read_ahead(reader, part.images(batch_size), self.workers)

    def test_batches(self, size: int, part: Part = WHOLE) -> Iterator[UInt8[np.ndarray, "n h w c"]]:
        """The held-out images in their order, at most `size` at a time.

        Args:
            size: images a batch, a multiple of the parts.
            part: of each batch that is wanted; the last one is then filled up.
        """
        listing = self.test
        files = listing.folder, listing.paths, listing.labels, self.crops
        reader = TestReader(*files, size, part)
        yield from (images for images, _ in read_ahead(reader, part.images(size), self.workers))


def load(
    root: str | None = None,
    name: str = "imagefolder",
    eval_split: str = "val",
    crops: Crops = STANDARD,
    statistics: ChannelStatistics = IMAGENET,
    workers: int = 0,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> ImageFolder:
    """The images below `root`.

    Args:
        root: holds `train` and `eval_split`, each with one folder a class.
        name: in records, e.g. "imagenet".
        eval_split: folder of the held-out images.
        crops: how an image is cut.
        statistics: what is subtracted and divided by.
        workers: processes that decode images; 0 for threads of this process.
        train_limit: so many training images only, spread over the classes; None keeps all.
        test_limit: the same of the held-out ones.

    Raises:
        ValueError: no root; a class without images; splits of different classes; a number out of
            range.
        FileNotFoundError: a folder that is missing.
        ImportError: Grain, which reads ahead, is not installed.
    """
    _require_grain()
    if root is None:
        raise ValueError(
            f"data.root must name a folder with train/CLASS/*.jpg and {eval_split}/CLASS/*.jpg, "
            "got none"
        )
    require_count("workers", workers, 0)
    folder = Path(root).expanduser()
    names = class_names(folder / "train")
    differ = sorted(set(names) ^ set(class_names(folder / eval_split)))
    if differ:
        raise ValueError(
            f"{folder}: train and {eval_split} must have folders of the same classes, but only one "
            f"of them has {', '.join(differ[:5])}"
        )
    train, test = (list_images(folder / split, names) for split in ("train", eval_split))
    counts = f"{len(train.paths)} and {len(test.paths)} images of {len(names)} classes"
    return ImageFolder(
        name=name,
        train=train.limit(train_limit, "train_limit"),
        test=test.limit(test_limit, "test_limit"),
        crops=crops,
        classes=len(names),
        mean=tuple(statistics.mean),
        std=tuple(statistics.std),
        source=f"image folder, {counts}, limits {train_limit} and {test_limit}",
        sha256=_fingerprint((train, test)),
        licence="not known: a folder of the user's own",
        workers=workers,
    )


def _require_grain() -> None:
    if find_spec("grain") is None:
        raise ImportError(
            "data=imagefolder reads its images with grain, which is not installed; install it with "
            "pip install -e '.[imagenet]'"
        )


def class_names(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted; hidden ones are left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds fewer than two.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; data.root must hold train and the eval_split"
        )
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if len(names) < 2:
        raise ValueError(f"{folder} must hold a folder for each of 2 or more classes, got {names}")
    return names


def list_images(folder: Path, names: list[str]) -> Listing:
    """The images of a split, class by class in the order of `names`.

    Raises:
        ValueError: a class without images.
    """
    paths: list[str] = []
    counts: list[int] = []
    for name in names:
        with os.scandir(folder / name) as entries:
            found = sorted(
                e.name
                for e in entries
                if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".")
            )
        if not found:
            raise ValueError(
                f"{folder / name} holds no image ({', '.join(SUFFIXES)}); add some, or remove the "
                "folder from both splits"
            )
        paths += [f"{name}/{file}" for file in found]
        counts.append(len(found))
    return Listing(folder, tuple(paths), np.repeat(np.arange(len(names)), counts).astype(np.int32))


def _fingerprint(splits: tuple[Listing, ...]) -> str:
    """SHA-256 of every file's name and size: reading all bytes of ImageNet would take hours."""
    hashed = hashlib.sha256()
    for split in splits:
        for path in split.paths:
            size = (split.folder / path).stat().st_size
            hashed.update(f"{split.folder.name}/{path} {size}\n".encode())
    return hashed.hexdigest()
