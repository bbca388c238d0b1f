"""One process a run folder: two would mix their checkpoints and metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; a killed process lets go of it.

    Args:
        folder: exists. Where the system knows no file locks (Windows), nothing is held.

    Raises:
        ValueError: another process holds it.
        OSError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{folder} is in use: another process trains there; wait for it, end it, or choose "
                "another run.folder"
            ) from error
        yield
