"""A run is a list of phases: what is trained, for how long, with which optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import optax
from jaxtyping import PyTree

from qjax.recipe import Recipe
from qjax.training.hooks import Hooks
from qjax.training.state import check_freezable
from qjax.training.teacher import Teacher

UNQUANTIZED = {"weights": "weight", "activations": "activation"}
"""What a quantized phase can leave in float, and the kind of tensor that is meant."""


@runtime_checkable
class Optimizer(Protocol):
    """What a phase asks of an optimizer: a frozen dataclass, see `qjax.training.optimizers`.

    The state that its transformation keeps has a `learning_rate`, that of the latest update.
    """

    @property
    def learning_rate(self) -> float:
        """The base rate."""
        ...

    def build(
        self, total_steps: int, steps_per_epoch: int, labels: PyTree[str]
    ) -> optax.GradientTransformation:
        """The transformation for a phase of so many steps."""
        ...


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Attributes:
        name: for logs and the record.
        epochs: passes over the train split, at least 0.
        optimizer: built anew for the phase; its schedule spans the phase.
        quantized: whether the model is quantized when the phase starts, once for all later phases.
        rate_scale: multiplier of the optimizer's learning rate (fine-tuning: 0.1).
        hooks: where a method takes part, beside the run's hooks in a quantized phase; None for no
            more than those.
        recipe: another recipe from this phase on; None for the one in force, the run's at first.
        unquantized: "weights", "activations": what a quantized phase leaves in float while the
            running ranges follow it (a delayed start, the first of two stages).
        freeze: what stays, see `qjax.training.state.FREEZABLE`.
        continues: whether optimizer, schedule and moving averages go on from the phase before,
            which must have the same optimizer: the schedule then spans both.
        teacher: of a distillation, whose term is a hook (`qjax.training.teacher`).
    """

    name: str
    epochs: int
    optimizer: Optimizer
    quantized: bool = True
    rate_scale: float = 1.0
    hooks: Hooks | None = None
    recipe: Recipe | None = None
    unquantized: Sequence[str] = ()
    freeze: Sequence[str] = ()
    continues: bool = False
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 0:
            raise ValueError(
                f"Phase.epochs must be a whole number of at least 0, got {self.epochs!r}"
            )
        if not 0 < self.rate_scale < float("inf"):
            raise ValueError(f"Phase.rate_scale must be positive, got {self.rate_scale!r}")
        if self.hooks is not None and not isinstance(self.hooks, Hooks):
            raise TypeError(f"Phase.hooks must be a Hooks or null, got {self.hooks!r}")
        for name in ("unquantized", "freeze"):
            object.__setattr__(self, name, _words(name, getattr(self, name)))
        check_freezable(self.freeze)
        for word in self.unquantized:
            if word not in UNQUANTIZED:
                raise ValueError(
                    f"Phase.unquantized may hold {', '.join(UNQUANTIZED)}, got {word!r}"
                )
        if not self.quantized and (self.unquantized or self.recipe is not None):
            raise ValueError(
                f"phase {self.name!r} is float: it takes no recipe and no unquantized; set "
                "quantized: true or leave them out"
            )

    def scaled_optimizer(self) -> Optimizer:
        """The optimizer with its learning rate multiplied."""
        rate = self.optimizer.learning_rate * self.rate_scale
        optimizer: Any = self.optimizer
        return dataclasses.replace(optimizer, learning_rate=rate)

    @property
    def watched(self) -> tuple[str, ...]:
        """The kinds of tensor that stay float in a quantized phase."""
        return tuple(UNQUANTIZED[word] for word in self.unquantized)


def _words(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"Phase.{name} must be a list of words, got {value!r}")
    return tuple(value)


def check_phases(phases: Sequence[Phase]) -> None:
    """Raise unless the phases make a run.

    Raises:
        ValueError: none at all; a float phase after a quantized one; a last phase that leaves
            something in float; a phase that cannot continue the one before; a teacher without a
            float phase.
    """
    if not phases:
        raise ValueError("a procedure needs at least one phase, got none")
    quantized = [phase.quantized for phase in phases]
    if quantized != sorted(quantized):
        names = ", ".join(phase.name for phase in phases)
        raise ValueError(f"a float phase cannot follow a quantized one; phases are: {names}")
    last = phases[-1]
    if last.unquantized:
        raise ValueError(
            f"the last phase must quantize all that the recipe names, but {last.name!r} leaves "
            f"{', '.join(last.unquantized)} in float; add a phase, or name NoQuantizer in the "
            "recipe"
        )
    for index, phase in enumerate(phases):
        _check_continuation(phases, index)
        needs_float = phase.teacher is not None and phase.teacher.folder is None
        if needs_float and (not phase.quantized or phases[0].quantized):
            raise ValueError(
                f"phase {phase.name!r} has this run's float network for a teacher, but no float "
                "phase comes before it; add one, or name a finished run in Teacher.folder"
            )


def _check_continuation(phases: Sequence[Phase], index: int) -> None:
    phase = phases[index]
    if not phase.continues:
        return
    before = phases[index - 1] if index else None
    if before is None or (before.optimizer, before.rate_scale) != (
        phase.optimizer,
        phase.rate_scale,
    ):
        what = "there is none" if before is None else f"{before.name!r} has another"
        raise ValueError(
            f"phase {phase.name!r} continues the optimizer of the phase before, but {what}; give "
            "both the same optimizer and rate_scale, or set continues: false"
        )


def chain(phases: Sequence[Phase], index: int) -> tuple[int, int]:
    """(epochs before, epochs in all) of the phases that one schedule spans with a phase."""
    first = index
    while phases[first].continues:
        first -= 1
    last = index
    while last + 1 < len(phases) and phases[last + 1].continues:
        last += 1
    epochs = [phase.epochs for phase in phases]
    return sum(epochs[first:index]), sum(epochs[first : last + 1])
