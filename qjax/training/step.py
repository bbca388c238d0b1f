"""The pure training step: forward, loss, gradients, update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from qjax.integerize import PixelInput
from qjax.layers.slots import Slot
from qjax.layers.variables import Progress
from qjax.surgery import folded_kernel, penalty
from qjax.training.augment import Augment
from qjax.training.hooks import Change, CrossEntropy, Hooks, Loss, Seen, Update
from qjax.training.precision import Precision, unscaled
from qjax.training.state import Graphs, TrainState
from qjax.tree import walk

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Which images, out of the arrays that stay on the device.

    Attributes:
        images: the whole split, uint8 (N, h, w, c).
        labels: int32 (N,).
        index: int32 (n,), the batch; of a call that takes many steps (steps, n). None where images
            and labels are the batch.
    """

    images: UInt8[Array, "N h w c"]
    labels: Int[Array, " N"]
    index: Int[Array, "*steps n"] | None

    def chosen(self) -> tuple[Array, Array]:
        """Images and labels of the batch."""
        if self.index is None:
            return self.images, self.labels
        return self.images[self.index], self.labels[self.index]


jax.tree_util.register_dataclass(Batch, data_fields=["images", "labels", "index"], meta_fields=[])


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """How a step computes, whatever the method.

    Attributes:
        loss: where the hooks bring none.
        precision: arithmetic of the forward and the backward pass.
        average_decay: of the moving average of what is trained, in (0, 1); None for no average.
            Step t (from 0) takes min(average_decay, (1 + t) / (10 + t)), as TensorFlow's
            num_updates, or a short training would keep most of its initial weights.
        total_steps: for hooks and quantizers that anneal.
    """

    loss: Loss = CrossEntropy()
    precision: Precision = Precision()
    average_decay: float | None = None
    total_steps: int = 1

    def __post_init__(self) -> None:
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise ValueError(
                f"average_decay must lie between 0 and 1 or be null, got {self.average_decay!r}"
            )


USUAL = StepSettings()


def make_step(
    graphs: Graphs,
    optimizer: optax.GradientTransformation,
    pixels: PixelInput,
    augment: Augment,
    hooks: Hooks,
    seed: int | PRNGKeyArray,
    settings: StepSettings = USUAL,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step `(state, batch) -> (state, metrics)`; pure, to be jitted with the state donated.

    Args:
        graphs: of the model.
        optimizer: of the trainable part.
        pixels, augment: from bytes to the model's input.
        hooks: the method's part.
        seed: of augmentation and of the hooks' noise; or the random key that it stands for, which
            may be traced.
        settings: how the step computes.

    Returns:
        The function. Metrics: `loss` (with penalties), `correct` (count), `learning_rate`, `taken`
        (False for a step that overflowed or came after a failure), `failed` (as in the new state).
    """
    forward = _forward(graphs, hooks, settings)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        root = jax.random.key(seed) if isinstance(seed, int) else seed
        key = jax.random.fold_in(root, state.step)
        crop, before, after = jax.random.split(key, 3)
        terms = jax.random.fold_in(key, 3)
        progress = (state.step + 1) / settings.total_steps
        images, y = batch.chosen()
        x = pixels.normalise(augment(images, crop))
        (_, (value, rest, correct)), gradients = jax.value_and_grad(forward, has_aux=True)(
            state.trainable, state, x, y, terms, progress
        )
        gradients = unscaled(gradients, settings.precision.factor(state.scale))
        update = Update(
            params=state.trainable,
            updates=None,
            quantized=lambda: quantized_weights(graphs, state, progress),
            key=before,
            progress=progress,
        )
        gradients = _changed(gradients, hooks.gradients, update)
        updates, opt = optimizer.update(gradients, state.opt, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        update = dataclasses.replace(update, updates=updates, key=after)
        trainable = _changed(trainable, hooks.project, update)
        new = dataclasses.replace(
            state,
            trainable=trainable,
            rest=rest,
            opt=opt,
            step=state.step + 1,
            average=_average(state.average, trainable, settings.average_decay, state.step),
        )
        rate = opt.learning_rate  # pyright: ignore[reportAttributeAccessIssue] - see `Optimizer`
        new, taken = _guard(state, new, value)
        metrics = {"loss": value, "correct": correct, "learning_rate": rate, "taken": taken}
        return new, metrics | {"failed": new.failed}

    return step


def _forward(graphs: Graphs, hooks: Hooks, settings: StepSettings) -> Callable:
    """The differentiated function: (trainable, state, images, labels, key, progress) -> (scaled
    loss, (loss, rest, count of right classes)).
    """
    loss = hooks.loss or settings.loss
    dtype = settings.precision.dtype

    def forward(trainable: Any, state: TrainState, x: Array, y: Array, key, progress):
        model = nnx.merge(graphs.train, trainable, with_progress(state.rest, progress), copy=True)
        logits = model(x.astype(dtype)).astype(jnp.float32)
        total = loss(logits, y) + penalty(model)
        teacher = None
        if graphs.teacher is not None and hooks.extra:
            teacher = nnx.merge(graphs.teacher, *state.teacher, copy=True)(x)
        for index, term in enumerate(hooks.extra):
            term_key = jax.random.fold_in(key, index)
            total = total + term(Seen(model, x, y, logits, teacher, term_key, progress))
        correct = jnp.sum(jnp.argmax(logits, -1) == y)
        scaled = total * settings.precision.factor(state.scale)
        return scaled, (total, graphs.rest(model), correct)

    return forward


def with_progress(rest: nnx.State, progress: Float[Array, ""]) -> nnx.State:
    """The state with the share of the training that is done, where a quantizer asks for it."""
    return nnx.map_state(
        lambda _, leaf: leaf.replace(progress) if isinstance(leaf, Progress) else leaf, rest
    )


def quantized_weights(graphs: Graphs, state: TrainState, progress: Float[Array, ""]) -> nnx.State:
    """What is trained, with every quantized kernel as its layer's product receives it.

    Args:
        graphs: of the model.
        state: as before the step, so that stochastic quantizers repeat the step's own noise.
        progress: share of the training done.
    """
    rest = with_progress(state.rest, progress)
    model = nnx.merge(graphs.train, state.trainable, rest, copy=True)
    for _, layer in walk(model):
        slot = getattr(layer, "weight", None)
        if isinstance(slot, Slot):
            layer.kernel[...] = slot(folded_kernel(layer))  # pyright: ignore
    return nnx.split(model, graphs.moves, ...)[1]


def _changed(tree: Any, hooks: Sequence[Change], update: Update) -> Any:
    for index, hook in enumerate(hooks):
        key: PRNGKeyArray = jax.random.fold_in(update.key, index)
        tree = hook(tree, dataclasses.replace(update, key=key))
    return tree


def _average(average: Any, trainable: Any, decay: float | None, step: Int[Array, ""]) -> Any:
    if decay is None:
        return None
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, w: a + rate * (w - a), average, trainable)


def _guard(old: TrainState, new: TrainState, loss: Array) -> tuple[TrainState, Array]:
    """(`new`, True), or (`old`, False) where something is not finite.

    The update is finite only if loss and gradients were, so that the new parameters and statistics
    tell all; their sum is a cheap witness, since NaN and infinity survive addition. A dynamic loss
    scale above 1 is halved and training goes on; otherwise the failing step is noted.
    """
    leaves = jax.tree.leaves((new.trainable, new.rest))
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    witness = loss + sum(jnp.sum(leaf * 0) for leaf in floats)
    finite = jnp.isfinite(witness)
    fine = finite & (old.failed < 0)
    kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
    broken = ~finite
    if old.scale is not None:
        # An overflowing step counts, or epochs would lose their length.
        step = jnp.where(old.failed < 0, new.step, old.step)
        kept = dataclasses.replace(kept, scale=old.scale.after(finite), step=step)
        broken = broken & (old.scale.value <= 1)
    failed = jnp.where(old.failed < 0, jnp.where(broken, old.step, -1), old.failed)
    return dataclasses.replace(kept, failed=failed.astype(jnp.int32)), fine
