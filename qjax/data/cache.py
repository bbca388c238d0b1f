"""Decoded sets on disk: written whole or not at all, and verified at every reading."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from qjax.data.source import Arrays, Pin, Source

_ORIGIN = "origin.txt"


def cache_folder() -> Path:
    """`$QJAX_DATA` where it is set, else `qjax` in the user's cache folder."""
    if chosen := os.environ.get("QJAX_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qjax"


def is_cached(name: str) -> bool:
    """Whether the set of that name has been fetched; says nothing of its integrity."""
    return (cache_folder() / name).is_dir()


@contextmanager
def work_folder(name: str) -> Iterator[Path]:
    """A fresh folder inside the cache, hence on its file system, that goes away at the end."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}.partial-", dir=cache) as work:
        yield Path(work)


def store(source: Source, arrays: Arrays, origin: str):
    """Put verified arrays into the cache; where another process was first, its copy stays."""
    folder = cache_folder() / source.name
    with work_folder(source.name) as work:
        whole = work / "whole"
        whole.mkdir()
        for field, array in zip(Arrays._fields, arrays, strict=True):
            np.save(whole / f"{field}.npy", array, allow_pickle=False)
        (whole / _ORIGIN).write_text(origin + "\n")
        try:
            os.replace(whole, folder)
        except OSError:
            # A folder never replaces a filled one: the other process's copy is complete.
            if not folder.is_dir():
                raise


def read(source: Source) -> tuple[Arrays, str]:
    """The cached arrays and where they came from.

    Raises:
        ValueError: a file is missing or is not the pinned one; names it and the remedy.
    """
    folder = cache_folder() / source.name
    loaded = [
        _read_array(folder / f"{field}.npy", pin, source.name)
        for field, pin in zip(Arrays._fields, source.pins, strict=True)
    ]
    return Arrays(*loaded), read_origin(source.name)


def read_origin(name: str) -> str:
    """Where a cached set came from, in words."""
    path = cache_folder() / name / _ORIGIN
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(_damaged(path, f"cannot be read ({error})", name)) from None


def _read_array(path: Path, pin: Pin, name: str) -> np.ndarray:
    try:
        # Mapped first, so that a damaged header cannot ask for memory the file does not fill; and
        # by the reader of plain arrays only, which never unpickles.
        array = np.array(np.lib.format.open_memmap(path, mode="r"))
    except Exception as error:
        # All kinds: on a damaged header NumPy passes on whatever its tokenizer raises.
        raise ValueError(_damaged(path, f"cannot be read ({error})", name)) from None
    if problem := pin.mismatch(array):
        raise ValueError(_damaged(path, problem, name))
    return array


def _damaged(path: Path, problem: str, name: str) -> str:
    return (
        f"cache file {path} is damaged: it {problem}. Nothing was changed. "
        f"Delete the folder {path.parent} and run: python -m qjax.data fetch {name}"
    )
