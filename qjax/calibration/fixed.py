"""A range that is known: of bytes, or of a sensor.

Example: pixels on x / 128 - 1 lie in [-1, 127 / 128], whatever the batch.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.calibration.estimator import Range


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The same range for every batch.

    Attributes:
        low, high: finite, in real units, low below high.

    Example:
        >>> estimator = Fixed(-1.0, 0.5)
        >>> [float(v) for v in estimator.update(*estimator.first(jnp.ones(1)), jnp.full(1, 9.0))]
        [-1.0, 0.5]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"Fixed.low must be below Fixed.high, both finite, got {self.low!r} and "
                f"{self.high!r}"
            )

    def first(self, x: Float[Array, "..."]) -> Range:
        """The range."""
        del x
        return jnp.asarray(self.low, jnp.float32), jnp.asarray(self.high, jnp.float32)

    def update(
        self, low: Float[Array, ""], high: Float[Array, ""], x: Float[Array, "..."]
    ) -> Range:
        """The range."""
        del low, high
        return self.first(x)
