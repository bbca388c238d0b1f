"""Maximum pooling with padding: the float values, and the same maximum taken of integers."""

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import q31_even
from qjax.layers import MaxPool


def by_hand(x: np.ndarray, window: int, stride: int, pads: tuple) -> np.ndarray:
    """Maximum of each window of a (h, w) image, pixels outside left out."""
    (top, bottom), (left, right) = pads
    height, width = x.shape
    rows = range(-top, height + bottom - window + 1, stride)
    columns = range(-left, width + right - window + 1, stride)
    return np.array(
        [[x[max(r, 0) : r + window, max(c, 0) : c + window].max() for c in columns] for r in rows]
    )


@pytest.mark.parametrize(
    "padding, pads",
    [
        (1, ((1, 1), (1, 1))),
        ("SAME", ((0, 1), (1, 1))),
        ("VALID", ((0, 0), (0, 0))),
        (((2, 0), (0, 1)), ((2, 0), (0, 1))),
    ],
)
def test_padding_is_never_the_maximum(padding: object, pads: tuple) -> None:
    x = np.random.default_rng(0).normal(size=(8, 7)).astype(np.float32) - 9
    pooled = MaxPool(3, 2, padding)(jnp.asarray(x)[None, :, :, None])  # pyright: ignore
    np.testing.assert_array_equal(np.asarray(pooled)[0, :, :, 0], by_hand(x, 3, 2, pads))


@pytest.mark.parametrize("dtype", [np.int8, np.int32])
@pytest.mark.parametrize("padding", [1, "SAME", ((2, 0), (0, 1))])
def test_integers_pool_as_the_numbers_they_stand_for(
    dtype: type[np.signedinteger], padding: object
) -> None:
    info = np.iinfo(dtype)
    ints = np.random.default_rng(1).integers(info.min, info.max, (2, 6, 5, 3), endpoint=True)
    # A BN gamma below zero turns the order of a channel's integers around.
    scale = np.array([0.5, -0.25, 2.0])
    term = IntegerTerm(
        jnp.asarray(ints, dtype), HostArray(scale), HostArray(0.0), int(info.min), int(info.max)
    )
    codes = Codes((term,), HostArray([0.0, 1.0, -1.0]))
    pool = MaxPool(3, 2, padding)  # pyright: ignore[reportArgumentType]
    pooled = pool.integer((codes,), q31_even)(codes)  # pyright: ignore[reportCallIssue]
    windows = pool.pads(ints.shape)
    real = codes.decode()
    for image in range(2):
        for channel in range(3):
            expected = by_hand(real[image, :, :, channel], 3, 2, windows)
            np.testing.assert_array_equal(pooled.decode()[image, :, :, channel], expected)


@pytest.mark.parametrize("padding", [3, ((0, 3), (0, 0))])
def test_a_window_of_padding_alone_is_refused(padding: object) -> None:
    with pytest.raises(ValueError, match="MaxPool.padding must be below the window of 3"):
        MaxPool(3, 2, padding)  # pyright: ignore[reportArgumentType]
