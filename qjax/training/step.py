"""The pure training step: forward, loss, gradients, update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from qjax.integerize import PixelInput
from qjax.surgery import penalty
from qjax.training.augment import Augment
from qjax.training.state import TRAINABLE, Graphs, TrainState

Loss = Callable[[Float[Array, "n k"], Int[Array, " n"]], Float[Array, ""]]
Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Mean softmax cross-entropy.

    Attributes:
        smoothing: label smoothing in [0, 1): that share of each target is spread over all classes.
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"CrossEntropy.smoothing must be in [0, 1), got {self.smoothing!r}")

    def __call__(self, logits: Float[Array, "n k"], targets: Int[Array, " n"]) -> Float[Array, ""]:
        """The mean over the batch."""
        logits = logits.astype(jnp.float32)
        if not self.smoothing:
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets))
        soft = optax.smooth_labels(jax.nn.one_hot(targets, logits.shape[-1]), self.smoothing)
        return jnp.mean(optax.softmax_cross_entropy(logits, soft))


@dataclasses.dataclass(frozen=True)
class Hooks:
    """Where a method takes part in the step without editing it.

    Attributes:
        loss: of logits and labels.
        extra: each (model, images, logits) -> a term added to the loss.
        gradients: each (gradients, trainable, key) -> gradients, before the optimizer.
        project: each (new trainable, old trainable, key) -> trainable, after the update.
    """

    loss: Loss = CrossEntropy()
    extra: tuple[Callable[[nnx.Module, Array, Array], Array], ...] = ()
    gradients: tuple[Callable[[nnx.State, nnx.State, PRNGKeyArray], nnx.State], ...] = ()
    project: tuple[Callable[[nnx.State, nnx.State, PRNGKeyArray], nnx.State], ...] = ()


@dataclasses.dataclass(frozen=True)
class Batch:
    """Which images, out of the arrays that stay on the device.

    Attributes:
        images: the whole split, uint8 (N, h, w, c).
        labels: int32 (N,).
        index: int32 (n,), the batch.
    """

    images: UInt8[Array, "N h w c"]
    labels: Int[Array, " N"]
    index: Int[Array, " n"]


jax.tree_util.register_dataclass(Batch, data_fields=["images", "labels", "index"], meta_fields=[])


def make_step(
    graphs: Graphs,
    optimizer: optax.GradientTransformation,
    pixels: PixelInput,
    augment: Augment,
    hooks: Hooks,
    seed: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step `(state, batch) -> (state, metrics)`; pure, to be jitted with the state donated.

    Metrics: `loss` (with penalties), `correct` (count), `learning_rate`.
    """

    def forward(trainable: nnx.State, rest: nnx.State, x: Array, y: Array):
        model = nnx.merge(graphs.train, trainable, rest, copy=True)
        logits = model(x)
        loss = hooks.loss(logits, y) + penalty(model)
        for term in hooks.extra:
            loss = loss + term(model, x, logits)
        _, _, rest = nnx.split(model, TRAINABLE, ...)
        return loss, (rest, jnp.sum(jnp.argmax(logits, -1) == y))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        crop, noise, rounding = jax.random.split(key, 3)
        x = pixels.normalise(augment(batch.images[batch.index], crop))
        y = batch.labels[batch.index]
        (loss, (rest, correct)), gradients = jax.value_and_grad(forward, has_aux=True)(
            state.trainable, state.rest, x, y
        )
        for hook in hooks.gradients:
            gradients = hook(gradients, state.trainable, noise)
        updates, opt = optimizer.update(gradients, state.opt, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        for hook in hooks.project:
            trainable = hook(trainable, state.trainable, rounding)
        metrics = {"loss": loss, "correct": correct, "learning_rate": opt.learning_rate}
        return _guard(
            state, TrainState(trainable, rest, opt, state.step + 1, state.failed), loss
        ), metrics

    return step


def _guard(old: TrainState, new: TrainState, loss: Array) -> TrainState:
    """`new`, or `old` with the failing step noted once something is not finite.

    The update is finite only if loss and gradients were, so that the new parameters and statistics
    tell all; their sum is a cheap witness, since NaN and infinity survive addition.
    """
    leaves = jax.tree.leaves((new.trainable, new.rest))
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    witness = loss + sum(jnp.sum(leaf * 0) for leaf in floats)
    fine = jnp.isfinite(witness) & (old.failed < 0)
    failed = jnp.where(fine, -1, jnp.where(old.failed < 0, old.step, old.failed))
    kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
    return dataclasses.replace(kept, failed=failed.astype(jnp.int32))
