"""From sums to codes: how a program's policy scales down, as the runtimes it names do.

The rounding itself is `core/requantize.py`'s. What is added here is the number it is given: the
real multiplier M = S_x * S_w / S_y is rounded on the way by some runtimes, which moves low bits of
the integer multiplier made of it:

| policy | S_x * S_w / S_y |
|---|---|
| `gemmlowp`, `q31` | in float64; for one scale a tensor (`per_tensor`) the product in float32 |
| `f32_even`, `f32_zp_even` | in float32 throughout |
| others | in float64 |
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer
from numpy.typing import ArrayLike

from qjax.core.affine import INT32_MAX, INT32_MIN, Affine
from qjax.core.fixedpoint import effective_multiplier, effective_multiplier_float32
from qjax.core.requantize import policy
from qjax.program.tensor import DTYPES, Tensor

TFLITE = ("gemmlowp", "q31")
FLOAT32 = ("f32_even", "f32_zp_even")


def multiplier(
    name: str, input_scale: float, weight_scale: ArrayLike, output_scale: float, per_tensor: bool
) -> np.ndarray:
    """S_x * S_w / S_y in float64, () or (c,), rounded on the way as `name` has it.

    Example:
        >>> float(multiplier("q31_even", 0.5, 0.25, 0.5, per_tensor=False))
        0.25
    """
    if name in FLOAT32:
        product = np.float32(input_scale) * np.asarray(weight_scale, np.float32)
        return np.asarray(product / np.float32(output_scale), np.float64)
    if name in TFLITE and per_tensor:
        weight = np.asarray(weight_scale).reshape(-1)[0]
        value = effective_multiplier_float32(input_scale, weight, output_scale)
        return np.asarray(value)
    return np.asarray(effective_multiplier(input_scale, weight_scale, output_scale))


def ratio_float32(input_scale: float, output_scale: float) -> np.ndarray:
    """S_x / S_y in float32, as TFLite's activation functions compute it, held in float64."""
    return np.asarray(np.float32(input_scale) / np.float32(output_scale), np.float64)


def rescale(
    name: str,
    total: Integer[Array, "*shape"],
    scale: ArrayLike,
    bounds: tuple[int, int],
    output: Tensor,
) -> Integer[Array, "*shape"]:
    """Codes of an integer sum whose zero is real zero: clip(round(scale * total) + Z, low, high).

    Args:
        name: the policy.
        total: int32, channels last.
        scale: output steps per unit of the sum, () or (c,).
        bounds: least and largest value of the sum.
        output: tensor that the codes are of.
    """
    low, high = output.range
    zero = output.units.zero
    numbers = (np.asarray(scale, np.float64),), np.asarray(float(zero))
    affine = Affine(*numbers, (bounds,), low, high, zero_point=zero)
    return policy(name)([total], affine).astype(DTYPES[output.dtype])


def land(total: Integer[Array, "*shape"], output: Tensor) -> Integer[Array, "*shape"]:
    """Integers already in output steps from real zero: add the zero point, clamp, narrow."""
    low, high = output.range
    zero = output.units.zero
    # In the order that cannot overflow.
    return (jnp.clip(total, low - zero, high - zero) + zero).astype(DTYPES[output.dtype])


def centred(value: Integer[Array, "*shape"], tensor: Tensor) -> Integer[Array, "*shape"]:
    """Codes less their zero point, as int32."""
    return value.astype(jnp.int32) - tensor.units.zero


def centred_bounds(tensor: Tensor) -> tuple[int, int]:
    """Least and largest value of `centred`."""
    low, high = tensor.range
    zero = tensor.units.zero
    return low - zero, high - zero


def require_int32(owner: str, bounds: Sequence[int]) -> tuple[int, int]:
    """`bounds` as a pair of ints.

    Raises:
        ValueError: they leave int32.
    """
    least, most = (int(bound) for bound in bounds)
    if least < INT32_MIN or most > INT32_MAX:
        raise ValueError(
            f"{owner}: its sum could reach {least} to {most} and leave int32; use narrower codes "
            "or a smaller fan-in"
        )
    return least, most
