"""The estimator protocol: a frozen value that follows the range of a tensor over batches."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float

Range = tuple[Float[Array, ""], Float[Array, ""]]


@runtime_checkable
class Estimator(Protocol):
    """What an affine activation quantizer needs to know its range.

    `first` gives the range after one sample, `update` after one more training batch; both return
    (least, largest) in real units, before zero is made a member.
    """

    def first(self, x: Float[Array, "..."]) -> Range:
        """The range after the first sample."""
        ...

    def update(
        self, low: Float[Array, ""], high: Float[Array, ""], x: Float[Array, "..."]
    ) -> Range:
        """The range after one more batch."""
        ...
