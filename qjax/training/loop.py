"""The loop of one phase: fetch, step, look, save. It knows no method and no file format."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from qjax.data.batches import batch_indices, epoch_order
from qjax.data.dataset import Dataset
from qjax.integerize import PixelInput
from qjax.training.augment import Augment
from qjax.training.diagnostics import first_nonfinite
from qjax.training.evaluation import Evaluator
from qjax.training.hooks import Hooks, Loss
from qjax.training.phases import Phase
from qjax.training.state import TrainState, labels, split
from qjax.training.step import CROSS_ENTROPY, Batch, make_step

NO_HOOKS = Hooks()


class NonFiniteError(RuntimeError):
    """Loss, gradients or statistics stopped being finite; the message names step and layer."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        index: counted from 0 within the phase.
        loss: mean over the steps, penalties included.
        train_accuracy: running, over the augmented training batches.
        test_accuracy: after the epoch, on the held-out split.
        learning_rate: of the last step.
        seconds: training and evaluation.
    """

    index: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    learning_rate: float
    seconds: float


class PhaseLoop:
    """One phase, ready to run or to resume.

    Args:
        model: float or simulated; not changed.
        phase: what to do.
        data: uint8 images; both splits stay in memory, the train split on the device.
        batch_size: images a step, at most the size of the split.
        seed: of the order of images, augmentation and noise.
        hooks: the method's part in the step.
        loss: where the hooks bring none.
        check_every: steps between looks at the loss (a look waits for the device).
    """

    def __init__(
        self,
        model: nnx.Module,
        phase: Phase,
        data: Dataset,
        batch_size: int,
        seed: int,
        check_every: int = 50,
        hooks: Hooks = NO_HOOKS,
        loss: Loss = CROSS_ENTROPY,
    ):
        if not 1 <= batch_size <= len(data.train_labels):
            raise ValueError(
                f"batch_size must be from 1 to {len(data.train_labels)} (the images of "
                f"{data.name}'s train split), got {batch_size}"
            )
        self.data, self.phase, self.batch_size, self.seed = data, phase, batch_size, seed
        self.check_every = check_every
        self.pixels = PixelInput(data.mean, data.std)
        self.steps_per_epoch = len(data.train_labels) // batch_size
        self.graphs, trainable, rest = split(model)
        total = max(1, phase.epochs * self.steps_per_epoch)
        optimizer = phase.scaled_optimizer().build(total, self.steps_per_epoch, labels(trainable))
        self.state = TrainState(
            trainable, rest, optimizer.init(trainable), jnp.int32(0), jnp.int32(-1)
        )
        augment = Augment(data.augmentation.pad, data.augmentation.flip)
        step = make_step(self.graphs, optimizer, self.pixels, augment, hooks, seed, total, loss)
        self.step = jax.jit(step, donate_argnums=0)
        self.evaluator = Evaluator(self.graphs.evaluate, self.pixels)
        self.images = jnp.asarray(data.train_images)
        self.labels = jnp.asarray(data.train_labels)

    @property
    def states(self) -> tuple[nnx.State, nnx.State]:
        """What the evaluation graph is merged with."""
        return self.state.trainable, self.state.rest

    def epochs(self, on_step: Callable[[Array], None] | None = None) -> Iterator[Epoch]:
        """Train epoch by epoch from wherever the state stands.

        Args:
            on_step: called with the loss, still on the device, after each step.

        Raises:
            NonFiniteError: naming the step and the first layer that is not finite.
        """
        start = int(self.state.step) // self.steps_per_epoch
        for index in range(start, self.phase.epochs):
            begin = time.perf_counter()
            loss, correct, rate = self._train_epoch(index, on_step)
            accuracy = self.test_accuracy()
            images = self.steps_per_epoch * self.batch_size
            seconds = time.perf_counter() - begin
            yield Epoch(index, loss, correct / images, accuracy, rate, seconds)

    def test_accuracy(self) -> float:
        """Accuracy on the held-out split with the present state."""
        return self.evaluator.accuracy(self.states, self.data.test_images, self.data.test_labels)

    def model(self) -> nnx.Module:
        """The trained model in evaluation mode."""
        return nnx.merge(self.graphs.evaluate, *jax.tree.map(jnp.copy, self.states))

    def _batch(self, index: np.ndarray) -> Batch:
        return Batch(self.images, self.labels, jnp.asarray(index))

    def _order(self, epoch: int) -> list[np.ndarray]:
        order = epoch_order(self.seed, epoch, len(self.data.train_labels))
        return batch_indices(order, self.batch_size, drop_last=True)

    def _train_epoch(self, epoch: int, on_step) -> tuple[float, float, float]:
        metrics: list[dict[str, Array]] = []
        for i, index in enumerate(self._order(epoch)):
            self.state, found = self.step(self.state, self._batch(index))
            metrics.append(found)
            if (i + 1) % self.check_every == 0:
                self._check_finite()
            if on_step is not None:
                on_step(found["loss"])
        self._check_finite()
        host = jax.device_get(metrics)
        rate = float(host[-1]["learning_rate"])
        mean_loss = float(np.mean([row["loss"] for row in host]))
        return mean_loss, float(sum(row["correct"] for row in host)), rate

    def _check_finite(self) -> None:
        failed = int(self.state.failed)
        if failed < 0:
            return
        # The state stopped at the failing step, so the step can be looked at again.
        epoch, position = divmod(failed, self.steps_per_epoch)
        images = self.images[jnp.asarray(self._order(epoch)[position])]
        layer = first_nonfinite(self.graphs.train, self.states, self.pixels.normalise(images))
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
