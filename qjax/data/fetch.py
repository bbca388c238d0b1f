"""From a source to a dataset: the caller's folder, else the cache, else a fetch."""

import http.client
import importlib
import pkgutil
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np

import qjax.data
from qjax.data import cache
from qjax.data.dataset import NO_AUGMENTATION, Augmentation, Dataset, dataset_of, require_count
from qjax.data.source import Arrays, Source

# What a dead line, a missing client, a cut-off archive or a wrong file can raise.
_ORIGIN_FAILURES = (
    OSError,
    ValueError,
    EOFError,
    tarfile.TarError,
    zlib.error,
    http.client.HTTPException,
)


class FetchError(RuntimeError):
    """No origin delivered the set; the message lists what was tried and what to do by hand."""


def sources() -> dict[str, Source]:
    """Every set that can be fetched, by name: the `SOURCE` of each module in this package."""
    modules = (
        importlib.import_module(f"qjax.data.{found.name}")
        for found in pkgutil.iter_modules(qjax.data.__path__)
        if not found.name.startswith("_")
    )
    found = (getattr(module, "SOURCE", None) for module in modules)
    return {source.name: source for source in found if source is not None}


def fetch(source: Source):
    """Bring a set into the cache from the first origin that delivers it.

    Raises:
        FetchError: none did.
    """
    problems = []
    for origin in source.origins:
        try:
            with cache.work_folder(source.name) as work:
                arrays = source.check(source.decode(origin.unpack(work)), origin.describe())
        except _ORIGIN_FAILURES as error:
            problems.append(f"  {origin.describe()}: {error}")
            sys.stderr.write(f"{source.name} not from {origin.describe()}: {error}\n")
        else:
            cache.store(source, arrays, origin.describe())
            return
    raise FetchError(
        "\n".join([f"cannot fetch {source.name}. Tried:", *problems, source.by_hand()])
    )


def read_root(source: Source, root: str | Path) -> Arrays:
    """Decode and verify the canonical files in a folder of the caller's.

    Raises:
        FileNotFoundError: the folder or a file in it is missing.
        ValueError: a file is damaged or not the published one.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"data.root must be a folder, got {root}. {source.by_hand()}")
    try:
        return source.check(source.decode(folder), f"data.root={root}")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {source.by_hand()}") from None


def assemble(
    source: Source,
    root: str | None,
    augmentation: Augmentation = NO_AUGMENTATION,
    pad: int = 0,
) -> Dataset:
    """The whole set as a dataset.

    Args:
        source: which set.
        root: folder with the canonical files; None means the cache, filled first where need be.
        augmentation: handed on.
        pad: black pixels added on each side, for networks that want a larger image.
    """
    require_count(f"pad of {source.name}", pad, 0, 256)
    if root is not None:
        arrays, origin = read_root(source, root), "canonical files in data.root"
    else:
        if not cache.is_cached(source.name):
            fetch(source)
        arrays, origin = cache.read(source)
    if pad:
        border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        arrays = arrays._replace(
            train_images=np.pad(arrays.train_images, border),
            test_images=np.pad(arrays.test_images, border),
        )
    return dataset_of(
        arrays,
        name=source.name,
        classes=source.classes,
        source=origin,
        sha256=source.fingerprint(),
        licence=source.licence,
        augmentation=augmentation,
    )
