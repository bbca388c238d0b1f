"""Saturated pairs against numpy's int16, and where nothing saturates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.intconv import conv_acc, dense_acc
from qjax.core.saturation import saturating_conv_acc, saturating_dense_acc
from tests.core.test_intconv import codes

SAME = ((1, 1), (0, 2))


def pairs(u: np.ndarray, w: np.ndarray) -> np.ndarray:
    """VPMADDUBSW over the last axis of u (unsigned) and the first of w, then the sum."""
    if u.shape[-1] % 2:
        u = np.pad(u, [(0, 0)] * (u.ndim - 1) + [(0, 1)])
        w = np.pad(w, ((0, 1), (0, 0)))
    products = u[..., None] * w
    added = np.clip(products[..., ::2, :] + products[..., 1::2, :], -32768, 32767)
    return added.astype(np.int16).astype(np.int64).sum(-2)


@pytest.mark.parametrize("k", [1, 2, 27, 64, 95])
def test_dense_is_pair_by_pair(k: int):
    x, w = codes(0, (20, k)), codes(1, (k, 7))
    expected = pairs(x.astype(np.int64) + 128, w.astype(np.int64)) - 128 * w.astype(int).sum(0)
    found = jax.jit(saturating_dense_acc)(x, w)
    np.testing.assert_array_equal(found, expected)
    if k > 1:
        assert np.mean(np.asarray(found) != dense_acc(jnp.asarray(x), jnp.asarray(w))) > 0.1


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_pairs_channels_then_columns_then_rows(groups: int):
    x, kernel = codes(2, (2, 5, 6, 6)), codes(3, (3, 2, 6 // groups, 4))
    u = np.pad(x.astype(np.int64), ((0, 0), *SAME, (0, 0)), constant_values=-9) + 128
    seen = np.lib.stride_tricks.sliding_window_view(u, (3, 2), (1, 2))[:, ::2]  # pyright: ignore
    seen = seen.transpose(0, 1, 2, 4, 5, 3)
    expected = []
    for group in range(groups):
        part = seen[..., group * 6 // groups : (group + 1) * 6 // groups]
        weight = kernel[..., group * 4 // groups : (group + 1) * 4 // groups].astype(np.int64)
        flat = weight.reshape(-1, weight.shape[-1])
        expected.append(pairs(part.reshape(*part.shape[:3], -1), flat) - 128 * flat.sum(0))
    found = saturating_conv_acc(
        jnp.asarray(x), jnp.asarray(kernel), (2, 1), SAME, groups, pad_value=-9
    )
    np.testing.assert_array_equal(found, np.concatenate(expected, -1))


def test_weights_of_seven_bits_never_saturate():
    x, kernel = codes(4, (2, 5, 6, 8)), codes(5, (3, 3, 8, 5))
    narrow = np.clip(kernel // 2, -64, 64).astype(np.int8)
    for weight, equal in ((narrow, True), (kernel, False)):
        arrays = jnp.asarray(x), jnp.asarray(weight)
        exact = conv_acc(*arrays, padding=SAME, pad_value=3)
        found = saturating_conv_acc(*arrays, padding=SAME, pad_value=3)
        assert bool(jnp.all(exact == found)) == equal


def test_depthwise_kernels_are_exact():
    x, kernel = jnp.asarray(codes(6, (2, 5, 6, 4))), jnp.asarray(codes(7, (3, 3, 1, 8)))
    np.testing.assert_array_equal(
        saturating_conv_acc(x, kernel, groups=4), conv_acc(x, kernel, groups=4)
    )
