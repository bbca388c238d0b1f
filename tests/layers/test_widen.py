"""Narrow weight codes fill their container: the same weights, a finer unit for the bias."""

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.codes import IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import WIDEST, f32_even, gemmlowp, q31_even, shift
from qjax.layers.linear import plan_weight, widen


def term(codes: np.ndarray, zero: float = 0.0, low: int = -8, high: int = 7) -> IntegerTerm:
    return IntegerTerm(jnp.asarray(codes, jnp.int8), HostArray(0.5), HostArray(zero), low, high)


def test_each_channel_doubles_as_far_as_it_may() -> None:
    codes = np.array([[-8, 1, 0, 7], [3, -1, 0, 5]])
    plan = plan_weight(term(codes))
    made = widen(plan, reach=255, widest=127)
    assert made.kernel.tolist() == [[-64, 64, 0, 112], [24, -64, 0, 80]]
    np.testing.assert_allclose(made.kernel * made.factor, codes * 0.5)
    for name in ("total", "positive", "negative"):
        grown = getattr(made, name) * made.factor
        np.testing.assert_allclose(grown, getattr(plan, name) * plan.factor)
    assert made.bits == plan.bits == 4, "what is stored has as many bits as before"


def test_doubled_codes_of_half_integers_are_widened_and_bytes_left_alone() -> None:
    plan = widen(plan_weight(term(np.arange(16).reshape(8, 2), 7.5, 0, 15)), 15, 127)
    assert plan.kernel.min() == -120 and plan.kernel.max() == 120
    byte = plan_weight(term(np.arange(-128, 128).reshape(64, 4), -0.5, -128, 127))
    assert byte.correction is not None and widen(byte, 15, 127) is byte


def test_sums_stay_inside_30_bits() -> None:
    plan = widen(plan_weight(term(np.full((2**20, 1), 1))), reach=255, widest=127)
    assert int(plan.positive[0]) * 255 <= 2**30 < int(plan.positive[0]) * 255 * 2


@pytest.mark.parametrize(("policy", "widest"), [(gemmlowp, 127), (f32_even, 64)])
def test_policies_whose_bias_is_whole_ask_for_it(policy, widest: int) -> None:
    assert WIDEST[policy] == widest
    assert q31_even not in WIDEST and shift not in WIDEST
