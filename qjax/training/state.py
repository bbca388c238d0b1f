"""What a training step carries, as one pytree, and which of its numbers an optimizer moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from qjax.layers.norm import BatchNorm, FoldedCorrected
from qjax.layers.shift_norm import ShiftNorm
from qjax.layers.slots import Slot
from qjax.layers.variables import Learned
from qjax.training.precision import LossScale

FREEZABLE = {
    "weights": "kernels stay",
    "quantizers": "learned quantizer numbers (clips, steps) stay",
    "ranges": "running ranges of quantizers stay",
    "batch_statistics": "BN uses its running statistics and keeps them",
    "batch_norm": "that, and gamma and beta stay",
}
"""What a phase can freeze."""

Filter = Callable[[tuple, Any], bool]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """State of one phase.

    Attributes:
        trainable: parameters that the optimizer moves.
        rest: running statistics, traced numbers, random keys, and what is frozen.
        opt: the optimizer's state.
        step: steps taken in this phase and in those that it continues.
        failed: the first step whose loss or gradients were not finite; -1 while none was. From that
            step on nothing moves any more, so that the state is the one that met the failure.
        average: moving average of `trainable`; None where none is kept.
        scale: of the loss; None where it is not scaled.
        teacher: states of a teacher's evaluation graph; None without one. The step never moves it.
        codes: of the weights at earlier epochs, for diagnostics. The step never moves it.
    """

    trainable: Any
    rest: Any
    opt: optax.OptState
    step: Int[Array, ""]
    failed: Int[Array, ""]
    average: Any = None
    scale: LossScale | None = None
    teacher: Any = None
    codes: Any = None


@dataclasses.dataclass(frozen=True)
class Graphs:
    """The model's graph definitions over one state.

    Attributes:
        train, evaluate: in training and in evaluation mode.
        moves: whether the optimizer moves the variable at a path.
        teacher: of the teacher, in evaluation mode.
    """

    train: nnx.GraphDef
    evaluate: nnx.GraphDef
    moves: Filter
    teacher: nnx.GraphDef | None = None

    def rest(self, model: nnx.Module) -> nnx.State:
        """What a training pass may have moved: all that the optimizer does not."""
        _, _, rest = nnx.split(model, self.moves, ...)
        return rest


def check_freezable(words: Sequence[str]) -> None:
    """Raise unless every word names something that a phase can freeze.

    Raises:
        ValueError: naming the word and the ones allowed.
    """
    for word in words:
        if word not in FREEZABLE:
            allowed = "; ".join(f"{name} ({what})" for name, what in FREEZABLE.items())
            raise ValueError(f"Phase.freeze may hold {allowed}; got {word!r}")


def split(model: nnx.Module, freeze: Sequence[str] = ()) -> tuple[Graphs, nnx.State, nnx.State]:
    """(graphs, trainable, rest) of a model; the arrays are copies, so that a step may donate
    them.

    Args:
        model: float or simulated; it keeps its mode.
        freeze: words of `FREEZABLE`.
    """
    model = nnx.clone(model)
    moves = _moves(model, freeze)
    model.eval()
    evaluate, _, _ = nnx.split(model, moves, ...)
    model.train()
    for _, module in nnx.iter_modules(model):
        # What is frozen stays in evaluation mode, as far as its statistics go.
        if isinstance(module, BatchNorm | FoldedCorrected | ShiftNorm):
            module.use_running_average = bool({"batch_statistics", "batch_norm"} & set(freeze))
        elif isinstance(module, Slot):
            module.use_running_average = "ranges" in freeze
    train, trainable, rest = nnx.split(model, moves, ...)
    trainable, rest = jax.tree.map(jnp.copy, (trainable, rest))
    return Graphs(train, evaluate, moves), trainable, rest


def _moves(model: nnx.Module, freeze: Sequence[str]) -> Filter:
    held: set[tuple] = set()
    if "batch_norm" in freeze:
        for path, module in nnx.iter_modules(model):
            if isinstance(module, BatchNorm | FoldedCorrected | ShiftNorm):
                held |= {(*path, "scale"), (*path, "bias")}

    def moves(path: tuple, variable: Any) -> bool:
        if isinstance(variable, Learned):
            # Behind a watched slot a number has no effect yet.
            return "quantizers" not in freeze and "watched" not in path
        if not isinstance(variable, nnx.Param) or path in held:
            return False
        return path[-1] != "kernel" or "weights" not in freeze

    return moves


def labels(trainable: nnx.State) -> nnx.State:
    """Group of each trainable array: `weight` (kernels), `quantizer` (learned numbers), `norm`.

    By name and type, never by rank: a clip is one-dimensional and yet not a bias.
    """

    def label(path: tuple, variable: nnx.Variable) -> nnx.Variable:
        if isinstance(variable, Learned):
            return variable.replace("quantizer")
        return variable.replace("weight" if path[-1] == "kernel" else "norm")

    return nnx.map_state(label, trainable)


def carried(new: Any, old: Any) -> Any:
    """An optimizer's fresh state with what an earlier one knows of the same paths.

    Args:
        new: of the phase that begins.
        old: of the phase that it continues, whose trained numbers may be more or fewer.
    """

    def name(path: tuple) -> str:
        return jax.tree_util.keystr(path)

    known = {name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old)}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.copy(known.get(name(path), leaf)), new
    )
