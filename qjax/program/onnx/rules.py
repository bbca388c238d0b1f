"""What onnxruntime computes beside `f32_even`: additions, means, and codes from grid to grid.

Its kernels for x86 processors with AVX2, in float32, rounding half to even. Functions of one or two
8-bit codes are tables here, which the host fills with that very arithmetic; the program looks up
integers.

    QLinearAdd    round(fma(q_1, r_1, fma(q_2, r_2, c))),  r_i = S_i / S_y,
                  c = Z_y - fma(r_1, Z_1, r_2 Z_2)
    QLinearGlobalAveragePool
                  round(S_x / (S_y n) * sum (q - Z_x)) + Z_y
    DequantizeLinear and QuantizeLinear
                  round((q - Z_x) S_x / S_y) + Z_y

fma(a, b, c) = a b + c, rounded once.
"""

import numpy as np

from qjax.program.tensor import DTYPES, Tensor, code_range

type Number = np.ndarray | np.floating
"""A float32 array or scalar."""

BYTES = ("int8", "uint8")
"""Types whose codes the tables are for."""


def fma(a: Number, b: Number, c: Number) -> np.ndarray:
    """a b + c of float32 arrays, rounded once to float32.

    >>> third, three = np.float32(1 / 3), np.float32(3)
    >>> float(third * three - np.float32(1)), fma(third, three, np.float32(-1)).tolist()
    (0.0, [2.9802322387695312e-08])
    """
    wide = np.broadcast_arrays(*(np.asarray(v, np.float32).astype(np.float64) for v in (a, b, c)))
    product = np.atleast_1d(wide[0] * wide[1])
    total = product + wide[2]
    # What the sum lost, exactly (Knuth's two-sum); the product of two float32 loses nothing.
    back = total - product
    lost = (product - (total - back)) + (wide[2] - back)
    # Rounded to odd, so that the rounding to float32 sees on which side of a tie the sum lies.
    even = (total.view(np.int64) & 1) == 0
    odd = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where((lost != 0) & even, odd, total).astype(np.float32)


def codes(dtype: str) -> np.ndarray:
    """Every code of a type in float32, in the order of its bytes' values from 0 to 255."""
    values = np.arange(256).astype(np.uint8).view(DTYPES[dtype])
    return values.astype(np.float32)


def landed(steps: np.ndarray, output: Tensor) -> np.ndarray:
    """Codes of float32 steps from code zero."""
    least, most = code_range(output.dtype)
    return np.clip(np.clip(np.rint(steps), least, most), *output.range).astype(DTYPES[output.dtype])


def sum_table(one: Tensor, other: Tensor, output: Tensor) -> np.ndarray:
    """QLinearAdd: (256, 256) codes by the bytes of both operands."""
    scale = np.float32(output.units.step)
    ratios = [np.float32(tensor.units.step) / scale for tensor in (one, other)]
    zeros = [np.float32(tensor.units.zero) for tensor in (one, other)]
    centre = np.float32(output.units.zero) - fma(ratios[0], zeros[0], ratios[1] * zeros[1])
    inner = fma(codes(other.dtype), ratios[1], centre)
    return landed(fma(codes(one.dtype)[:, None], ratios[0], inner[None, :]), output)


def requantize_table(x: Tensor, output: Tensor) -> np.ndarray:
    """DequantizeLinear, then QuantizeLinear: (256,) codes by the byte."""
    real = (codes(x.dtype) - np.float32(x.units.zero)) * np.float32(x.units.step)
    return landed(np.rint(real / np.float32(output.units.step)) + output.units.zero, output)


def mean_scale(x: Tensor, output: Tensor, count: int) -> np.ndarray:
    """S_x / (S_y n) in float32, held in float64."""
    divisor = np.float32(output.units.step) * np.float32(count)
    return np.asarray(np.float32(x.units.step) / divisor, np.float64)
