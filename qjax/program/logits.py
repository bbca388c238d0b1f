"""The one integer grid on which a network's logits meet, so that the largest can be told."""

import numpy as np

from qjax.core.affine import Affine
from qjax.core.codes import Codes


def common_grid(y: Codes, bits: int) -> tuple[Affine, float]:
    """The requantization onto the grid, and its step in real units.

    The grid spans the largest logit the accumulators can reach in `bits` bits and a sign.
    """
    reach = np.abs(y.offset.value)
    for term in y.terms:
        zero = term.zero_point.value
        farthest = np.maximum(np.abs(term.low - zero), np.abs(term.high - zero))
        reach = reach + np.abs(term.scale.value) * farthest
    step = float(np.max(reach)) / 2**bits or 1.0
    offset = y.offset.value - sum(t.scale.value * t.zero_point.value for t in y.terms)
    affine = Affine(
        scales=tuple(term.scale.value / step for term in y.terms),
        offset=np.asarray(offset / step),
        bounds=tuple((term.low, term.high) for term in y.terms),
        low=-(2**bits),
        high=2**bits,
    )
    return affine, step
