"""What a run writes while it trains: metrics, TensorBoard events, diagnoses and alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qjax.record import Record
from qjax.training import durable
from qjax.training.alarms import Alarms
from qjax.training.diagnostics import Diagnosis
from qjax.training.events import Events
from qjax.training.histograms import counted
from qjax.training.tally import Epoch

EVENTS = "events"
RESULTS = ("accuracy/float", "accuracy/simulated", "accuracy/integer")


class Journal:
    """The growing part of a run's folder. Close it, or use it in a `with` statement.

    Args:
        record: of the run.
        tensorboard: whether to write events too.
        resumed: whether an earlier process began this run.
        done: updates that the checkpoint holds, -1 for none: what was written after is dropped.
        alarms: that the checkpoint knows.
        hyperparameters: of the run, for TensorBoard's table of a sweep.
    """

    def __init__(
        self,
        record: Record,
        tensorboard: bool,
        resumed: bool,
        done: int,
        alarms: list[dict[str, Any]],
        hyperparameters: Mapping[str, Any],
    ):
        self.record = record
        self.alarms = Alarms(alarms)
        self.events: Events | None = None
        if resumed:
            record.rewind(done)
        if tensorboard:
            folder: Path = record.folder / EVENTS
            self.events = Events(folder, resume_step=done + 1 if resumed else None)
            self.events.hparams(hyperparameters, RESULTS)

    def epoch(self, step: int, phase: str, epoch: Epoch, found: Diagnosis | None) -> list[str]:
        """Writes down an epoch, to the disk; the messages of alarms that are new.

        Args:
            step: updates made in the whole run.
            phase: its name.
            epoch: what it came to.
            found: in a quantized phase.
        """
        number = epoch.index + 1
        values = {
            "loss": epoch.loss,
            "train_accuracy": epoch.train_accuracy,
            "test_accuracy": epoch.test_accuracy,
            "learning_rate": epoch.learning_rate,
        }
        line: dict[str, Any] = {"phase": phase, "epoch": number, **values}
        new: list[str] = []
        if found is not None:
            new = self.alarms.check(found.report, phase, number)
            line |= {"sqnr_db": found.sqnr_db, "quantizers": _finite(found.report)}
            line |= {"alarms": new} if new else {}
            self.record.write_histograms(step, counted(found.histograms))
        self.record.log(step, line)
        # A checkpoint must not outlive the metrics that led to it.
        durable.sync(self.record.folder / "metrics.jsonl")
        if self.events is not None:
            self.events.scalars(step, values)
            if found is not None:
                self._diagnosis(self.events, step, found, new)
            self.events.flush()
        return new

    def result(self, step: int, accuracy: Mapping[str, float | None]) -> None:
        """Writes the run's final figures among the events."""
        if self.events is not None:
            named = {f"accuracy/{form}": value for form, value in accuracy.items()}
            self.events.scalars(step, {tag: v for tag, v in named.items() if v is not None})
            self.events.flush()

    def _diagnosis(self, events: Events, step: int, found: Diagnosis, alarms: list[str]) -> None:
        numbers = {f"sqnr_by_source/{source}": value for source, value in found.sqnr_db.items()}
        for place, row in found.report.items():
            numbers |= {f"{name}/{place}": value for name, value in row.items()}
        events.scalars(step, {tag: value for tag, value in numbers.items() if math.isfinite(value)})
        for tag, drawn in found.histograms.items():
            if math.isfinite(float(drawn.sum())):
                events.histogram(step, tag, drawn)
        for text in alarms:
            events.text(step, "alarms", text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.events is not None:
            self.events.close()


def _finite(report: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """The numbers with null for what JSON cannot hold."""
    return {
        place: {name: value if math.isfinite(value) else None for name, value in row.items()}
        for place, row in report.items()
    }
