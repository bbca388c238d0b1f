"""What is known of a published image set before a byte of it is here, and the check against it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


class Arrays(NamedTuple):
    """The four decoded arrays of a set, all uint8, images channels last."""

    train_images: UInt8[np.ndarray, "n h w c"]
    train_labels: UInt8[np.ndarray, " n"]
    test_images: UInt8[np.ndarray, "m h w c"]
    test_labels: UInt8[np.ndarray, " m"]


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def fingerprint(digests: list[str]) -> str:
    """SHA-256 of hexadecimal digests, a line each."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@dataclass(frozen=True)
class Pin:
    """Shape and SHA-256 of the bytes (C order) that a decoded uint8 array must have."""

    shape: tuple[int, ...]
    sha256: str

    def mismatch(self, array: np.ndarray) -> str | None:
        """What is wrong with `array`, in words; None where it is the pinned one."""
        if array.dtype != np.uint8 or array.shape != self.shape:
            return f"is {array.dtype} of shape {array.shape}, must be uint8 of {self.shape}"
        found = digest(array)
        return None if found == self.sha256 else f"has sha256 {found}, must be {self.sha256}"


@runtime_checkable
class Origin(Protocol):
    """A place that a set's files can be had from."""

    def describe(self) -> str:
        """A few words for messages and records."""
        ...

    def unpack(self, work: Path) -> Path:
        """Bring the files into the folder `work`; returns the folder that they lie in."""
        ...


@dataclass(frozen=True)
class Source:
    """A published image set.

    Attributes:
        name: short name, that of its module and its cache folder.
        classes: number of classes.
        homepage: where a reader finds the files.
        licence: what is known of the terms of use.
        files: names of the canonical files, to be put in place by hand where nothing else works.
        pins: the four arrays that every way of getting the set must decode to.
        origins: places to fetch from, tried in this order.
        decode: reads the files in a folder; raises FileNotFoundError or ValueError naming the file.
    """

    name: str
    classes: int
    homepage: str
    licence: str
    files: tuple[str, ...]
    pins: tuple[Pin, Pin, Pin, Pin]
    origins: tuple[Origin, ...]
    decode: Callable[[Path], Arrays]

    def fingerprint(self) -> str:
        """One SHA-256 for the set: that of the four pinned ones, a line each."""
        return fingerprint([pin.sha256 for pin in self.pins])

    def check(self, arrays: Arrays, origin: str) -> Arrays:
        """`arrays` themselves where all four are the pinned ones.

        Raises:
            ValueError: names the origin, the array and both hashes.
        """
        for field, array, pin in zip(Arrays._fields, arrays, self.pins, strict=True):
            if problem := pin.mismatch(array):
                raise ValueError(f"{origin}: {field} of {self.name} {problem}")
        return arrays

    def by_hand(self) -> str:
        """What a reader without a network can do, as the end of an error message."""
        return (
            f"By hand: put {', '.join(self.files)} (see {self.homepage}) into a folder and run\n"
            f"  python -m qjax.data fetch {self.name} --root FOLDER\n"
            "or pass data.root=FOLDER to a run."
        )
