"""TensorBoard events, written without TensorFlow, that a resumed run continues without doubles.

The file format is tensorboardX's. Its `SummaryWriter` is not used: it writes from a background
thread, where a full disk goes unreported and then blocks the caller. Here a call has written, or
raises.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike

BINS = 64
"""Bins of a histogram, of equal width from the least to the greatest value."""


class EventsError(OSError):
    """Events cannot be written; the message says where, why, and what to do."""


class Events:
    """A writer of TensorBoard events. Close it, or use it in a `with` statement.

    What was logged since the last `flush` is lost when the process is killed: flush before a
    checkpoint is saved.

    Args:
        folder: of the events; made if missing. Each writer adds a file of its own.
        resume_step: the first step that this writer will log, when it continues a run: TensorBoard
            drops what earlier writers logged from this step on. None for a new run.

    Raises:
        EventsError: the folder cannot be made or written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Events(folder) as events:
        ...     events.scalars(10, {"train/loss": 0.5, "learning_rate": 0.1})
        ...     events.histogram(10, "conv1/weights", [-1.0, 0.0, 1.0])
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None):
        from tensorboardX import RecordWriter
        from tensorboardX.proto import event_pb2

        self._folder = Path(folder).absolute()
        self._proto: Any = event_pb2
        self._writer: Any = None
        with self._reporting():
            self._folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads files by name, so by time; the number tells those of one second.
            number = len(list(self._folder.glob("*tfevents*")))
            stamp = f"{int(time.time())}.{socket.gethostname()}.{number:04d}"
            self._writer = RecordWriter(str(self._folder / f"events.out.tfevents.{stamp}"))
        self._write(0, file_version="brain.Event:2")
        if resume_step is not None:
            start = self._proto.SessionLog(status=self._proto.SessionLog.START)
            self._write(resume_step, session_log=start)
        self.flush()

    def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Logs numbers of one step.

        Args:
            step: number of updates made.
            values: by tag, e.g. `train/loss`; characters other than letters, digits and `_-./`
                become `_`.

        Raises:
            EventsError: the disk is full, or the like.
        """
        from tensorboardX import summary

        merged = summary.Summary()
        for tag, value in values.items():
            merged.MergeFrom(summary.scalar(tag, float(value)))
        self._write(step, summary=merged)

    def histogram(self, step: int, tag: str, values: ArrayLike) -> None:
        """Logs the distribution of an array.

        Args:
            step: number of updates made.
            tag: as in `scalars`.
            values: numbers of any shape and dtype, at least one.

        Raises:
            EventsError: the disk is full, or the like.
            ValueError: no values, or some that are not finite.
        """
        from tensorboardX import summary

        array = np.asarray(values).astype(np.float64)
        bad = int(array.size - np.isfinite(array).sum())
        if bad or not array.size:
            raise ValueError(
                f"histogram {tag!r} at step {step} needs finite values,"
                f" got {array.size} of which {bad} are not finite"
            )
        counts, limits = np.histogram(array, bins=BINS)
        # Not summary.histogram: its dot product wakes all of BLAS's threads, which costs more than
        # everything else here where a job may not use all cores.
        proto = summary.histogram_raw(
            re.sub(r"[^\w/.-]", "_", tag),
            min=float(array.min()),
            max=float(array.max()),
            num=array.size,
            sum=float(array.sum()),
            sum_squares=float(np.square(array).sum()),
            bucket_limits=limits.tolist(),
            bucket_counts=[0.0, *counts.tolist()],
        )
        self._write(step, summary=proto)

    def text(self, step: int, tag: str, text: str) -> None:
        """Logs a text.

        Args:
            step: number of updates made.
            tag: TensorBoard shows it as `<tag>/text_summary`.
            text: Markdown.

        Raises:
            EventsError: the disk is full, or the like.
        """
        from tensorboardX import summary

        self._write(step, summary=summary.text(tag, text))

    def hparams(self, values: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Logs a run's hyper-parameters, for TensorBoard's table of a sweep.

        Args:
            values: by name; what is neither a string, a bool, a number nor None is shown as text.
            metrics: tags of scalars whose last values are the run's results.

        Raises:
            EventsError: the disk is full, or the like.
        """
        from tensorboardX import summary

        plain = {
            name: value
            if value is None or isinstance(value, str | bool | int | float)
            else str(value)
            for name, value in values.items()
        }
        for part in summary.hparams(plain, dict.fromkeys(metrics, 0.0)):
            self._write(0, summary=part)

    def flush(self) -> None:
        """Waits until the disk has everything.

        Raises:
            EventsError: it is full, or the like.
        """
        with self._reporting():
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file; once closed, or after a failure, does nothing.

        Raises:
            EventsError: the disk is full, or the like.
        """
        if self._writer is not None:
            self.flush()
            with self._reporting():
                self._writer.close()
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, step: int, **content: Any) -> None:
        if self._writer is None:
            raise ValueError(f"the events in {self._folder} are closed; make a new writer")
        with self._reporting():
            event = self._proto.Event(step=step, wall_time=time.time(), **content)
            self._writer.write(event.SerializeToString())

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turns a failure to write into one error, and gives the file up."""
        try:
            yield
        except OSError as error:
            writer, self._writer = self._writer, None
            if writer is not None:
                with contextlib.suppress(OSError):
                    writer.close()
            raise EventsError(
                f"cannot write TensorBoard events in {self._folder}: {error}."
                " Free space or make the folder writable, then resume."
            ) from error
