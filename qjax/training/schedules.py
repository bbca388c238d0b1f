"""Learning-rate schedules, as fractions of a base learning rate.

A schedule is a frozen value in epochs; `build` turns it into an `optax.Schedule`: a pure function
from the step number (0 for the first update) to a float32 multiplier. The base rate stays outside,
in the optimizer's state, so that runs which differ in it share one compiled program.

Warm-up is linear and multiplies: update number t of w takes the fraction (t + 1) / w, so the first
update already moves and the last of the warm-up has the full rate (Goyal et al., arXiv 1706.02677,
section 2.2). Step boundaries count from the start of the run, as papers print them; smooth decays
begin where the warm-up ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from qjax.training import checks


@runtime_checkable
class Schedule(Protocol):
    """What an optimizer asks of a schedule."""

    def build(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """The multiplier of the base learning rate as a function of the step.

        Args:
            total_steps: updates in the whole run (of a phase), at least 1.
            steps_per_epoch: updates in one epoch, at least 1.

        Returns:
            A function from step (a Python int or a traced int32) to a float32 scalar.

        Raises:
            TypeError: an argument is not a whole number.
            ValueError: an argument is below 1.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Constant:
    """The base rate throughout.

    Attributes:
        warmup_epochs: length of the linear warm-up in epochs, >= 0; 0 for none.

    Example:
        >>> fraction = Constant(warmup_epochs=2).build(total_steps=40, steps_per_epoch=10)
        >>> [round(float(fraction(t)), 2) for t in (0, 9, 19, 39)]
        [0.05, 0.5, 1.0, 1.0]
    """

    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        _set_warmup(self)

    def build(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """See `Schedule.build`."""
        return _smooth(self.warmup_epochs, total_steps, steps_per_epoch, jnp.ones_like)


@dataclasses.dataclass(frozen=True)
class Step:
    """The base rate times a factor at each boundary.

    Attributes:
        boundaries: when each factor begins to hold, > 0, ascending.
        factor: in (0, inf): what each boundary multiplies the rate by; one number for all
            boundaries, or a list with one for each (0.2 at epoch 60 and 0.2 at 75; XNOR-Net
            alternates 1/2 and 1/5).
        warmup_epochs: length of the linear warm-up in epochs, >= 0; 0 for none.
        unit: what boundaries count: `epochs`, or `run` for parts of the whole run, in (0, 1), which
            keep their meaning when a run is made shorter.

    Example:
        >>> fraction = Step(boundaries=[60, 120], factor=0.1).build(1800, steps_per_epoch=10)
        >>> [round(float(fraction(t)), 4) for t in (599, 600, 1199, 1200)]
        [1.0, 0.1, 0.1, 0.01]
    """

    boundaries: Sequence[float]
    factor: float | Sequence[float] = 0.1
    warmup_epochs: float = 0.0
    unit: str = "epochs"

    def __post_init__(self) -> None:
        if self.unit not in ("epochs", "run"):
            raise ValueError(f"Step.unit must be 'epochs' or 'run', got {self.unit!r}")
        interval = "(0, inf)" if self.unit == "epochs" else "(0, 1)"
        boundaries = checks.numbers("Step.boundaries", self.boundaries, interval)
        if list(boundaries) != sorted(set(boundaries)):
            raise ValueError(f"Step.boundaries must ascend strictly, got {boundaries}")
        object.__setattr__(self, "boundaries", boundaries)
        if isinstance(self.factor, int | float):
            factor = checks.number("Step.factor", self.factor, "(0, inf)")
        else:
            factor = checks.numbers("Step.factor", self.factor, "(0, inf)")
            if len(factor) != len(boundaries):
                raise ValueError(
                    "Step.factor must be one number, or one for each of the"
                    f" {len(boundaries)} boundaries, got {factor}"
                )
        object.__setattr__(self, "factor", factor)
        _set_warmup(self)

    def build(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """See `Schedule.build`."""
        warmup = _warmup_steps(self.warmup_epochs, total_steps, steps_per_epoch)
        unit = steps_per_epoch if self.unit == "epochs" else total_steps
        starts = np.asarray([round(b * unit) for b in self.boundaries], np.int32)
        factors = self.factor if isinstance(self.factor, tuple) else (self.factor,) * len(starts)
        # Products in float64: 0.1 * 0.1 in float32 is not the float32 nearest to 0.01.
        table = np.cumprod((1.0, *factors)).astype(np.float32)

        def fraction(step: ArrayLike) -> Float[Array, ""]:
            passed = jnp.sum(jnp.asarray(step) >= starts)
            return jnp.asarray(table)[passed] * _ramp(step, warmup)

        return fraction


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from the base rate down to a final fraction of it (Loshchilov and Hutter, arXiv
    1608.03983).

    Attributes:
        final_fraction: of the base rate, in [0, 1]: reached one step after the last.
        warmup_epochs: length of the linear warm-up in epochs, >= 0; 0 for none.

    Example:
        >>> fraction = Cosine().build(total_steps=100, steps_per_epoch=10)
        >>> [round(float(fraction(t)), 3) for t in (0, 50, 99)]
        [1.0, 0.5, 0.0]
    """

    final_fraction: float = 0.0
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        _set_final(self, "[0, 1]")
        _set_warmup(self)

    def build(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """See `Schedule.build`."""
        final = self.final_fraction
        return _smooth(
            self.warmup_epochs,
            total_steps,
            steps_per_epoch,
            lambda part: final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * part)),
        )


@dataclasses.dataclass(frozen=True)
class Linear:
    """A straight line from the base rate down to a final fraction of it.

    Attributes:
        final_fraction: of the base rate, in [0, 1]: reached one step after the last.
        warmup_epochs: length of the linear warm-up in epochs, >= 0; 0 for none.

    Example:
        >>> fraction = Linear(final_fraction=0.2).build(total_steps=100, steps_per_epoch=10)
        >>> [round(float(fraction(t)), 2) for t in (0, 50, 100)]
        [1.0, 0.6, 0.2]
    """

    final_fraction: float = 0.0
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        _set_final(self, "[0, 1]")
        _set_warmup(self)

    def build(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """See `Schedule.build`."""
        final = self.final_fraction
        return _smooth(
            self.warmup_epochs, total_steps, steps_per_epoch, lambda part: 1 + (final - 1) * part
        )


@dataclasses.dataclass(frozen=True)
class Exponential:
    """The same factor every step, from the base rate down to a final fraction of it.

    Attributes:
        final_fraction: of the base rate, in (0, 1]: reached one step after the last (BinaryConnect:
            3e-3 down to 2e-6 is 6.7e-4).
        warmup_epochs: length of the linear warm-up in epochs, >= 0; 0 for none.

    Example:
        >>> fraction = Exponential(final_fraction=0.01).build(total_steps=100, steps_per_epoch=10)
        >>> [round(float(fraction(t)), 3) for t in (0, 50, 100)]
        [1.0, 0.1, 0.01]
    """

    final_fraction: float
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        _set_final(self, "(0, 1]")
        _set_warmup(self)

    def build(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """See `Schedule.build`."""
        logarithm = float(np.log(self.final_fraction))
        return _smooth(
            self.warmup_epochs, total_steps, steps_per_epoch, lambda part: jnp.exp(logarithm * part)
        )


def _set_warmup(schedule: Constant | Step | Cosine | Linear | Exponential) -> None:
    """Checks `warmup_epochs`, and that the finished value can be hashed."""
    name = f"{type(schedule).__name__}.warmup_epochs"
    value = checks.number(name, schedule.warmup_epochs, "[0, inf)")
    object.__setattr__(schedule, "warmup_epochs", value)
    hash(schedule)


def _set_final(schedule: Cosine | Linear | Exponential, interval: str) -> None:
    """Checks `final_fraction`."""
    name = f"{type(schedule).__name__}.final_fraction"
    value = checks.number(name, schedule.final_fraction, interval)
    object.__setattr__(schedule, "final_fraction", value)


def _warmup_steps(warmup_epochs: float, total_steps: int, steps_per_epoch: int) -> int:
    """Checks the arguments of `build` and returns the number of updates in the warm-up."""
    checks.whole("total_steps", total_steps, least=1)
    return round(warmup_epochs * checks.whole("steps_per_epoch", steps_per_epoch, least=1))


def _ramp(step: ArrayLike, warmup: int) -> Float[Array, ""]:
    """(step + 1) / warmup up to 1; 1 without a warm-up."""
    return jnp.minimum(1.0, (jnp.asarray(step) + 1).astype(jnp.float32) / max(warmup, 1))


def _smooth(
    warmup_epochs: float,
    total_steps: int,
    steps_per_epoch: int,
    decay: Callable[[Float[Array, ""]], Array],
) -> optax.Schedule:
    """A schedule from a decay over the part of the run after the warm-up: a function of [0, 1]."""
    warmup = _warmup_steps(warmup_epochs, total_steps, steps_per_epoch)
    length = max(total_steps - warmup, 1)  # a run cut short inside its warm-up is one ramp

    def fraction(step: ArrayLike) -> Float[Array, ""]:
        part = jnp.clip((jnp.asarray(step) - warmup).astype(jnp.float32) / length, 0.0, 1.0)
        return decay(part) * _ramp(step, warmup)

    return fraction
