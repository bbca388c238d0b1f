"""gemmlowp's fixed-point functions against their golden vectors and against real arithmetic."""

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.gemmlowp import (
    exp_on_negative_values,
    one_over_one_plus_x,
    reciprocal,
    saturating_shift_left,
)
from tests.core.oracle import dtypes, golden

CASES = golden("gemmlowp_fixed_point")["cases"]


@pytest.mark.parametrize(
    ("function", "key"),
    [
        (exp_on_negative_values, "exp_on_negative_values_Q5.26"),
        (one_over_one_plus_x, "one_over_one_plus_x_Q0.31"),
    ],
)
def test_golden(function, key: str):
    raw, expected = np.array(CASES[key]).T
    np.testing.assert_array_equal(function(jnp.asarray(raw, jnp.int32)), expected)


def test_the_exponential_is_one():
    raw = np.random.default_rng(0).integers(-(2**31), 1, 2000).astype(np.int32)
    real = np.asarray(exp_on_negative_values(jnp.asarray(raw)), np.float64) / 2**31
    np.testing.assert_allclose(real, np.exp(raw / 2**26), atol=2e-6)


def test_the_reciprocal_is_one():
    raw = np.random.default_rng(1).integers(2**19, 2**31 - 1, 2000).astype(np.int32)
    scale, bits = (np.asarray(part, np.float64) for part in reciprocal(jnp.asarray(raw), 12))
    np.testing.assert_allclose(scale / 2**31 * 2.0**-bits, 2**19 / raw, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shifting_left_saturates(count: int):
    raw = np.array([0, 1, -1, 2**26, -(2**26), 2**31 - 1, -(2**31), 2 ** (31 - count)], np.int64)
    expected = np.clip(raw << count, -(2**31), 2**31 - 1)
    shifted = saturating_shift_left(jnp.asarray(raw, jnp.int32), count)
    np.testing.assert_array_equal(shifted, expected)


def test_no_float():
    def whole(x):
        return reciprocal(exp_on_negative_values(x), 12)

    found = dtypes(whole, jnp.zeros(3, jnp.int32))
    assert not [kind for kind in found if np.issubdtype(kind, np.inexact)]
