"""Where a method takes part in training without editing it.

| hook | when | call |
|---|---|---|
| `initialise` | as the run (a phase's own: the phase) starts, before the recipe | `(model, key)` |
| `start` | then, quantizers bound: masks, first scales | `(model, key)` |
| `loss` | each step | `(logits, labels) -> term` |
| `extra` | each step, added to the loss | `(Seen) -> term` |
| `gradients` | each step, before the optimizer | `(gradients, Update) -> gradients` |
| `project` | each step, after the update | `(trainable, Update) -> trainable` |

The first two change numbers of the model in place, never its structure, and run on the host; the
others are traced into the step. A hook is any callable, a frozen dataclass where it has settings,
named in YAML by `_target_`. Random keys follow from seed, phase, step and the hook's place in its
list. A loss term that belongs to one quantizer needs no hook: `Quantizer.penalty`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Mean softmax cross-entropy.

    Attributes:
        smoothing: label smoothing in [0, 1): that share of each target is spread over all classes.
        weight: factor of the mean, > 0 (distillation halves it).
    """

    smoothing: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"CrossEntropy.smoothing must be in [0, 1), got {self.smoothing!r}")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"CrossEntropy.weight must be positive, got {self.weight!r}")

    def __call__(self, logits: Float[Array, "n k"], targets: Int[Array, " n"]) -> Float[Array, ""]:
        """The mean over the batch, times `weight`."""
        logits = logits.astype(jnp.float32)
        if not self.smoothing:
            each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        else:
            soft = optax.smooth_labels(jax.nn.one_hot(targets, logits.shape[-1]), self.smoothing)
            each = optax.softmax_cross_entropy(logits, soft)
        mean = jnp.mean(each)
        return mean if self.weight == 1 else self.weight * mean


@dataclasses.dataclass(frozen=True)
class Seen:
    """What an extra loss term may look at, inside the differentiated function.

    Attributes:
        model: the model after its forward pass, simulated where the phase is quantized.
        images: its float input (n, h, w, c).
        labels: int32 (n,).
        logits: its output (n, k), float32.
        teacher: the teacher's output; None in a phase without one.
        key: fresh at every step.
        progress: share of the training done when this step is, in (0, 1].
    """

    model: nnx.Module
    images: Array
    labels: Int[Array, " n"]
    logits: Float[Array, "n k"]
    teacher: Float[Array, "n k"] | None
    key: PRNGKeyArray
    progress: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Update:
    """What the hooks around the optimizer may look at.

    Attributes:
        params: what is trained, as it was before the update.
        updates: what the optimizer adds to it; None before the optimizer has run.
        quantized: gives `params` with each kernel as its layer's product received it, computed when
            called.
        key: fresh at every step.
        progress: share of the training done when this step is, in (0, 1].
    """

    params: nnx.State
    updates: Any
    quantized: Callable[[], nnx.State]
    key: PRNGKeyArray
    progress: Float[Array, ""]


Loss = Callable[[Float[Array, "n k"], Int[Array, " n"]], Float[Array, ""]]
OnModel = Callable[[nnx.Module, PRNGKeyArray], None]
Term = Callable[[Seen], Float[Array, ""]]
Change = Callable[[nnx.State, Update], nnx.State]


@dataclasses.dataclass(frozen=True)
class Hooks:
    """A method's part in training; lists, as YAML has them, become tuples.

    Attributes:
        initialise, start, extra, gradients, project: called in order, see the module's table.
        loss: of logits and labels; None for the run's own, cross-entropy.
    """

    initialise: Sequence[OnModel] = ()
    start: Sequence[OnModel] = ()
    loss: Loss | None = None
    extra: Sequence[Term] = ()
    gradients: Sequence[Change] = ()
    project: Sequence[Change] = ()

    def __post_init__(self) -> None:
        for name in ("initialise", "start", "extra", "gradients", "project"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(map(callable, value)):
                raise TypeError(
                    f"Hooks.{name} must be a list of callables, got {value!r}; give each a "
                    "`_target_`"
                )
            object.__setattr__(self, name, tuple(value))
        if self.loss is not None and not callable(self.loss):
            raise TypeError(f"Hooks.loss must be a callable or null, got {self.loss!r}")


def joined(run: Hooks, own: Hooks, phase: str) -> Hooks:
    """A run's hooks and a phase's own as one.

    Args:
        run, own: of which each field is set in one at most.
        phase: its name, for the message.

    Raises:
        ValueError: naming a field that both set.
    """
    given = {f.name: getattr(own, f.name) for f in dataclasses.fields(own) if getattr(own, f.name)}
    for name in given:
        if getattr(run, name):
            raise ValueError(
                f"phase {phase!r} and the run's hooks both set {name}, to {given[name]!r} and "
                f"{getattr(run, name)!r}; leave one out (hooks=none, or another procedure)"
            )
    return dataclasses.replace(run, **given)


def check_smoothing(usual: Loss, loss: Loss | None, phase: str) -> None:
    """Raise where a hook's loss would drop the label smoothing that the run asks for.

    Args:
        usual: the run's own loss.
        loss: that of the phase's hooks; None for the run's own.
        phase: its name, for the message.

    Raises:
        ValueError: naming both.
    """
    smoothing = getattr(usual, "smoothing", 0.0)
    if loss is not None and smoothing and getattr(loss, "smoothing", 0.0) != smoothing:
        raise ValueError(
            f"label_smoothing is {smoothing}, but phase {phase!r} has the loss {loss!r}, which "
            "does not take it; set label_smoothing=0.0, or the same smoothing in that loss"
        )


def run_on(model: nnx.Module, hooks: Sequence[OnModel], seed: int, phase: int, when: int) -> None:
    """Run `initialise` or `start` hooks on a model, in place.

    Args:
        seed: of the run.
        phase: its index.
        when: 0 for `initialise`, 1 for `start`: tells their random keys apart.
    """
    # The steps take fold_in(key(seed), step): a number that no step reaches keeps clear of them.
    key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)
    key = jax.random.fold_in(jax.random.fold_in(key, phase), when)
    for index, hook in enumerate(hooks):
        hook(model, jax.random.fold_in(key, index))
