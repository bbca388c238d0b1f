"""Functions of one 8-bit code as tables of 256 codes, computed on the host as TFLite computes them.

    table[q] = clip(round(f(S_x (q - Z_x)) / S_y) + Z_y, least, largest)

in float32 with ties away from zero, the division as a product with 1 / S_y. A program then only
looks codes up, and holds no floating-point number.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

type Function = Callable[[Float32[np.ndarray, " n"]], Float32[np.ndarray, " n"]]


def round_half_away(values: np.ndarray) -> np.ndarray:
    """C's `round`: the nearest whole number, ties away from zero, exact for every float.

    Adding a half first would round 0.49999997 up in float32.

    >>> round_half_away(np.float32([0.5, -2.5, 0.49999997])).tolist()
    [1.0, -3.0, 0.0]
    """
    whole = np.trunc(values)
    away = np.where(np.abs(values - whole) >= 0.5, np.sign(values), 0)
    return np.asarray(whole + away.astype(values.dtype))


def logistic(x: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """1 / (1 + exp(-x)) as C computes it in float32, its exponential correctly rounded."""
    one = np.float32(1)
    return one / (one + _exact(np.exp, -x))


def tanh(x: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """The hyperbolic tangent, correctly rounded."""
    return _exact(np.tanh, x)


def code_table(
    function: Function,
    dtype: type[np.number],
    input_units: tuple[float, int],
    output_units: tuple[float, int],
) -> np.ndarray:
    """The table of `function`, least code first.

    Args:
        function: of float32 arrays.
        dtype: of the codes on both sides, int8 or uint8.
        input_units, output_units: (scale, zero point).

    >>> code_table(logistic, np.int8, (0.047, -2), (1 / 256, -128))[[0, 126, 255]].tolist()
    [-127, 0, 127]
    """
    limits = np.iinfo(np.int8 if dtype == np.int8 else np.uint8)
    scale, zero = np.float32(input_units[0]), input_units[1]
    codes = np.arange(limits.min, limits.max + 1)
    real = scale * (codes - zero).astype(np.float32)
    inverse = np.float32(1) / np.float32(output_units[0])
    steps = round_half_away(function(real) * inverse) + np.float32(output_units[1])
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def _exact(function: np.ufunc, x: np.ndarray) -> np.ndarray:
    """A float32 function by way of float64: NumPy's own float32 ones may be off by a last bit."""
    with np.errstate(over="ignore"):
        return function(x.astype(np.float64)).astype(np.float32)
