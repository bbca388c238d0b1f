"""Origins and files of the tests' own making."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class CopyOrigin:
    """Delivers the files of a local folder."""

    folder: Path

    def describe(self) -> str:
        return "the copying origin"

    def unpack(self, work: Path) -> Path:
        for path in self.folder.iterdir():
            (work / path.name).write_bytes(path.read_bytes())
        return work


@dataclass(frozen=True)
class FailingOrigin:
    """Raises the given error."""

    error: Exception

    def describe(self) -> str:
        return "the failing origin"

    def unpack(self, work: Path) -> Path:
        (work / "half-a-file").write_bytes(b"half")
        raise self.error


def idx_bytes(array: np.ndarray) -> bytes:
    """An array in the IDX format."""
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )
