"""DoReFa's levels without its tanh: values and gradients worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.quantizer import Role
from qjax.methods.dorefa import DoReFaWeight
from qjax.methods.dorefa_linear import DoReFaLinearWeight

W = jnp.array([-2.0, -0.5, 0.25, 1.5])
"""Over the largest, 2, and on [0, 1]: 0, 0.375, 0.5625, 0.875."""


def found(q: DoReFaLinearWeight, g: list[float]) -> tuple[np.ndarray, np.ndarray]:
    p = q.init(W, Role("weight", 4))
    slope = jax.grad(lambda w: jnp.sum(q(p, w) * jnp.array(g)))(W)
    return np.asarray(q(p, W)), np.asarray(slope)


def test_linear_divides_by_the_largest():
    # 3 times 0, 0.375, 0.5625, 0.875 rounds to 0, 1, 2, 3: levels -1, -1/3, 1/3, 1. The gradient is
    # g / 2; the largest, -2, takes g_3 w_3 / 2^2 = 1.5 / 4 through the division.
    value, slope = found(DoReFaLinearWeight(2), [0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(value, [-1, -1 / 3, 1 / 3, 1], atol=1e-6)
    np.testing.assert_allclose(slope, [1.5 / 4, 0, 0, 1 / 2], atol=1e-6)


def test_a_kept_scale_multiplies_back_and_passes_the_gradient():
    value, slope = found(DoReFaLinearWeight(2, keep_scale=True), [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(value, [-2, -2 / 3, 2 / 3, 2], atol=1e-6)
    np.testing.assert_allclose(slope, [1, 2, 3, 4], atol=1e-6)


def test_clip_takes_the_unit_interval_and_blocks_outside():
    # Clipped -1, -0.5, 0.25, 1; on [0, 1] 0, 0.25, 0.625, 1; times 3 and rounded 0, 1, 2, 3.
    value, slope = found(DoReFaLinearWeight(2, clip=True), [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(value, [-1, -1 / 3, 1 / 3, 1], atol=1e-6)
    np.testing.assert_allclose(slope, [0, 2, 3, 0], atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"clip": True}, {"keep_scale": True}])
def test_one_bit_is_dorefas(fields: dict[str, bool]):
    q, other = DoReFaLinearWeight(1, **fields), DoReFaWeight(1)
    p = q.init(W, Role("weight", 4))
    np.testing.assert_array_equal(q(p, W), other(p, W))


def test_tanh_is_a_line_for_small_weights():
    # tanh(w) = w - w^3 / 3: at 1e-3 the two differ by 1e-6 of a weight, no code moves.
    w = 1e-3 * jax.random.normal(jax.random.key(0), (512,))
    q, other = DoReFaLinearWeight(4), DoReFaWeight(4)
    ours, theirs = (one.codes(one.init(w, Role("weight", 512)), w)[0] for one in (q, other))
    np.testing.assert_array_equal(ours.codes, theirs.codes)


def test_a_clip_has_no_scale_to_keep():
    with pytest.raises(ValueError, match="keep_scale must be false where clip is true, got true"):
        DoReFaLinearWeight(2, clip=True, keep_scale=True)
