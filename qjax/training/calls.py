"""How many training steps one call of a compiled program takes.

On an accelerator a small network's step ends sooner than Python starts the next one, so that a call
takes many steps in one `lax.scan`. On CPU a call takes one: XLA's gradients of convolutions are
about 50 times slower there within a loop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, PRNGKeyArray

from qjax.training.step import Batch, Metrics

AUTO = "auto"
ON_ACCELERATORS = 64
"""Most steps in a call there: the time between two calls no longer counts, a look at a terminal
still shows progress."""

Step = Callable[[PRNGKeyArray, Any, Batch], tuple[Any, Metrics]]


def check_steps_per_call(value: Any) -> None:
    """Raise unless `value` is "auto" or a number of steps.

    Raises:
        ValueError: naming field, value and what is allowed.
    """
    if value == AUTO or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return
    raise ValueError(
        f"steps_per_call must be auto or a whole number of at least 1, got {value!r}; auto takes "
        f"1 on CPU and up to {ON_ACCELERATORS} on accelerators"
    )


def steps_in_call(most: int | str, steps_per_epoch: int) -> int:
    """Steps in one call: that length of `most` to half of it which fills an epoch best, so that few
    places of its last call stay empty; the longest of those.

    Args:
        most: steps, or "auto".
        steps_per_epoch: at least 1; no call goes beyond it.

    Example:
        >>> steps_in_call(64, 390), steps_in_call(64, 781), steps_in_call(1, 390)
        (39, 46, 1)
    """
    if most == AUTO:
        most = 1 if jax.default_backend() == "cpu" else ON_ACCELERATORS
    assert isinstance(most, int)
    most = min(most, steps_per_epoch)
    lengths = range(most, (most - 1) // 2, -1)
    return min(lengths, key=lambda n: math.ceil(steps_per_epoch / n) * n)


def in_calls(
    batches: Int32[np.ndarray, "m n"], length: int
) -> list[Int32[np.ndarray, "{length} n"]]:
    """Batches cut into calls; empty places of the last one hold -1.

    Args:
        batches: indices of images, a step a row.
        length: steps in a call.
    """
    missing = -len(batches) % length
    filled = np.pad(batches, ((0, missing), (0, 0)), constant_values=-1)
    return list(filled.reshape(-1, length, batches.shape[1]))


def gathered(calls: Sequence[Metrics], steps: int) -> dict[str, np.ndarray]:
    """Metrics on the host, a step a row.

    Args:
        calls: of each call; empty places only in the last.
        steps: that were taken.
    """
    host = jax.device_get(calls)
    return {k: np.concatenate([np.atleast_1d(m[k]) for m in host])[:steps] for k in host[0]}


def scanned(step: Step) -> Step:
    """Many steps as one: `(key, state, batch) -> (state, metrics)` with a batch's `index` and each
    metric along a new first axis.

    A place whose index is -1 takes no step, and its metrics mean nothing. The numbers are those of
    single steps, save that a compiler may order a sum otherwise within a loop (last bits).

    Args:
        step: one step; it leaves the whole state but `failed` and `scale` as it is where
            `state.failed` is not negative.
    """

    def steps(key: PRNGKeyArray, state: Any, batch: Batch) -> tuple[Any, Metrics]:
        def body(state: Any, index: Array) -> tuple[Any, Metrics]:
            taken = index[0] >= 0

            def chosen(new: Array, old: Array) -> Array:
                return jnp.where(taken, new, old)

            # A state that has failed does not move; so no second choice between whole states.
            held = dataclasses.replace(state, failed=chosen(state.failed, jnp.int32(0)))
            new, metrics = step(key, held, dataclasses.replace(batch, index=index))
            failed, scale = jax.tree.map(
                chosen, (new.failed, new.scale), (state.failed, state.scale)
            )
            return dataclasses.replace(new, failed=failed, scale=scale), metrics

        return jax.lax.scan(body, state, batch.index)

    return steps
