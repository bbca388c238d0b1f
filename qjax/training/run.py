"""A whole run: its phases, checkpoints, logs, the integer network at the end, and the record."""

from __future__ import annotations

import dataclasses
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from flax import nnx

from qjax.integerize import integerize
from qjax.record import Record, RunRecord
from qjax.surgery import format_table, layer_table
from qjax.training import checkpoint
from qjax.training.console import Progress
from qjax.training.diagnostics import make_diagnosis
from qjax.training.events import Events
from qjax.training.finish import Outcome, evaluate, evaluate_float
from qjax.training.loop import Epoch, PhaseLoop
from qjax.training.phases import Phase
from qjax.training.spec import RunSpec, device_name

CHECKPOINTS = "checkpoints"
EVENTS = "events"


class Run:
    """One run in one folder.

    Args:
        spec: what to do.
        folder: of the record; made if missing.
    """

    def __init__(self, spec: RunSpec, folder: Path):
        self.spec = spec
        self.folder = folder
        self.record = Record.create(folder, spec.config)
        self.float_accuracy: float | None = None
        self.seconds = 0.0
        self.steps_before = 0

    def __call__(self, resume: bool = False) -> RunRecord:
        """Train from the start, or from the newest good checkpoint; write the record."""
        begin = time.perf_counter()
        saved = checkpoint.restore_latest(self.folder / CHECKPOINTS) if resume else None
        past: dict[str, Any] = saved[1] if saved else {}
        if past:
            self.float_accuracy = past["float_accuracy"]
            self.seconds = past["seconds"]
            self.record.rewind(past["steps"])
        elif resume:
            self.record.rewind(-1)
        model = self.spec.make_model()
        with self._events(past.get("steps")) as events:
            for index, phase in enumerate(self.spec.phases):
                model = self._enter(model, phase, index)
                loop = self._loop(model, phase, index)
                if index == past.get("phase"):
                    self._restore(loop)
                # A phase that lies behind the checkpoint only lends its structure.
                if index >= past.get("phase", 0):
                    self._train(loop, phase, index, events, begin)
                self.steps_before += phase.epochs * loop.steps_per_epoch
                model = loop.model()
        return self._finish(model, begin)

    def _events(self, done: int | None) -> AbstractContextManager[Events | None]:
        if not self.spec.settings.tensorboard:
            return nullcontext()
        return Events(self.folder / EVENTS, resume_step=None if done is None else done + 1)

    def _enter(self, model: nnx.Module, phase: Phase, index: int) -> nnx.Module:
        """The model as the phase wants it; its layers are told at the first quantized phase."""
        spec = self.spec
        starts = phase.quantized and not any(p.quantized for p in spec.phases[:index])
        model = spec.enter(model, index)
        if not starts:
            return model
        rows = layer_table(model, spec.sample())
        self.record.write_layers([dataclasses.asdict(row) for row in rows])
        if spec.settings.progress:
            sys.stderr.write(format_table(rows) + "\n")
        # A recipe that cannot become integer is an error now, not after hours of training.
        integerize(model, spec.pixels, spec.data.shape, spec.settings.policy)
        return model

    def _loop(self, model: nnx.Module, phase: Phase, index: int) -> PhaseLoop:
        spec, settings = self.spec, self.spec.settings
        hooks = spec.hooks_of(index)
        return PhaseLoop(
            model, phase, spec.data, settings.batch_size, spec.seed, settings.check_every, hooks
        )

    def _restore(self, loop: PhaseLoop) -> None:
        restored = checkpoint.restore_latest(self.folder / CHECKPOINTS, like=loop.state)
        assert restored is not None, "the checkpoint was there a moment ago"
        loop.state = restored[0]

    def _train(
        self, loop: PhaseLoop, phase: Phase, index: int, events: Events | None, begin: float
    ) -> None:
        diagnose = make_diagnosis(loop.graphs.evaluate) if phase.quantized else None
        done = int(loop.state.step) // loop.steps_per_epoch
        quiet = not self.spec.settings.progress
        bar = Progress(phase.epochs, loop.steps_per_epoch, phase.name, done, quiet=quiet)
        with bar as progress:
            for epoch in loop.epochs(progress.step):
                step = self.steps_before + int(loop.state.step)
                report = diagnose(loop.states, self.spec.sample()) if diagnose else {}
                self._log(epoch, phase, step, report, events)
                progress.epoch(
                    epoch.index + 1, epoch.loss, epoch.train_accuracy, epoch.test_accuracy
                )
                if not phase.quantized:
                    self.float_accuracy = epoch.test_accuracy
                last = epoch.index + 1 == phase.epochs
                if last or (epoch.index + 1) % self.spec.settings.checkpoint_every == 0:
                    self._save(loop, index, step, begin)

    def _log(
        self, epoch: Epoch, phase: Phase, step: int, report: dict, events: Events | None
    ) -> None:
        values = {
            "loss": epoch.loss,
            "train_accuracy": epoch.train_accuracy,
            "test_accuracy": epoch.test_accuracy,
            "learning_rate": epoch.learning_rate,
        }
        self.record.log(step, {"phase": phase.name, "epoch": epoch.index + 1, **values})
        if events is not None:
            events.scalars(step, values)
            for place, row in report.items():
                events.scalars(step, {f"{name}/{place}": value for name, value in row.items()})
            events.flush()

    def _save(self, loop: PhaseLoop, index: int, step: int, begin: float) -> None:
        metadata = {
            "phase": index,
            "steps": step,
            "float_accuracy": self.float_accuracy,
            "seconds": self.seconds + time.perf_counter() - begin,
        }
        checkpoint.save(self.folder / CHECKPOINTS, step, loop.state, metadata)

    def _finish(self, model: nnx.Module, begin: float) -> RunRecord:
        spec = self.spec
        if spec.phases[-1].quantized:
            outcome = evaluate(spec, model, self.float_accuracy)
        else:
            assert self.float_accuracy is not None
            outcome = evaluate_float(spec, model, self.float_accuracy)
        self.record.write_layers(outcome.layers)
        seconds = self.seconds + time.perf_counter() - begin
        return self.record.finish(result(spec, model, outcome, seconds))


def result(spec: RunSpec, model: nnx.Module, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """The fields of `result.json` that this run knows."""
    data = spec.data
    return {
        **spec.names,
        "w_bits": spec.w_bits,
        "a_bits": spec.a_bits,
        "e_bits": spec.e_bits,
        "g_bits": spec.g_bits,
        "seed": spec.seed,
        "epochs": sum(phase.epochs for phase in spec.phases),
        "accuracy": outcome.accuracy,
        "agreement": outcome.agreement,
        "integer": outcome.integer,
        "bit_operations": outcome.bit_operations,
        "seconds": round(seconds, 3),
        "device": device_name(),
        "references": spec.references(model),
        "data_source": {"source": data.source, "sha256": data.sha256, "licence": data.licence},
    }


def trained_model(spec: RunSpec, folder: Path) -> tuple[nnx.Module, float | None]:
    """The model of a run's newest checkpoint and its float accuracy.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
    """
    model = spec.make_model()
    last = spec.phases[-1]
    if last.quantized:
        model = spec.quantized(model)
    loop = PhaseLoop(model, last, spec.data, spec.settings.batch_size, spec.seed)
    restored = checkpoint.restore_latest(folder / CHECKPOINTS, like=loop.state)
    if restored is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint; name a folder that a run printed")
    loop.state = restored[0]
    return loop.model(), restored[1]["float_accuracy"]
