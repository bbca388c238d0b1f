"""A run is a list of phases: what is trained, for how long, with which optimizer."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import optax
from jaxtyping import PyTree

from qjax.training.hooks import Hooks


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
        quantized: whether the model is quantized by the run's recipe when the phase starts.
        rate_scale: multiplier of the optimizer's learning rate (fine-tuning: 0.1).
        hooks: where a method takes part; None for the run's hooks in a quantized phase and for none
            in a float one.
    """

    name: str
    epochs: int
    optimizer: Optimizer
    quantized: bool = True
    rate_scale: float = 1.0
    hooks: Hooks | None = None

    def __post_init__(self) -> None:
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 0:
            raise ValueError(
                f"Phase.epochs must be a whole number of at least 0, got {self.epochs!r}"
            )
        if not 0 < self.rate_scale < float("inf"):
            raise ValueError(f"Phase.rate_scale must be positive, got {self.rate_scale!r}")
        if self.hooks is not None and not isinstance(self.hooks, Hooks):
            raise TypeError(f"Phase.hooks must be a Hooks or null, got {self.hooks!r}")

    def scaled_optimizer(self) -> Optimizer:
        """The optimizer with its learning rate multiplied."""
        rate = self.optimizer.learning_rate * self.rate_scale
        return dataclasses.replace(self.optimizer, learning_rate=rate)


def check_phases(phases: tuple[Phase, ...]) -> None:
    """Raise unless the phases make a run: at least one, no float phase after a quantized one."""
    if not phases:
        raise ValueError("a procedure needs at least one phase, got none")
    quantized = [phase.quantized for phase in phases]
    if quantized != sorted(quantized):
        names = ", ".join(phase.name for phase in phases)
        raise ValueError(f"a float phase cannot follow a quantized one; phases are: {names}")
