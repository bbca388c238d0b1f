"""A whole run: its phases, checkpoints, logs, the integer network at the end, and the record."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from qjax.integerize import integerize
from qjax.record import Record, RunRecord
from qjax.surgery import format_table, layer_table, watch
from qjax.training import checkpoint
from qjax.training.calls import AUTO
from qjax.training.console import Progress
from qjax.training.devices import agreed, find_devices, first_process
from qjax.training.diagnostics import Codes, first_codes, make_diagnosis
from qjax.training.finish import evaluate, evaluate_float, result
from qjax.training.journal import Journal
from qjax.training.lock import locked
from qjax.training.loop import PhaseLoop
from qjax.training.phases import Phase
from qjax.training.programs import Programs
from qjax.training.spec import RunSpec
from qjax.training.stopping import Stop, stopped
from qjax.training.tally import Tally

CHECKPOINTS = "checkpoints"
SAVING_SHARE = 1 / 20
"""Of the time, at most, that `checkpoint_every=auto` spends on checkpoints."""


class Run:
    """One run in one folder.

    Args:
        spec: what to do.
        folder: of the record; made if missing.
        programs: compiled functions of earlier runs, to share; None to compile its own.
    """

    def __init__(self, spec: RunSpec, folder: Path, programs: Programs | None = None):
        self.spec = spec
        self.devices = find_devices(spec.settings.devices, spec.settings.batch_size)
        # Every process does the same work, but the others' files are nobody's: they go.
        self.source = folder
        self._scratch = None if first_process() else tempfile.TemporaryDirectory(prefix="qjax-")
        self.folder = Path(self._scratch.name) if self._scratch else folder
        self.programs = Programs() if programs is None else programs
        self.record = Record.create(self.folder, spec.config)
        self.float_accuracy: float | None = None
        self.began = time.perf_counter()
        self.seconds_before = 0.0
        self.steps_before = 0
        # How long the last checkpoint took, and when it was done.
        self.saving = 0.0, self.began
        self.stop = Stop()

    @property
    def seconds(self) -> float:
        """Of all processes that worked on the run, up to their last checkpoints and to now."""
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def shows(self) -> bool:
        """Whether this process says what happens."""
        return self.spec.settings.progress and first_process()

    def __call__(self, resume: bool = False) -> RunRecord:
        """Train from the start, or from the newest good checkpoint; write the record.

        Raises:
            ValueError: another process works in the folder.
        """
        with self._scratch or contextlib.nullcontext(), locked(self.folder):
            return self._run(resume)

    def _run(self, resume: bool) -> RunRecord:
        if self.shows and self.devices.count < jax.local_device_count():
            here = f"{self.devices.count} of {jax.local_device_count()} devices"
            sys.stderr.write(f"training on {here}; run.devices=all uses all of them\n")
        saved = self._newest() if resume else None
        past: dict[str, Any] = saved[1] if saved else {}
        self.float_accuracy = past.get("float_accuracy")
        self.seconds_before = past.get("seconds", 0.0)
        journal = Journal(
            self.record,
            self.spec.settings.tensorboard and first_process(),
            resumed=resume,
            done=past.get("steps", -1),
            alarms=past.get("alarms", []),
            hyperparameters=self.spec.hyperparameters(),
        )
        with journal:
            model = self._phases(past, journal)
            return self._finish(model, journal)

    def _phases(self, past: dict[str, Any], journal: Journal) -> nnx.Module:
        """Train phase after phase; the model of the last.

        A phase that lies behind the checkpoint only lends its structure.
        """
        spec = self.spec
        model, floating, before = spec.make_model(), None, None
        for index, phase in enumerate(spec.phases):
            model = self._enter(model, phase, index, behind=index <= past.get("phase", -1))
            teacher = spec.teacher(index, floating)
            settings = dataclasses.replace(spec.loop_settings(index), devices=self.devices)
            start = before if phase.continues else None
            loop = PhaseLoop(model, phase, spec.data, settings, teacher, start, self.programs)
            if phase.quantized:
                codes = first_codes(loop.graphs, self.devices.local(loop.state))
                self._note(loop, codes)
            if index == past.get("phase"):
                self._restore(loop)
                loop.tally = Tally(past.get("epoch"))
            if index >= past.get("phase", 0):
                self._train(loop, phase, index, journal)
            self.steps_before += phase.epochs * loop.steps_per_epoch
            before = loop.state
            # A resumed run finds its float network with the checkpoint, as the teacher.
            floating = (loop.teacher() or floating) if phase.quantized else loop.model()
            goes_on = any(later.epochs for later in spec.phases[index + 1 :])
            model = loop.trained() if goes_on else loop.model()
        return model

    def _enter(self, model: nnx.Module, phase: Phase, index: int, behind: bool) -> nnx.Module:
        """The model as the phase wants it; its layers are told at the first quantized phase."""
        spec = self.spec
        first = phase.quantized and not any(p.quantized for p in spec.phases[:index])
        model = spec.enter(model, index)
        if behind or not (first or phase.recipe is not None):
            return model
        quantized = watch(model, ())
        rows = layer_table(quantized, spec.sample())
        self.record.write_layers([dataclasses.asdict(row) for row in rows])
        if self.shows:
            sys.stderr.write(format_table(rows) + "\n")
        # A recipe that cannot become integer is an error now, not after hours of training.
        integerize(quantized, spec.pixels, spec.data.shape, spec.settings.policy)
        return model

    def _restore(self, loop: PhaseLoop) -> None:
        restored = self._newest(like=self.devices.local(loop.state))
        assert restored is not None, "the checkpoint was there a moment ago"
        loop.state = self.devices.replicate(restored[0])

    def _newest(self, like: Any = None) -> tuple[Any, dict[str, Any]] | None:
        """The newest good checkpoint, for each process; the first sets damaged ones aside."""
        folder = self.source / CHECKPOINTS
        if first_process():
            found = checkpoint.restore_latest(folder, like)
            agreed(True)
            return found
        agreed(True)
        return checkpoint.restore_latest(folder, like)

    def _note(self, loop: PhaseLoop, codes: Codes) -> None:
        """Keep the codes of the weights with the state, for the next diagnosis."""
        loop.state = dataclasses.replace(loop.state, codes=self.devices.replicate(codes))

    def _train(self, loop: PhaseLoop, phase: Phase, index: int, journal: Journal) -> None:
        loss = loop.settings.hooks.loss or loop.settings.step.loss
        diagnose = self.programs.get(
            ("diagnosis", loop.graphs.evaluate, tuple(phase.freeze), loss),
            lambda: make_diagnosis(loop.graphs, loss),
        )
        done = loop.steps_done // loop.steps_per_epoch
        quiet = not self.shows

        def on_call(loss: Array, steps: int) -> None:
            progress.step(loss, steps=steps)
            self._save_within(loop, index, journal)

        bar = Progress(phase.epochs, loop.steps_per_epoch, phase.name, done, quiet=quiet)
        sample, labels = self.spec.sample(), self.spec.sample_labels()
        with bar as progress, self.stop:
            for epoch in loop.epochs(on_call):
                step = self.steps_before + loop.steps_done
                last = epoch.index + 1 == phase.epochs
                found = None
                if phase.quantized and (last or self._due("diagnose_every", epoch.index)):
                    found = diagnose(self.devices.local(loop.state), sample, labels)
                    self._note(loop, found.codes)
                new = journal.epoch(step, phase.name, epoch, found)
                progress.epoch(
                    epoch.index + 1, epoch.loss, epoch.train_accuracy, epoch.test_accuracy
                )
                for text in new:
                    progress.message(f"alarm  {text}")
                if not phase.quantized:
                    self.float_accuracy = epoch.test_accuracy
                told = self.stop.told()
                if told or last or self._due("checkpoint_every", epoch.index):
                    self._save(loop, index, step, journal, told)
        if phase.epochs == 0:
            self._save(loop, index, self.steps_before, journal)

    def _due(self, name: str, epoch: int) -> bool:
        """Whether a setting asks for something at the end of an epoch, counted from 0."""
        every = getattr(self.spec.settings, name)
        if every != AUTO:
            return (epoch + 1) % every == 0
        took, ended = self.saving
        return took <= SAVING_SHARE * (time.perf_counter() - ended)

    def _save_within(self, loop: PhaseLoop, index: int, journal: Journal) -> None:
        """Save in the middle of an epoch, where the last checkpoint is old or the run must end."""
        told, minutes = self.stop.told(), self.spec.settings.checkpoint_minutes
        old = minutes is not None and time.perf_counter() - self.saving[1] >= 60 * minutes
        if told or old:
            step, epoch = self.steps_before + loop.steps_done, loop.unfinished()
            self._save(loop, index, step, journal, told, epoch=epoch)

    def _save(self, loop: PhaseLoop, index: int, step: int, journal: Journal, told=False, **more):
        """Write a checkpoint; then end the process if it was told to."""
        metadata = {
            **more,
            "phase": index,
            "steps": step,
            "float_accuracy": self.float_accuracy,
            "seconds": self.seconds,
            "alarms": journal.alarms.rows(),
        }
        begin = time.perf_counter()
        checkpoint.save(self.folder / CHECKPOINTS, step, loop.state, metadata)
        end = time.perf_counter()
        self.saving = end - begin, end
        if told:
            raise stopped(self.source, step)

    def _finish(self, model: nnx.Module, journal: Journal) -> RunRecord:
        spec = self.spec
        if spec.phases[-1].quantized:
            outcome = evaluate(spec, model, self.float_accuracy)
        else:
            assert self.float_accuracy is not None
            outcome = evaluate_float(spec, model, self.float_accuracy)
        self.record.write_layers(outcome.layers)
        journal.result(self.steps_before, outcome.accuracy)
        found = result(spec, model, outcome, self.seconds, self.devices)
        return self.record.finish(found | {"alarms": journal.alarms.rows()})


def trained_model(spec: RunSpec, folder: Path) -> tuple[nnx.Module, float | None]:
    """The model of a run's newest checkpoint, in evaluation mode, and its float accuracy.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
        ValueError: the checkpoint is of another model.
    """
    saved = checkpoint.restore_latest(folder / CHECKPOINTS)
    if saved is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint; name a folder that a run printed")
    arrays, metadata = saved
    model = spec.make_model()
    if spec.phases[metadata["phase"]].quantized:
        model = spec.quantized(model, metadata["phase"])
    trained = "average" if spec.settings.averaged else "trainable"
    load_state(model, arrays, (trained, "rest"))
    model.eval()
    return model, metadata["float_accuracy"]


def load_state(model: nnx.Module, arrays: Mapping[str, np.ndarray], parts: tuple[str, ...]) -> None:
    """Give a model the numbers of a checkpoint, in place, whatever else the checkpoint holds.

    Args:
        model: of the checkpoint's structure.
        arrays: by path, as `checkpoint.restore_latest` gives them.
        parts: names of the parts of the training state to look in, in this order.

    Raises:
        ValueError: naming a number that is missing or of another shape.
    """

    def find(path: tuple, leaf: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found = [arrays[f"{part}/{name}"] for part in parts if f"{part}/{name}" in arrays]
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf  # noise is off in evaluation
        if not found or found[0].shape != leaf.shape:
            got = f"of shape {found[0].shape}" if found else "missing"
            raise ValueError(
                f"{name} has shape {leaf.shape} in the model but is {got} in the checkpoint; use "
                "the configuration that the run was made with"
            )
        return jnp.array(found[0])

    nnx.update(model, jax.tree_util.tree_map_with_path(find, nnx.state(model)))
