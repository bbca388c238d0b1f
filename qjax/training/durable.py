"""Files that outlive a crash: written to the disk, not only to its cache, and checked by hash."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def write_json(path: Path, value: Any) -> None:
    """Writes JSON and waits until the disk has it.

    Args:
        path: of the file; an existing one is overwritten.
        value: what JSON can hold.

    Raises:
        OSError: the file cannot be written.
        TypeError: JSON cannot hold the value.
    """
    text = json.dumps(value, indent=1)
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Waits until the disk has a file's content, or a folder's list of names.

    Args:
        path: of a file or folder.

    Raises:
        OSError: the disk refused; what was written may be lost.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(folder: Path) -> None:
    """Writes the sizes and SHA-256 of all files in a folder into its manifest, the last file.

    Args:
        folder: finished but for the manifest. All of it is on the disk when this returns.

    Raises:
        OSError: a file cannot be read, or the disk refused.
    """
    files, folders = {}, [folder]
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            folders.append(path)
        else:
            sync(path)
            files[path.relative_to(folder).as_posix()] = [path.stat().st_size, _digest(path)]
    write_json(folder / MANIFEST, {"files": files})
    for path in folders:
        sync(path)


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder.

    Args:
        folder: one that `seal` has finished, maybe damaged since.

    Returns:
        A reason in words, or None if every file is as it was sealed.

    Raises:
        OSError: a file exists but cannot be read (permissions, a failing disk): not known to be
            damaged.
    """
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        for name, (size, digest) in files.items():
            path = folder / name
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if _digest(path) != digest:
                return f"{name} has other content than was written"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
