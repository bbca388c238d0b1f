"""How an optimizer's update treats three groups of parameters, with traced hyper-parameters.

A tree of labels gives each parameter's group:

* `weight`: kernels of convolutions and dense layers. Weight decay applies.
* `norm`: scales and biases of normalisation layers, and all other biases. No decay.
* `quantizer`: learned clips and step sizes. No decay (PACT's decay of alpha is a term of the loss),
  and their own multiplier of the learning rate.

One update, in this order: clip the gradients to a global norm (all groups together), add the
coupled decay `weight_decay * w`, momentum or Adam's moments, add the decoupled decay, multiply by
minus the learning rate.

The learning rate, the weight decay and the quantizers' multiplier are not constants of the compiled
program: they are scalars in the state (`OptimizerState.hyperparams`), so that the members of a
sweep over them share one compilation (`set_hyperparams`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from qjax.training import checks

LABELS = ("weight", "norm", "quantizer")

TRACED = {
    "learning_rate": "(0, inf)",
    "weight_decay": "[0, inf)",
    "quantizer_learning_rate_scale": "[0, inf)",
}
"""The hyper-parameters that live in the state, with their ranges."""


class OptimizerState(NamedTuple):
    """What an optimizer keeps between updates.

    Attributes:
        step: number of updates made.
        hyperparams: the traced numbers: `learning_rate` (the base rate), `weight_decay`,
            `quantizer_learning_rate_scale`.
        learning_rate: base rate times schedule, as the latest update used it; before the first, as
            it will.
        inner: momentum, or Adam's moments.
    """

    step: Int[Array, ""]
    hyperparams: dict[str, Float[Array, ""]]
    learning_rate: Float[Array, ""]
    inner: optax.OptState


def grouped_updates(
    rule: optax.GradientTransformation,
    hyperparams: Mapping[str, float],
    fraction: optax.Schedule,
    labels: PyTree[str],
    clip_norm: float | None,
    decoupled: bool,
) -> optax.GradientTransformation:
    """The transformation of gradients to updates.

    Args:
        rule: momentum or moments; sees decayed gradients, knows no learning rate.
        hyperparams: a value for each name of `TRACED`.
        fraction: multiplier of the base rate as a function of the step.
        labels: the trainable parameters' tree with a label of `LABELS` at each leaf.
        clip_norm: largest global norm of the gradients; None for no clipping.
        decoupled: whether the weight decay bypasses `rule` (AdamW).

    Returns:
        A transformation whose `update` needs the parameters.

    Raises:
        ValueError: an unknown label (here), or labels of another structure than the parameters (at
            `init`).
    """
    _check_labels(labels)
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)

    def init(params: PyTree) -> OptimizerState:
        _check_structure(labels, params)
        numbers = {name: jnp.asarray(hyperparams[name], jnp.float32) for name in TRACED}
        rate = numbers["learning_rate"] * fraction(0)
        return OptimizerState(jnp.zeros((), jnp.int32), numbers, rate, rule.init(params))

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None
    ) -> tuple[PyTree, OptimizerState]:
        if params is None:
            raise ValueError("update needs the parameters: call update(gradients, state, params)")
        numbers = state.hyperparams
        rate = numbers["learning_rate"] * fraction(state.step)
        updates, _ = clip.update(updates, clip.init(params))
        if not decoupled:
            updates = _add_decay(labels, updates, params, numbers["weight_decay"])
        updates, inner = rule.update(updates, state.inner, params)
        if decoupled:
            updates = _add_decay(labels, updates, params, numbers["weight_decay"])
        rates = {"weight": rate, "norm": rate}
        rates["quantizer"] = rate * numbers["quantizer_learning_rate_scale"]
        updates = jax.tree.map(lambda label, u: u * -rates[label], labels, updates)
        return updates, OptimizerState(state.step + 1, numbers, rate, inner)

    return optax.GradientTransformation(init, update)


def learning_rate(state: Any) -> Float[Array, ""]:
    """The learning rate of the latest update, for logging.

    Args:
        state: of the transformation, or any tree that holds exactly one (an
            `optax.chain`'s state).

    Returns:
        A float32 scalar: base rate times schedule.

    Raises:
        ValueError: the tree holds none, or several.
    """
    return _find(state).learning_rate


def set_hyperparams(state: Any, **values: float) -> Any:
    """A state with other traced numbers; nothing recompiles.

    Args:
        state: as in `learning_rate`.
        **values: `learning_rate` (the base rate, > 0), `weight_decay` (>= 0),
            `quantizer_learning_rate_scale` (>= 0).

    Returns:
        The same tree with the numbers replaced.

    Raises:
        TypeError: a value is not a number.
        ValueError: an unknown name, a value out of range, or not exactly one optimizer state in the
            tree.
    """
    for name, value in values.items():
        if name not in TRACED:
            raise ValueError(f"unknown hyperparameter {name!r}; allowed: {', '.join(TRACED)}")
        checks.number(name, value, TRACED[name])
    found = _find(state)
    changed = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    new = found._replace(hyperparams=found.hyperparams | changed)
    return jax.tree.map(lambda s: new if s is found else s, state, is_leaf=_is_state)


def _add_decay(
    labels: PyTree[str], updates: PyTree, params: PyTree, decay: Float[Array, ""]
) -> PyTree:
    """Adds decay * parameter to the updates of the `weight` group, in the updates' dtype."""
    return jax.tree.map(
        lambda label, u, p: (u + decay * p).astype(u.dtype) if label == "weight" else u,
        labels,
        updates,
        params,
    )


def _check_labels(labels: PyTree[str]) -> None:
    for path, label in jax.tree_util.tree_leaves_with_path(labels):
        if label not in LABELS:
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"label of {where} must be one of {', '.join(LABELS)}, got {label!r}")


def _check_structure(labels: PyTree[str], params: PyTree) -> None:
    if jax.tree.structure(labels) == jax.tree.structure(params):
        return

    def paths(tree: PyTree) -> set[str]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves}

    missing = sorted(paths(params) - paths(labels))
    extra = sorted(paths(labels) - paths(params))
    raise ValueError(
        "labels must have the structure of the trainable parameters;"
        f" without a label: {missing or 'none'}; labels without a parameter: {extra or 'none'}"
    )


def _is_state(node: Any) -> bool:
    return isinstance(node, OptimizerState)


def _find(state: Any) -> OptimizerState:
    found = [leaf for leaf in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(leaf)]
    if len(found) != 1:
        raise ValueError(
            f"expected one optimizer state of qjax.training.optimizers, found {len(found)}"
        )
    return found[0]
