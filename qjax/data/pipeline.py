"""From image files to batches of pixels: decoding, cropping, and reading ahead with Grain.

Which image comes when, and how it is cut, follows from (seed, epoch, image) alone: a stream that
starts at a later step, or that more workers read, is the same stream.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from qjax.data.batches import epoch_order, image_generator
from qjax.data.dataset import require_count

_NARROWEST, _WIDEST = 3 / 4, 4 / 3
_ATTEMPTS = 10
_THREADS = 16
Pixels = UInt8[np.ndarray, "h w c"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Crops:
    """The standard crops of ImageNet: a random part in training, the centre in evaluation.

    In training a rectangle of random area and aspect ratio (3/4 to 4/3) is cut out and scaled to
    `size`, as in Szegedy et al., arXiv 1409.4842; in evaluation the shorter side becomes `resize`
    and the centre of `size` is cut out. Bilinear, with antialiasing.

    Attributes:
        size: side of the square that a network sees, in pixels.
        resize: shorter side before the centre is cut out, at least `size`.
        least_area: smallest area of a training crop, as a fraction of the image, in (0, 1].
        flip: whether a training crop is mirrored left to right with probability one half.
    """

    size: int = 224
    resize: int = 256
    least_area: float = 0.08
    flip: bool = True

    def __post_init__(self):
        require_count("Crops.size", self.size, 1)
        require_count("Crops.resize", self.resize, self.size)
        if not 0 < self.least_area <= 1:
            raise ValueError(f"Crops.least_area must be in (0, 1], got {self.least_area!r}")

    def train(self, picture: Image.Image, random: np.random.Generator) -> Pixels:
        """A random part of an RGB picture, (size, size, 3)."""
        box = self._box(picture.width, picture.height, random)
        sides = (self.size, self.size)
        pixels = np.array(picture.resize(sides, Image.Resampling.BILINEAR, box))
        mirrored = self.flip and random.integers(2) == 1
        return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels

    def evaluate(self, picture: Image.Image) -> Pixels:
        """The centre of an RGB picture, (size, size, 3)."""
        factor = self.resize / min(picture.size)
        width, height = (max(self.resize, int(side * factor)) for side in picture.size)
        scaled = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (round((side - self.size) / 2) for side in scaled.size)
        return np.array(scaled.crop((left, top, left + self.size, top + self.size)))

    def _box(self, width: int, height: int, random: np.random.Generator) -> Box:
        """(left, top, right, bottom) of a training crop."""
        for _ in range(_ATTEMPTS):
            area = width * height * random.uniform(self.least_area, 1)
            ratio = math.exp(random.uniform(math.log(_NARROWEST), math.log(_WIDEST)))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left = int(random.integers(width - across + 1))
                top = int(random.integers(height - down + 1))
                return left, top, left + across, top + down
        # A picture of an extreme shape: its centre, as near to it as the ratios allow.
        across = min(width, max(1, round(height * _WIDEST)))
        down = min(height, max(1, round(width / _NARROWEST)))
        left, top = (width - across) // 2, (height - down) // 2
        return left, top, left + across, top + down


def open_image(path: Path) -> Image.Image:
    """A decoded picture in RGB; grey, palette and CMYK pictures are converted.

    Raises:
        ValueError: naming the file that cannot be decoded.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    # SyntaxError: what Pillow raises on some broken headers.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be decoded ({error}); get the image again, or remove it from the folder"
        ) from None


@dataclass(frozen=True)
class Part:
    """Which images of each batch one of several processes reads: the `index`-th of `count` equal
    parts.

    Example:
        >>> [Part(1, 2).position(i, size=4) for i in range(4)]
        [2, 3, 6, 7]
    """

    index: int = 0
    count: int = 1

    def position(self, own: int, size: int) -> int:
        """Place in the stream of whole batches of `size` images of this part's `own`-th image."""
        batch, place = divmod(own, self.images(size))
        return batch * size + self.index * self.images(size) + place

    def images(self, size: int) -> int:
        """Images of a batch of `size`, a multiple of `count`."""
        return size // self.count


WHOLE = Part()


@dataclass(frozen=True, eq=False)
class TrainReader:
    """The training images of the steps from `first` to before `last`, in their order.

    Attributes:
        root: folder of the split.
        paths: of each image, below `root`.
        labels: class of each image.
        crops: how an image is cut.
        seed: of order and crops.
        batch_size: images a step; an epoch's incomplete last batch is left out.
        first, last: steps, counted from 0 over all epochs.
        part: of each batch.
    """

    root: Path
    paths: Sequence[str]
    labels: Int32[np.ndarray, " n"]
    crops: Crops
    seed: int
    batch_size: int
    first: int
    last: int
    part: Part = WHOLE

    def __len__(self) -> int:
        return (self.last - self.first) * self.part.images(self.batch_size)

    def __getitem__(self, index: int) -> tuple[Pixels, np.int32]:
        # Grain addresses a finite source modulo its length.
        position = self.part.position(index % len(self), self.batch_size)
        position += self.first * self.batch_size
        images = len(self.paths) // self.batch_size * self.batch_size
        epoch, place = divmod(position, images)
        chosen = int(_order(self.seed, epoch, len(self.paths))[place])
        random = image_generator(self.seed, epoch, chosen)
        picture = open_image(self.root / self.paths[chosen])
        return self.crops.train(picture, random), self.labels[chosen]


# An epoch's order is asked for once an image; reading ahead touches two epochs at a time.
_order = functools.lru_cache(maxsize=2)(epoch_order)


@dataclass(frozen=True, eq=False)
class TestReader:
    """Images in the order of their list, cut for evaluation.

    Attributes:
        root, paths, labels, crops: as in `TrainReader`.
        batch_size: images at a time, for a part of them.
        part: of each batch; if it is not the whole, the last batch is filled with the last image.
    """

    __test__ = False  # the name is no test's

    root: Path
    paths: Sequence[str]
    labels: Int32[np.ndarray, " n"]
    crops: Crops
    batch_size: int = 1
    part: Part = WHOLE

    def __len__(self) -> int:
        if self.part == WHOLE:
            return len(self.paths)
        batches = math.ceil(len(self.paths) / self.batch_size)
        return batches * self.part.images(self.batch_size)

    def __getitem__(self, index: int) -> tuple[Pixels, np.int32]:
        position = self.part.position(index % len(self), self.batch_size)
        chosen = min(position, len(self.paths) - 1)
        picture = open_image(self.root / self.paths[chosen])
        return self.crops.evaluate(picture), self.labels[chosen]


def read_ahead(
    reader: TrainReader | TestReader, size: int, workers: int
) -> Iterator[tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]]:
    """The reader's images and labels in batches, decoded ahead of their use.

    Args:
        reader: what to read.
        size: images a batch; the last one may have fewer.
        workers: processes that decode; 0 for threads of this one (Pillow decodes outside the
            interpreter's lock).

    Raises:
        ValueError: an image that cannot be decoded.
    """
    # Imported here: it takes seconds, and only this loader needs it.
    import grain

    threads = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=2 * _THREADS)
    stream = grain.MapDataset.source(reader).batch(size).to_iter_dataset(threads)
    if workers:
        _parse_flags()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    batches = iter(stream)
    try:
        yield from batches
    finally:
        # Left to the collector at exit, worker processes and shared memory outlive the modules
        # that their clean-up needs.
        batches.close()


def _parse_flags() -> None:
    """Grain's workers read absl flags, which only absl's own start-up parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
