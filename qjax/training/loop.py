"""The loop of one phase: fetch, step, look, save. It knows no method and no file format."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from qjax.integerize import PixelInput
from qjax.training.augment import Augment
from qjax.training.calls import AUTO, check_steps_per_call, scanned, steps_in_call
from qjax.training.devices import ONE, Devices
from qjax.training.diagnostics import first_nonfinite
from qjax.training.evaluation import Evaluator
from qjax.training.feed import Images, Resident, feed
from qjax.training.hooks import Hooks
from qjax.training.phases import Phase
from qjax.training.programs import Programs, untraced
from qjax.training.state import TrainState, carried, labels, split
from qjax.training.step import USUAL, Batch, Metrics, StepSettings, make_step
from qjax.training.tally import Epoch, Tally


class NonFiniteError(RuntimeError):
    """Loss, gradients or statistics stopped being finite; the message names step and layer."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How a phase is carried out.

    Attributes:
        batch_size: images a step, at most the size of the split.
        seed: of the order of images, augmentation and noise.
        check_every: steps between looks at the loss (a look waits for the device).
        eval_batch: images at a time in evaluation.
        devices: that share a batch.
        steps_per_call: most steps that one call of a compiled program takes, or "auto", see
            `qjax.training.calls`; 1 for images that are read as they are needed.
        hooks: the method's part in the step.
        step: how a step computes; its `total_steps` is set here.
        averaged: whether evaluation uses the moving average of the weights.
        epochs_before, epochs_in_all: of the phases that share a schedule with this one, see
            `qjax.training.phases.chain`; 0 in all for the phase's own.
    """

    batch_size: int
    seed: int
    check_every: int = 50
    eval_batch: int = 256
    devices: Devices = ONE
    steps_per_call: int | str = AUTO
    hooks: Hooks = Hooks()
    step: StepSettings = USUAL
    averaged: bool = False
    epochs_before: int = 0
    epochs_in_all: int = 0

    def __post_init__(self) -> None:
        check_steps_per_call(self.steps_per_call)
        if self.averaged and self.step.average_decay is None:
            raise ValueError(
                "evaluation of averaged weights needs an average; set average_decay (0.999)"
            )


class PhaseLoop:
    """One phase, ready to run or to resume.

    Args:
        model: float or simulated; not changed.
        phase: what to do.
        data: uint8 images, in memory (the train split on the device) or read as they are needed.
        settings: how.
        teacher: whose outputs the hooks see; not changed.
        before: state at the end of the phase that this one continues.
        programs: compiled functions of earlier loops, to share; None to compile its own.

    Attributes:
        state: where the phase stands.
        tally: of the epoch that it stands in.
    """

    def __init__(
        self,
        model: nnx.Module,
        phase: Phase,
        data: Images,
        settings: LoopSettings,
        teacher: nnx.Module | None = None,
        before: TrainState | None = None,
        programs: Programs | None = None,
    ):
        if not 1 <= settings.batch_size <= len(data.train_labels):
            raise ValueError(
                f"batch_size must be from 1 to {len(data.train_labels)} (the images of "
                f"{data.name}'s train split), got {settings.batch_size}"
            )
        self.data, self.phase, self.settings, self.tally = data, phase, settings, Tally()
        self.pixels = PixelInput(data.mean, data.std)
        self.steps_per_epoch = len(data.train_labels) // settings.batch_size
        self.graphs, trainable, rest = split(model, phase.freeze)
        taught = None
        if teacher is not None:
            teaching, *taught = split(teacher)
            self.graphs = dataclasses.replace(self.graphs, teacher=teaching.evaluate)
        total = max(1, (settings.epochs_in_all or phase.epochs) * self.steps_per_epoch)
        optimizer = phase.scaled_optimizer().build(total, self.steps_per_epoch, labels(trainable))
        self.state = self._first(trainable, rest, optimizer.init(trainable), taught, before)
        programs = Programs() if programs is None else programs
        self.feed = feed(data, settings.batch_size, settings.seed, programs, settings.devices)
        self.steps_per_call = 1
        if isinstance(self.feed, Resident):
            self.steps_per_call = steps_in_call(settings.steps_per_call, self.steps_per_epoch)
        self._compile(optimizer, total, programs)

    def _compile(
        self, optimizer: optax.GradientTransformation, total: int, programs: Programs
    ) -> None:
        """Set `step` (one), `call` (as many as one call takes) and `evaluator`, each shared with
        every loop that differs from this one in traced numbers only.
        """
        graphs, pixels, settings = self.graphs, self.pixels, self.settings
        computing = dataclasses.replace(settings.step, total_steps=total)
        augment = Augment(self.data.augmentation.pad, self.data.augmentation.flip)
        fixed = pixels, augment, settings.hooks, computing, settings.devices
        # What an optimizer moves follows from the graph and the words in `freeze`.
        modules = graphs.train, graphs.evaluate, graphs.teacher, tuple(self.phase.freeze)
        rule = untraced(self.phase.scaled_optimizer()), self.steps_per_epoch

        def step(key: PRNGKeyArray, state: TrainState, batch: Batch):
            one = make_step(graphs, optimizer, pixels, augment, settings.hooks, key, computing)
            return one(state, batch)

        def compiled(length: int) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
            many = step if length == 1 else scanned(step)
            key = ("step", length, *modules, *rule, *fixed)
            found = programs.get(key, lambda: settings.devices.jit(many, donate_argnums=1))
            return partial(found, jax.random.key(settings.seed))

        # What is not called is not compiled.
        self.step = compiled(1)
        self.call = self.step if self.steps_per_call == 1 else compiled(self.steps_per_call)
        self.evaluator = programs.get(
            ("evaluator", graphs.evaluate, pixels, settings.devices),
            lambda: Evaluator(graphs.evaluate, pixels, settings.devices),
        )

    def _first(
        self, trainable: Any, rest: Any, opt: Any, taught: Any, before: TrainState | None
    ) -> TrainState:
        """The state at the start, as far as it can with what the phase before had reached."""
        average = None
        if self.settings.step.average_decay is not None:
            average = jax.tree.map(jnp.copy, trainable)
        scale = self.settings.step.precision.start()
        if before is not None:
            opt = carried(opt, before.opt)
            average = None if average is None else carried(average, before.average)
            scale = None if scale is None else carried(scale, before.scale)
        start = self.settings.epochs_before * self.steps_per_epoch
        state = TrainState(
            trainable, rest, opt, jnp.int32(start), jnp.int32(-1), average, scale, taught
        )
        return self.settings.devices.replicate(state)

    @property
    def states(self) -> tuple[nnx.State, nnx.State]:
        """What the evaluation graph is merged with."""
        state = self.state
        return (state.average if self.settings.averaged else state.trainable), state.rest

    @property
    def steps_done(self) -> int:
        """Steps taken in this phase."""
        return int(self.state.step) - self.settings.epochs_before * self.steps_per_epoch

    def epochs(self, on_call: Callable[[Array, int], None] | None = None) -> Iterator[Epoch]:
        """Train epoch by epoch from wherever the state stands.

        Args:
            on_call: called after each call of the compiled program with the loss of its last step,
                still on the device, and the number of its steps.

        Raises:
            NonFiniteError: naming the step and the first layer that is not finite.
        """
        settings = self.settings
        start = (self.steps_done - self.tally.steps) // self.steps_per_epoch
        first = int(self.state.step)
        last = (settings.epochs_before + self.phase.epochs) * self.steps_per_epoch
        # One stream for the phase: reading ahead goes on across the ends of epochs.
        with closing(self.calls(first, last)) as stream:
            for index in range(start, self.phase.epochs):
                begin = time.perf_counter()
                self._train_epoch(stream, on_call)
                loss, correct, rate = self.tally.totals()
                self.tally = Tally()
                accuracy = self.test_accuracy()
                images = self.steps_per_epoch * settings.batch_size
                seconds = time.perf_counter() - begin
                yield Epoch(index, loss, correct / images, accuracy, rate, seconds)

    def test_accuracy(self) -> float:
        """Accuracy on the held-out split with the present state."""
        images = self.feed.held_out(self.settings.eval_batch)
        return self.evaluator.accuracy(self.states, images, self.data.test_labels)

    def model(self) -> nnx.Module:
        """The trained model in evaluation mode, to evaluate and to convert."""
        return self._merged(self.graphs.evaluate, self.states)

    def trained(self) -> nnx.Module:
        """The same with the weights themselves, never their average: what training goes on from."""
        return self._merged(self.graphs.evaluate, (self.state.trainable, self.state.rest))

    def teacher(self) -> nnx.Module | None:
        """The teacher, in evaluation mode."""
        if self.graphs.teacher is None:
            return None
        return self._merged(self.graphs.teacher, self.state.teacher)

    def _merged(self, graph: nnx.GraphDef, states: Any) -> nnx.Module:
        return nnx.merge(graph, *jax.tree.map(jnp.copy, self.settings.devices.local(states)))

    def batch(self, epoch: int, position: int) -> Batch:
        """The batch of a step, by epoch (of all that share the schedule) and place in it."""
        step = epoch * self.steps_per_epoch + position
        (batch,) = self.feed.batches(step, step + 1)
        return batch

    def calls(self, first: int, last: int) -> Generator[Batch]:
        """What `call` takes, from step `first` to before `last`, counted as in `feed`."""
        if self.steps_per_call > 1 and isinstance(self.feed, Resident):
            return self.feed.calls(first, last, self.steps_per_call)
        return self.feed.batches(first, last)

    def unfinished(self) -> dict[str, Any]:
        """What the epoch came to so far, to be saved with the state and given to a `Tally`.

        Raises:
            NonFiniteError: the state is not worth saving.
        """
        self._check_finite(self.state.failed)
        return self.tally.saved()

    def _train_epoch(self, stream: Iterator[Batch], on_call) -> None:
        steps, every = self.steps_per_epoch, self.settings.check_every
        before: Array | None = None
        for begin in range(self.tally.steps, steps, self.steps_per_call):
            self.state, found = self.call(self.state, next(stream))
            end = min(begin + self.steps_per_call, steps)
            self.tally.add(found, end - begin)
            if end // every > begin // every and before is not None:
                # At the call before, so that the device has this one to do meanwhile.
                self._check_finite(before)
            before = found["failed"]
            if on_call is not None:
                loss = found["loss"]
                on_call(loss[end - begin - 1] if loss.ndim else loss, end - begin)
        self._check_finite(self.state.failed)

    def _check_finite(self, noted: Array) -> None:
        failed = int(np.asarray(noted).ravel()[-1])
        if failed < 0:
            return
        # The state stopped at the failing step, so the step can be looked at again.
        epoch = failed // self.steps_per_epoch
        images = jnp.asarray(self.feed.pixels(failed))
        states = self.settings.devices.local((self.state.trainable, self.state.rest))
        x = self.pixels.normalise(images).astype(self.settings.step.precision.dtype)
        layer = first_nonfinite(self.graphs.train, states, x)
        where = (
            f"layer {layer!r} is the first whose output is not finite"
            if layer
            else ("every layer's output is finite, so the loss or its gradient is not")
        )
        raise NonFiniteError(
            f"training stopped being finite at step {failed} (epoch {epoch + 1}, phase "
            f"{self.phase.name!r}): {where}. Lower optim.learning_rate, set optim.clip_norm, or "
            "start from a float phase (procedure=finetune)"
        )
