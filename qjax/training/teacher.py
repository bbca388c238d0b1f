"""Distillation: a trained network's outputs as further targets.

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv 1503.02531:

    term = weight T^2 KL( softmax(teacher / T) || softmax(student / T) ),  the mean over the batch

The factor T^2 keeps the gradient's size when T changes. A phase names its `Teacher`; the term is a
hook beside the usual loss, e.g. `CrossEntropy(weight=0.5)` and `Distillation(weight=0.5)`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.training import checks
from qjax.training.feed import Images
from qjax.training.hooks import Seen


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Where a phase's teacher comes from.

    Attributes:
        folder: a finished run of the same data and pixels; None for this run's network as its last
            float phase left it.
    """

    folder: str | None = None


def check_teacher(folder: str, theirs: Images, ours: Images) -> None:
    """Raise unless a teacher understands the images that its student sees.

    Args:
        folder: of the teacher's run, for the message.
        theirs, ours: data that the teacher was trained on, and the student's.

    Raises:
        ValueError: naming what differs, with both values.
    """
    for name in ("name", "shape", "classes", "mean", "std"):
        known, seen = getattr(theirs, name), getattr(ours, name)
        if known != seen:
            what = "pixels" if name in ("mean", "std") else "data"
            raise ValueError(
                f"the teacher in {folder} was trained on {what} with {name} {known!r}, but this "
                f"run has {seen!r}; train a teacher with this run's {what}"
            )


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The divergence of the student's softened outputs from the teacher's.

    Attributes:
        temperature: T, > 0.
        weight: factor of the term, > 0.

    Example:
        >>> term = Distillation(temperature=2.0, weight=1.0)
        >>> student, teacher = jnp.array([[2.0, 0.5, -1.0]]), jnp.array([[1.5, 1.0, -0.5]])
        >>> print(term.divergence(student, teacher).round(4))
        0.1245
    """

    temperature: float = 4.0
    weight: float = 0.5

    def __post_init__(self) -> None:
        for name in ("temperature", "weight"):
            value = checks.number(f"Distillation.{name}", getattr(self, name), "(0, inf)")
            object.__setattr__(self, name, value)

    def __call__(self, seen: Seen) -> Float[Array, ""]:
        """The term.

        Raises:
            ValueError: the phase has no teacher.
        """
        if seen.teacher is None:
            raise ValueError(
                "Distillation needs a teacher, got none; set Phase.teacher in the procedure"
            )
        return self.divergence(seen.logits, seen.teacher)

    def divergence(
        self, student: Float[Array, "n k"], teacher: Float[Array, "n k"]
    ) -> Float[Array, ""]:
        """weight T^2 times the mean divergence."""
        wanted = jax.nn.log_softmax(teacher.astype(jnp.float32) / self.temperature)
        found = jax.nn.log_softmax(student.astype(jnp.float32) / self.temperature)
        each = jnp.sum(jnp.exp(wanted) * (wanted - found), -1)
        return self.weight * self.temperature**2 * jnp.mean(each)
