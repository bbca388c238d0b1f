"""Two ways to take zero points into account: differences in int16, and the expanded sum."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.ops.weights import plan
from qjax.program.program import Program
from qjax.program.run import runner
from qjax.program.tensor import DTYPES, Quantization, Tensor
from tests.core.test_intconv import codes

PADDING = ((1, 2), (0, 1))


def differences(x: np.ndarray, zx: int, w: np.ndarray, zw: np.ndarray) -> np.ndarray:
    """sum (x - Z_x) (w - Z_w) of int16 differences, zeros outside the image."""
    left, right = x.astype(np.int16) - np.int16(zx), w.astype(np.int16) - zw.astype(np.int16)
    return np.asarray(
        lax.conv_general_dilated(
            jnp.asarray(left),
            jnp.asarray(right),
            (2, 1),
            PADDING,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=jnp.int32,
        )
    )


def expanded(x: np.ndarray, zx: int, w: np.ndarray, zw: np.ndarray) -> np.ndarray:
    """sum x w - Z_x sum w - Z_w sum x + N Z_x Z_w, the image padded with Z_x."""
    x = np.pad(x.astype(np.int64), ((0, 0), *PADDING, (0, 0)), constant_values=zx)
    kh, kw, ci, o = w.shape
    seen = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (1, 2))[:, ::2]  # pyright: ignore
    raw = np.einsum("nabcij,ijco->nabo", seen, w.astype(np.int64))
    sums = seen.sum((3, 4, 5))[..., None]
    n = kh * kw * ci
    return raw - zx * w.astype(np.int64).sum((0, 1, 2)) - zw * sums + n * zx * zw


def ours(x: np.ndarray, zx: int, w: np.ndarray, zw: np.ndarray) -> np.ndarray:
    """The integer program's own sum, its zero point moved to 0."""
    o = w.shape[-1]
    grid = Quantization(HostArray(np.ones(o)), HostArray(zw), 3)
    one = Quantization(HostArray(1.0), HostArray(zx))
    tensors = (
        Tensor("x", (None, *x.shape[1:]), x.dtype.name, one),
        Tensor("w", w.shape, w.dtype.name, grid, data=w),
        Tensor("y", (None, 4, 6, o), "int32", Quantization(HostArray(1.0), HostArray(0))),
    )
    op = ops.Conv2D(("x", "w"), "y", (2, 1), PADDING)
    program = Program(("x",), ("y",), tensors, (op,), "q31_even")
    return np.asarray(runner(program)(x)["y"])


@pytest.mark.parametrize("wide", [False, True], ids=["differences fit int8", "differences do not"])
@pytest.mark.parametrize("x_type", ["int8", "uint8"])
@pytest.mark.parametrize("w_type", ["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_all_forms_give_one_sum(per_channel: bool, w_type: str, x_type: str, wide: bool) -> None:
    rng = np.random.default_rng(3)
    least = np.iinfo(w_type).min
    x, w = codes(0, (2, 6, 6, 5), x_type), codes(1, (3, 2, 5, 4), w_type)
    if not wide:
        w = (least + 100 + w.astype(np.int64) % 50).astype(DTYPES[w_type])
    zx = int(np.iinfo(x_type).min) + 77
    zw = least + (rng.integers(100, 150, 4) if per_channel else np.full(4, 119))
    expected = differences(x, zx, w, zw)
    np.testing.assert_array_equal(expanded(x, zx, w, zw), expected)
    np.testing.assert_array_equal(ours(x, zx, w, zw), expected)
    units = Quantization(HostArray(np.ones(4)), HostArray(zw), 3)
    chosen = plan(Tensor("w", w.shape, w_type, units, data=w))
    assert (chosen.correction is not None) == wide
