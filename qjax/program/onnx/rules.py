"""What onnxruntime computes beside `f32_even`: sums, products, averages, codes from grid to grid.

Its kernels for x86 processors with AVX2, in float32, rounding half to even. Functions of one or two
8-bit codes are tables here, which the host fills with that very arithmetic; the program looks up
integers.

    QLinearAdd    round(fma(q_1, r_1, fma(q_2, r_2, c))),  r_i = S_i / S_y,
                  c = Z_y - fma(r_1, Z_1, r_2 Z_2)
    QLinearMul    round((q_1 - Z_1) (q_2 - Z_2) M + Z_y),  M = S_1 S_2 / S_y
    QLinearGlobalAveragePool
                  round(S_x / (S_y n) * sum (q - Z_x)) + Z_y
    QLinearAveragePool
                  round((sum (q - Z_x) S_x) / n / S_y + Z_y), added tap by tap, row by row
    DequantizeLinear and QuantizeLinear, QLinearConcat
                  round((q - Z_x) S_x / S_y) + Z_y
    QLinearLeakyRelu, QLinearSigmoid
                  round(f((q - Z_x) S_x) / S_y) + Z_y, the sigmoid as a quotient of two polynomials

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


def product_table(one: Tensor, other: Tensor, output: Tensor) -> np.ndarray:
    """QLinearMul: (256, 256) codes by the bytes of both operands."""
    scales = [np.float32(tensor.units.step) for tensor in (one, other, output)]
    rows, columns = (codes(t.dtype) - np.float32(t.units.zero) for t in (one, other))
    product = rows[:, None] * columns[None, :] * (scales[0] * scales[1] / scales[2])
    return landed(product + np.float32(output.units.zero), output)


def real_values(x: Tensor) -> np.ndarray:
    """DequantizeLinear: (256,) float32 numbers by the byte."""
    return (codes(x.dtype) - np.float32(x.units.zero)) * np.float32(x.units.step)


def quantized(real: np.ndarray, output: Tensor) -> np.ndarray:
    """QuantizeLinear: codes of float32 numbers."""
    return landed(np.rint(real / np.float32(output.units.step)) + output.units.zero, output)


def requantize_table(x: Tensor, output: Tensor) -> np.ndarray:
    """DequantizeLinear, then QuantizeLinear: (256,) codes by the byte."""
    return quantized(real_values(x), output)


def leaky_table(x: Tensor, alpha: float, output: Tensor) -> np.ndarray:
    """QLinearLeakyRelu: (256,) codes by the byte."""
    real = real_values(x)
    return quantized(np.where(real >= 0, real, np.float32(alpha) * real), output)


def mean_bounds(count: int, output: Tensor) -> np.ndarray:
    """QLinearAveragePool: the least float32 sum of `count` taps that lands on each code, ascending.

    That on the least code is minus infinity, and plus infinity stands behind the last. Divisions
    are made here: a compiler may turn them into products with a reciprocal.
    """
    low, high = output.range
    wanted = np.arange(low + 1, high + 1)
    count32, step = np.float32(count), np.float32(output.units.step)
    # Bisected over all float32 numbers in order: n stands for the one with the bits of |n|.
    infinite = int(np.float32(np.inf).view(np.int32))
    least, most = (np.full(wanted.shape, sign * infinite) for sign in (-1, 1))
    while (most - least > 1).any():
        middle = (least + most) // 2
        total = np.sign(middle) * np.abs(middle).astype(np.int32).view(np.float32)
        with np.errstate(over="ignore"):
            steps = total.astype(np.float32) / count32 / step + np.float32(output.units.zero)
        reached = np.rint(steps) >= wanted
        most = np.where(reached, middle, most)
        least = np.where(reached, least, middle)
    found = np.sign(most) * np.abs(most).astype(np.int32).view(np.float32)
    return np.concatenate([[-np.inf], found, [np.inf]]).astype(np.float32)


_ODD = (
    4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03,
    2.48287947061529e-01,
)  # fmt: skip
_EVEN = (
    6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03,
    1.16817656904453e-01, 9.93151921023180e-01,
)  # fmt: skip
_FLAT = np.float32(18)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) of float32 numbers as onnxruntime and Eigen approximate it.

    >>> sigmoid(np.float32([-20, 0, 1])).tolist()
    [0.0, 0.5, 0.7310585975646973]
    """
    x = np.clip(x, -_FLAT, _FLAT)

    def polynomial(numbers: tuple[float, ...]) -> np.ndarray:
        value = np.full_like(x, numbers[0])
        for number in numbers[1:]:
            value = fma(value, x * x, np.float32(number))
        return value

    odd = polynomial(_ODD) * x
    return np.clip(odd / polynomial(_EVEN) + np.float32(0.5), np.float32(0), np.float32(1))


def sigmoid_table(x: Tensor, output: Tensor) -> np.ndarray:
    """QLinearSigmoid: (256,) codes by the byte."""
    return quantized(sigmoid(real_values(x)), output)


def mean_scale(x: Tensor, output: Tensor, count: int) -> np.ndarray:
    """S_x / (S_y n) in float32, held in float64."""
    divisor = np.float32(output.units.step) * np.float32(count)
    return np.asarray(np.float32(x.units.step) / divisor, np.float64)
