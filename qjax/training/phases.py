"""A run is a list of phases: what is trained, for how long, with which optimizer."""

from __future__ import annotations

import dataclasses

from qjax.training.optimizers import Adam, AdamW, Sgd
from qjax.training.step import Hooks


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Attributes:
        name: for logs and the record.
        epochs: passes over the train split, at least 0.
        optimizer: built anew for the phase; its schedule spans the phase.
        quantized: whether the model is quantized by the run's recipe when the phase starts.
        rate_scale: multiplier of the optimizer's learning rate (fine-tuning: 0.1).
        hooks: where a method takes part in the step.
    """

    name: str
    epochs: int
    optimizer: Sgd | Adam | AdamW
    quantized: bool = True
    rate_scale: float = 1.0
    hooks: Hooks = Hooks()

    def __post_init__(self) -> None:
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 0:
            raise ValueError(
                f"Phase.epochs must be a whole number of at least 0, got {self.epochs!r}"
            )
        if not 0 < self.rate_scale < float("inf"):
            raise ValueError(f"Phase.rate_scale must be positive, got {self.rate_scale!r}")

    def scaled_optimizer(self) -> Sgd | Adam | AdamW:
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
