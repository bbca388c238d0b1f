"""In which arithmetic a training step computes: half precision, and the scale of the loss.

Micikevicius et al., "Mixed precision training", arXiv 1710.03740. Images enter the model in the low
precision, and every product and activation keeps it. Weights, batch statistics, quantizers, the
loss and the update compute in float32, and so does all evaluation. float16's gradients underflow
below 6e-8, so the loss is scaled before the backward pass and the gradients are divided after it:

    S <- S / 2 and no update, where a gradient is not finite;   S <- 2 S after 2000 updates
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PyTree

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
START = 2.0**15
GROWTH_INTERVAL = 2000
LARGEST = 2.0**24


class LossScale(NamedTuple):
    """State of a loss scale.

    Attributes:
        value: S, a power of two where it is dynamic, at least 1.
        clean: updates since it last changed.
    """

    value: Float[Array, ""]
    clean: Int[Array, ""]

    def after(self, finite: Bool[Array, ""]) -> LossScale:
        """The scale for the next step."""
        grows = self.clean + 1 >= GROWTH_INTERVAL
        grown = jnp.where(grows, jnp.minimum(2 * self.value, LARGEST), self.value)
        value = jnp.where(finite, grown, jnp.maximum(self.value / 2, 1))
        clean = jnp.where(finite & ~grows, self.clean + 1, 0)
        return LossScale(value, clean.astype(jnp.int32))


@dataclasses.dataclass(frozen=True)
class Precision:
    """Arithmetic of the training step.

    Attributes:
        name: "float32", "bfloat16" or "float16".
        loss_scale: "auto" (dynamic for float16, none otherwise), "dynamic", or a fixed number of at
            least 1.
    """

    name: str = "float32"
    loss_scale: float | Literal["auto", "dynamic"] = "auto"

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.name!r}")
        scale = self.loss_scale
        words = scale in ("auto", "dynamic")
        number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not words and not (number and 1 <= scale <= LARGEST):
            raise ValueError(
                f"loss_scale must be auto, dynamic or a number from 1 to 2^24, got {scale!r}"
            )

    @property
    def dtype(self) -> DTypeLike:
        """Of images, activations and products."""
        return PRECISIONS[self.name]

    @property
    def is_dynamic(self) -> bool:
        """Whether a step that overflows is left out and the scale halved."""
        automatic = self.loss_scale == "auto" and self.name == "float16"
        return automatic or self.loss_scale == "dynamic"

    def start(self) -> LossScale | None:
        """The first dynamic scale; None where it is fixed."""
        return LossScale(jnp.float32(START), jnp.int32(0)) if self.is_dynamic else None

    def factor(self, scale: LossScale | None) -> Float[Array, ""] | float:
        """What the loss is multiplied by."""
        if scale is not None:
            return scale.value
        return 1.0 if isinstance(self.loss_scale, str) else float(self.loss_scale)


def unscaled(gradients: PyTree, factor: Float[Array, ""] | float) -> PyTree:
    """Gradients divided by the loss scale."""
    if isinstance(factor, float) and factor == 1:
        return gradients
    return jax.tree.map(lambda g: g / factor, gradients)
