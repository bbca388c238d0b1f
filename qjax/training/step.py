"""The pure training step: forward, loss, gradients, update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from qjax.integerize import PixelInput
from qjax.layers.slots import Slot
from qjax.layers.variables import Progress
from qjax.surgery import penalty
from qjax.training.augment import Augment
from qjax.training.hooks import Change, CrossEntropy, Hooks, Loss, Seen, Update
from qjax.training.state import TRAINABLE, Graphs, TrainState
from qjax.tree import walk

Metrics = dict[str, Array]
CROSS_ENTROPY = CrossEntropy()


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
    total_steps: int = 1,
    loss: Loss = CROSS_ENTROPY,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step `(state, batch) -> (state, metrics)`; pure, to be jitted with the state donated.

    Args:
        graphs: of the model.
        optimizer: of the trainable part.
        pixels, augment: from bytes to the model's input.
        hooks: the method's part.
        seed: of augmentation and of the hooks' noise.
        total_steps: of the phase, for the hooks and quantizers that anneal.
        loss: where the hooks bring none.

    Returns:
        The function. Metrics: `loss` (with penalties), `correct` (count), `learning_rate`.
    """
    loss = hooks.loss or loss

    def forward(trainable: nnx.State, rest: nnx.State, x: Array, y: Array, key, progress):
        model = nnx.merge(graphs.train, trainable, with_progress(rest, progress), copy=True)
        logits = model(x)
        total = loss(logits, y) + penalty(model)
        for index, term in enumerate(hooks.extra):
            term_key = jax.random.fold_in(key, index)
            total = total + term(Seen(model, x, y, logits, term_key, progress))
        _, _, rest = nnx.split(model, TRAINABLE, ...)
        return total, (rest, jnp.sum(jnp.argmax(logits, -1) == y))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        crop, before, after = jax.random.split(key, 3)
        terms = jax.random.fold_in(key, 3)
        progress = (state.step + 1) / total_steps
        x = pixels.normalise(augment(batch.images[batch.index], crop))
        y = batch.labels[batch.index]
        (value, (rest, correct)), gradients = jax.value_and_grad(forward, has_aux=True)(
            state.trainable, state.rest, x, y, terms, progress
        )
        update = Update(
            params=state.trainable,
            updates=None,
            quantized=lambda: quantized_weights(
                graphs.train, state.trainable, with_progress(state.rest, progress)
            ),
            key=before,
            progress=progress,
        )
        gradients = _changed(gradients, hooks.gradients, update)
        updates, opt = optimizer.update(gradients, state.opt, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        update = dataclasses.replace(update, updates=updates, key=after)
        trainable = _changed(trainable, hooks.project, update)
        metrics = {"loss": value, "correct": correct, "learning_rate": opt.learning_rate}
        new = TrainState(trainable, rest, opt, state.step + 1, state.failed)
        return _guard(state, new, value), metrics

    return step


def with_progress(rest: nnx.State, progress: Float[Array, ""]) -> nnx.State:
    """The state with the share of the training that is done, where a quantizer asks for it."""
    return nnx.map_state(
        lambda _, leaf: leaf.replace(progress) if isinstance(leaf, Progress) else leaf, rest
    )


def quantized_weights(graph: nnx.GraphDef, trainable: nnx.State, rest: nnx.State) -> nnx.State:
    """`trainable` with every quantized kernel as its layer's product receives it.

    Args:
        graph: training-mode graph definition.
        trainable, rest: as before the step: stochastic quantizers repeat the step's own noise.
    """
    model = nnx.merge(graph, trainable, rest, copy=True)
    for _, layer in walk(model):
        slot = getattr(layer, "weight", None)
        if isinstance(slot, Slot):
            norm = getattr(layer, "norm", None)
            kernel = layer.kernel[...]  # pyright: ignore[reportAttributeAccessIssue]
            folded = kernel if norm is None else norm.folded(kernel)
            layer.kernel[...] = slot(folded)  # pyright: ignore[reportAttributeAccessIssue]
    return nnx.split(model, TRAINABLE, ...)[1]


def _changed(tree: nnx.State, hooks: Sequence[Change], update: Update) -> nnx.State:
    for index, hook in enumerate(hooks):
        key: PRNGKeyArray = jax.random.fold_in(update.key, index)
        tree = hook(tree, dataclasses.replace(update, key=key))
    return tree


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
