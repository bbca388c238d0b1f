"""What a person sees of a running training: a bar on a terminal, one plain line an epoch elsewhere.

    epoch 3/12  loss 0.123  train 97.1 %  test 96.5 %  12.3 s  ETA 40 s

The line is written in both cases, so that a terminal keeps the history above its bar.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self, SupportsFloat, runtime_checkable

REFRESH = 0.2
"""Seconds between two readings of the loss: reading it makes the loop wait for the device."""


@runtime_checkable
class Stream(Protocol):
    """What `Progress` asks of a text stream."""

    def write(self, text: str, /) -> Any: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...
    def fileno(self) -> int: ...


class Progress:
    """The progress of one phase of training.

    Args:
        epochs: length of the phase.
        steps_per_epoch: updates in one epoch.
        name: of the phase, put before each line; empty for none.
        start_epoch: epochs done before (of a resumed run).
        stream: where to write; None for standard error.
        quiet: write nothing.
        clock: seconds, for tests.

    Example:
        >>> import io
        >>> stream = io.StringIO()
        >>> with Progress(epochs=2, steps_per_epoch=10, stream=stream, clock=lambda: 0.0) as bar:
        ...     bar.step(loss=0.5, accuracy=0.8)
        ...     bar.epoch(1, loss=0.4567, train_accuracy=0.8512, test_accuracy=0.84)
        >>> stream.getvalue()
        'epoch 1/2  loss 0.457  train 85.1 %  test 84.0 %  0.0 s  ETA 0 s\\n'
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        name: str = "",
        start_epoch: int = 0,
        stream: Stream | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._epochs = epochs
        self._name = name
        self._stream: Stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._clock = clock
        self._began = clock()
        self._seconds: list[float] = []
        self._shown = -REFRESH
        self._bar: Any = None
        if not quiet and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=epochs * steps_per_epoch,
                initial=start_epoch * steps_per_epoch,
                file=self._stream,
                desc=self._title(min(start_epoch + 1, epochs)),
                leave=False,
                **_size(self._stream),
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"
                " [{elapsed}<{remaining}{postfix}]",
            )

    def step(
        self, loss: SupportsFloat, accuracy: SupportsFloat | None = None, steps: int = 1
    ) -> None:
        """Counts updates; shows the latest loss and accuracy on a terminal.

        Args:
            loss: of the latest update. A device array is read a few times a second, and only on a
                terminal.
            accuracy: of the latest batch, as a fraction; None for none.
            steps: how many updates were made.
        """
        if self._bar is None:
            return
        now = self._clock()
        if now - self._shown >= REFRESH:
            self._shown = now
            self._bar.set_postfix_str(_figures(loss, ("train", accuracy)), refresh=False)
        self._bar.update(steps)

    def epoch(
        self,
        number: int,
        loss: SupportsFloat,
        train_accuracy: SupportsFloat | None = None,
        test_accuracy: SupportsFloat | None = None,
    ) -> None:
        """Writes the line of a finished epoch.

        Args:
            number: of the epoch, the first being 1.
            loss: mean over the epoch.
            train_accuracy: as a fraction; None for none.
            test_accuracy: as a fraction; None for none.
        """
        now = self._clock()
        self._seconds.append(now - self._began)
        self._began = now
        parts = [
            self._title(number),
            _figures(loss, ("train", train_accuracy), ("test", test_accuracy)),
            f"{self._seconds[-1]:.1f} s",
        ]
        if number < self._epochs:
            # The first epoch compiles: it does not count once there are others.
            usual = self._seconds[1:] or self._seconds
            left = (self._epochs - number) * sum(usual) / len(usual)
            parts.append(f"ETA {duration(left)}")
        self.message("  ".join(parts))
        if self._bar is not None:
            self._bar.set_description_str(self._title(min(number + 1, self._epochs)))

    def message(self, text: str) -> None:
        """Writes a line, above the bar if there is one.

        Args:
            text: without the end of line.
        """
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Removes the bar; the lines stay."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _title(self, number: int) -> str:
        title = f"epoch {number}/{self._epochs}"
        return f"{self._name}  {title}" if self._name else title


def duration(seconds: float) -> str:
    """A duration in the units a person would use.

    Args:
        seconds: >= 0.

    Returns:
        Two units at most, rounded.

    Example:
        >>> [duration(s) for s in (0.4, 59.4, 59.6, 200, 7512)]
        ['0 s', '59 s', '1 min 00 s', '3 min 20 s', '2 h 05 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _size(stream: Stream) -> dict[str, Any]:
    """tqdm's options for the size: the terminal's, also after it changes."""
    try:
        known = min(os.get_terminal_size(stream.fileno())) > 0
    except OSError:  # io.UnsupportedOperation is one
        known = False
    # A terminal without a size (under `script`, in some containers) would hide the bar.
    return {"dynamic_ncols": True} if known else {"ncols": 100, "nrows": 24}


def _figures(loss: SupportsFloat, *accuracies: tuple[str, SupportsFloat | None]) -> str:
    known = [f"{name} {100 * float(a):.1f} %" for name, a in accuracies if a is not None]
    return "  ".join([f"loss {float(loss):.3f}", *known])
