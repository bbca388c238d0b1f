"""What a training step carries, as one pytree."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from qjax.layers.variables import Learned

TRAINABLE = nnx.Any(nnx.Param, Learned)
"""What the optimizer moves: weights, biases, BN's scale and bias, learned quantizer numbers."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """State of one phase.

    Attributes:
        trainable: parameters that the optimizer moves.
        rest: running statistics and traced numbers.
        opt: the optimizer's state.
        step: steps taken in this phase.
        failed: the first step whose loss or gradients were not finite; -1 while none was. From that
            step on nothing moves any more, so that the state is the one that met the failure.
    """

    trainable: Any
    rest: Any
    opt: optax.OptState
    step: Int[Array, ""]
    failed: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Graphs:
    """The model's graph definitions over one state: training and evaluation mode."""

    train: nnx.GraphDef
    evaluate: nnx.GraphDef


def split(model: nnx.Module) -> tuple[Graphs, Any, Any]:
    """(graphs, trainable, rest) of a model; the arrays are copies, so that a step may donate
    them.
    """
    model.eval()
    evaluate, _, _ = nnx.split(model, TRAINABLE, ...)
    model.train()
    train, trainable, rest = nnx.split(model, TRAINABLE, ...)
    trainable, rest = jax.tree.map(jnp.copy, (trainable, rest))
    return Graphs(train, evaluate), trainable, rest


def labels(trainable: nnx.State) -> nnx.State:
    """Group of each trainable array: `weight` (kernels), `quantizer` (learned numbers), `norm`.

    By name and type, never by rank: a clip is one-dimensional and yet not a bias.
    """

    def label(path: tuple, variable: nnx.Variable) -> nnx.Variable:
        if isinstance(variable, Learned):
            return variable.replace("quantizer")
        return variable.replace("weight" if path[-1] == "kernel" else "norm")

    return nnx.map_state(label, trainable)
