"""Exponential moving average of batch minima and maxima.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", arXiv 1712.05877, section 3.1 (smoothing close to 1); TensorFlow's FakeQuant defaults to
a decay of 0.999.

    low <- low + (1 - decay) (min(x) - low),    high likewise
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.calibration.estimator import Range


@dataclasses.dataclass(frozen=True)
class EmaMinMax:
    """Moving average of each batch's least and largest value; the first sample sets both.

    Attributes:
        decay: weight of the past, in [0, 1). 0.99 forgets over about a hundred steps, which suits
            short runs.

    Differences from the paper: the paper switches activation quantization off for the first steps;
    here the first sample gives a usable range at once (a delayed start is a property of the phase).

    Example:
        >>> low, high = EmaMinMax(decay=0.9).first(jnp.array([-1.0, 3.0]))
        >>> after = EmaMinMax(decay=0.9).update(low, high, jnp.array([0.0, 13.0]))
        >>> [round(float(v), 3) for v in after]
        [-0.9, 4.0]
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"EmaMinMax.decay must be in [0, 1), got {self.decay!r}")

    def first(self, x: Float[Array, "..."]) -> Range:
        """Least and largest value of the sample."""
        return jnp.min(x), jnp.max(x)

    def update(
        self, low: Float[Array, ""], high: Float[Array, ""], x: Float[Array, "..."]
    ) -> Range:
        """One step of the moving average."""
        rate = 1 - self.decay
        return low + rate * (jnp.min(x) - low), high + rate * (jnp.max(x) - high)
