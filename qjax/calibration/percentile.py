"""Moving average of percentiles: the range of a tensor without its outliers.

Li, Wang, Liang, Qin, Yan, Fan, "Fully quantized network for object detection", CVPR 2019: the
(1 - gamma, gamma) quantiles of the activations over calibration batches, gamma = 0.999. The
quantile is linearly interpolated between order statistics.

    low <- low + (1 - decay) (quantile(x, 1 - gamma) - low),    high likewise with gamma
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from qjax.calibration.estimator import Range


@dataclasses.dataclass(frozen=True)
class Percentile:
    """The quantiles 1 - gamma and gamma of the first sample, then a moving average of each batch's.

    Attributes:
        gamma: upper quantile, in (0.5, 1]; 1 is the largest value.
        decay: weight of the past, in [0, 1]; 1 holds the range of the first sample.
        limit: elements of a batch that `update` sorts, at least 1, taken at equal strides: sorting
            all of a large activation at every step would cost more than its convolution.

    Differences from the paper: it calibrates over 20 batches before training, here the first sample
    does; what follows the range in training (named both "EMA" and "percentile" in descriptions of
    it) is read as a moving average of percentiles.

    Example:
        >>> x = jnp.arange(101.0)
        >>> [round(float(v), 3) for v in Percentile(gamma=0.9).first(x)]
        [10.0, 90.0]
        >>> [round(float(v), 3) for v in Percentile(0.9, 0.5).update(*Percentile(0.9).first(x), -x)]
        [-40.0, 40.0]
    """

    gamma: float = 0.999
    decay: float = 0.99
    limit: int = 16384

    def __post_init__(self) -> None:
        if not 0.5 < self.gamma <= 1:
            raise ValueError(f"Percentile.gamma must be in (0.5, 1], got {self.gamma!r}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"Percentile.decay must be in [0, 1], got {self.decay!r}")
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1:
            raise ValueError(
                f"Percentile.limit must be a whole number of at least 1, got {self.limit!r}"
            )

    def first(self, x: Float[Array, "..."]) -> Range:
        """The quantiles of the whole sample."""
        low, high = jnp.quantile(x, jnp.asarray([1 - self.gamma, self.gamma]))
        return low, high

    def update(
        self, low: Float[Array, ""], high: Float[Array, ""], x: Float[Array, "..."]
    ) -> Range:
        """One step of the moving average."""
        stride = -(-x.size // self.limit)
        least, most = self.first(x.reshape(-1)[::stride])
        rate = 1 - self.decay
        return low + rate * (least - low), high + rate * (most - high)
