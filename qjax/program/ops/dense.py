"""Fully connected layers."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qjax.core.fixedpoint import effective_multiplier
from qjax.core.tables import round_half_away
from qjax.core.thresholds import count_thresholds, search_thresholds
from qjax.program.base import Operator, Site, require_rank
from qjax.program.ops import weights
from qjax.program.tensor import DTYPES, Shape

MAX_CHANNELS = 256
"""Of a 16-bit output under `float64`: 2**16 thresholds for each."""


@dataclasses.dataclass(frozen=True)
class Dense(Operator):
    """y[..., o] = sum_c (x[..., c] - Z_x) (w[c, o] - Z_w) + bias[o].

    Inputs: x, whose elements are read as rows of c whatever its shape (as TFLite does); weights
    (c, o); and, if any, an int32 bias (o,). The output has the rows in any shape that ends in o.
    An int32 output is the sum itself; any other one is requantized.

    Attributes:
        scaling: "policy", as all operators; or "float64", the product of the sum and the multiplier
            in float64, rounded once, ties away from zero. LiteRT's reference kernel has computed
            this one operator so since 2025. Its codes are counted from integer thresholds that the
            host finds with that very formula, so the program stays integer.
    """

    kind: ClassVar[str] = "dense"
    arity: ClassVar[tuple[int, int]] = (2, 3)

    scaling: str = "policy"

    def __post_init__(self) -> None:
        if self.scaling not in ("policy", "float64"):
            raise ValueError(f"dense.scaling must be policy or float64, got {self.scaling!r}")

    def infer(self, site: Site) -> Shape:
        """The output's own shape, where it holds as many rows as the input does."""
        x, weight = site.inputs[:2]
        require_rank(weight, 2)
        depth, channels = weight.constant.shape
        output = site.output
        rows, rest = divmod(x.elements, depth)
        fits = not rest and rows * channels == output.elements and output.shape[-1] == channels
        if not fits or (x.shape[0] is None) != (output.shape[0] is None):
            raise ValueError(
                f"{weight} of shape {weight.shape} does not take {x} of shape {x.shape} to "
                f"{output} of shape {output.shape}"
            )
        weights.check(site, channels)
        if self.scaling == "float64" and output.dtype == "int32":
            raise ValueError(f"dense.scaling of {output} must be policy: it is {output.dtype}")
        if self.scaling == "float64" and output.dtype == "int16" and channels > MAX_CHANNELS:
            raise ValueError(
                f"{output} has {channels} channels of 16 bits, whose thresholds would take more "
                f"than 64 MiB; at most {MAX_CHANNELS} are taken"
            )
        return output.shape

    def compute(self, site: Site, *values: Array) -> Array:
        """Accumulate in int32, then requantize."""
        weight = site.inputs[1]
        plan = weights.plan(weight)
        x, _ = weights.signed(values[0], site.inputs[0])
        rows = x.reshape(-1, plan.kernel.shape[0])
        total = weights.products(site).dense(rows, jnp.asarray(plan.kernel))
        if plan.correction is not None:
            sums = jnp.sum(rows, axis=1, keepdims=True, dtype=jnp.int32)
            total = plan.double * total - weights.lanes(plan.correction, 2) * sums
        total = total.reshape(*_sizes(site.output.shape, x.shape[0]))
        if self.scaling == "float64":
            return self._counted(site, weights.finish_sum(site, total, plan))
        return weights.finish(site, total, plan, per_tensor=weight.units.axis is None)

    def _counted(self, site: Site, total: Array) -> Array:
        """Codes of a sum by the thresholds it has passed."""
        x, weight, output = (t.units for t in (*site.inputs[:2], site.output))
        scale = effective_multiplier(x.step, weight.scale.value, output.step)
        low, high = site.output.range
        least = least_sums(np.arange(low + 1, high + 1) - output.zero, np.asarray(scale))
        count = search_thresholds if len(least) > 255 else count_thresholds
        codes = low + count(total, least)
        return codes.astype(DTYPES[site.output.dtype])


def _sizes(shape: Shape, batch: int) -> tuple[int, ...]:
    return tuple(batch if size is None else size for size in shape)


def least_sums(steps: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The least whole number whose float64 product with `scale` rounds to each step or above.

    Args:
        steps: whole numbers, (k,).
        scale: positive, () or (c,).

    Returns:
        int64 (k,) or (k, c), clipped to [-2**31, 2**31].

    >>> least_sums(np.array([0, 1]), np.asarray(0.25)).tolist()  # -1/4 -> 0, 1/2 -> 1
    [-1, 2]
    """
    wanted = steps.reshape(-1, *[1] * scale.ndim).astype(np.float64)
    # The exact crossing is within a few units of this one, where the loops below find it.
    least = np.clip(np.ceil((wanted - 0.5) / scale), -(2.0**31), 2.0**31)
    for _ in range(4):
        lower = round_half_away((least - 1) * scale) >= wanted
        higher = round_half_away(least * scale) < wanted
        least = np.clip(least - lower + higher, -(2.0**31), 2.0**31)
    return least.astype(np.int64)
