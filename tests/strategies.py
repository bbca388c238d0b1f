"""Hypothesis strategies that tests share: tensors with ties and edges, scales, widths, grids,
convolutions.
"""

import dataclasses

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qjax.core.grid import Grid

SHAPE = (4, 6)
"""The usual shape: drawn shapes would compile anew for every example."""


def reals(low: float = -1e4, high: float = 1e4) -> st.SearchStrategy[float]:
    """float32 numbers in a range, without the subnormal ones that XLA flushes to zero."""
    return st.floats(np.float32(low).item(), np.float32(high).item(), width=32).filter(
        lambda x: x == 0 or abs(x) > 1e-30
    )


def tensors(
    shape: tuple[int, ...] = SHAPE, low: float = -1e4, high: float = 1e4
) -> st.SearchStrategy[np.ndarray]:
    """float32 arrays, with repeated values, zeros and the ends of the range among them."""
    return hnp.arrays(np.float32, shape, elements=reals(low, high))


def bit_widths(low: int = 1, high: int = 8) -> st.SearchStrategy[int]:
    """Bit widths of codes."""
    return st.integers(low, high)


def scales(dyadic: bool = False) -> st.SearchStrategy[float]:
    """Positive steps in float32; powers of two, under which ties are exact, where asked for."""
    powers = st.integers(-10, 6).map(lambda exponent: 2.0**exponent)
    return powers if dyadic else st.one_of(powers, reals(1e-3, 64.0))


@st.composite
def grids(draw: st.DrawFn, dyadic: bool = False) -> Grid:
    """Signed, narrow and unsigned grids with any whole zero point among their codes."""
    bits = draw(bit_widths(2))
    low = draw(st.sampled_from([0, -(2 ** (bits - 1)), 1 - 2 ** (bits - 1)]))
    high = 2**bits - 1 if low == 0 else 2 ** (bits - 1) - 1
    zero = draw(st.integers(low, high)) if low == 0 else 0
    return Grid(draw(scales(dyadic)), float(zero), low, high)


@st.composite
def on_grid(draw: st.DrawFn, grid: Grid, size: int = 32) -> np.ndarray:
    """Steps from real zero, `(size,)`: codes, ties between them, and what lies beyond the ends."""
    reach = grid.high - grid.low + 2
    halves = draw(hnp.arrays(np.int64, size, elements=st.integers(-2 * reach, 2 * reach)))
    return halves / 2


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A small convolution.

    Attributes:
        image: (h, w) of the input.
        in_features, out_features, groups: channels.
        kernel: (kh, kw).
        strides: (rows, columns).
        padding: ((top, bottom), (left, right)), or a word.
    """

    image: tuple[int, int]
    in_features: int
    out_features: int
    groups: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: str | tuple[tuple[int, int], tuple[int, int]]


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Convolutions with odd and even kernels, uneven padding, groups, depthwise multipliers."""
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    kernel = draw(st.sampled_from([(1, 1), (2, 3), (3, 3), (5, 1)]))
    side = st.integers(0, 2)
    pads = st.tuples(st.tuples(side, side), st.tuples(side, side))
    return Geometry(
        image=draw(st.sampled_from([(5, 5), (7, 6)])),
        in_features=groups * draw(st.sampled_from([1, 3])),
        out_features=groups * draw(st.sampled_from([1, 2, 5])),
        groups=groups,
        kernel=kernel,
        strides=draw(st.sampled_from([(1, 1), (2, 2), (1, 2)])),
        padding=draw(st.one_of(st.sampled_from(["SAME", "VALID"]), pads)),
    )
