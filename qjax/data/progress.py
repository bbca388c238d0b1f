"""How far a transfer has come: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of bytes that have arrived since its last call.

    Args:
        label: what is being transferred.
        total: bytes expected; None where unknown, as with a package client, which reports none:
            calling with 0 then keeps the elapsed time moving.
    """
    if sys.stderr.isatty():
        shape = None if total else "{desc}: {elapsed}"
        with tqdm(
            desc=label,
            total=total,
            unit="B",
            unit_scale=True,
            miniters=0,
            bar_format=shape,
        ) as bar:
            yield bar.update
    else:
        lines = _Lines(label, total)
        yield lines.advance
        lines.say("done")


class _Lines:
    """Log-friendly progress: a line at the start, at the end, and every ten seconds between."""

    def __init__(self, label: str, total: int | None):
        self.label, self.total, self.arrived = label, total, 0
        self.start = self.last = time.monotonic()
        self.say("started")

    def advance(self, arrived: int):
        self.arrived += arrived
        if time.monotonic() - self.last >= _SECONDS_BETWEEN_LINES:
            self.say("still going")

    def say(self, state: str):
        self.last = time.monotonic()
        size = f", {self.arrived / 1e6:.1f} MB" if self.arrived else ""
        whole = f" of {self.total / 1e6:.1f} MB" if self.arrived and self.total else ""
        seconds = self.last - self.start
        sys.stderr.write(f"{self.label}: {state}{size}{whole}, {seconds:.0f} s\n")
        sys.stderr.flush()
