"""A sum and its rounding as one layer: sign, width and bias in constants of a runtime's kind."""

import numpy as np
import pytest

from qjax.program.base import NotExpressible
from qjax.program.lowering.fuse import Fused, Grid, fuse

X, Y = Grid(0.1, 0, 0, 15), Grid(0.05, -128, -128, 127)


def steps(made: Fused, x: Grid, y: Grid, values: np.ndarray) -> np.ndarray:
    """Output steps from real zero for inputs (n, c) of a dense layer, exactly as it scales."""
    total = (values - x.zero) @ made.codes.astype(np.int64) + made.bias
    return total * (x.scale * made.scale / y.scale)


def check(codes, factor, rest, tolerance: float, x: Grid = X, y: Grid = Y, widest: int = 127):
    """The layer computes factor * sum + rest within a tolerance of one step."""
    made = fuse(codes, np.asarray(factor), np.asarray(rest), x, y, widest)
    values = np.random.default_rng(0).integers(x.low, x.high + 1, (50, len(codes)))
    exact = factor * ((values - x.zero) @ codes) + rest
    low, high = y.low - y.zero, y.high - y.zero
    found, wanted = (np.clip(v, low, high) for v in (steps(made, x, y, values), exact))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)
    assert made.scale.dtype == np.float64 and (made.scale.astype(np.float32) == made.scale).all()
    assert (made.scale > 0).all()
    return made


def test_a_negative_factor_turns_the_weights_over():
    codes = np.array([[3, 3], [-2, -2], [7, 7]])
    made = check(codes, [0.5, -0.5], [1.25, 1.25], 0.01)
    assert (made.codes[:, 0] == -made.codes[:, 1]).all()
    assert made.changed == 0


def test_narrow_codes_make_the_bias_finer():
    codes = np.array([[1], [-1], [0]])
    wide = check(codes, [0.75], [0.4], 0.75 / 64 / 2 + 1e-6)
    assert np.abs(wide.codes).max() == 64
    narrow = fuse(codes, np.asarray([0.75]), np.asarray([0.4]), X, Y, widest=1)
    assert np.abs(narrow.codes).max() == 1 and narrow.bias.tolist() == [1]
    # 4 bits within 7: what CPUs without VNNI can add up.
    assert np.abs(fuse(np.array([[7]]), np.ones(1), np.zeros(1), X, Y, 64).codes).max() == 56


def test_a_bias_beyond_int32_is_cut_where_codes_saturate():
    made = check(np.array([[127], [-90]]), [1e-4], [3e9], 1e-6)
    assert made.changed == 0


def test_a_tiny_factor_raises_the_scale():
    """A gamma of almost nothing and an offset of some steps, near a tie."""
    codes = np.random.default_rng(0).integers(-127, 128, (300, 2))
    made = check(codes, [5e-8, 1e-5], [100.4999, 3.0], 1e-3)
    assert made.changed == 1
    assert np.abs(made.codes[:, 0]).max() < 127
    assert (made.codes[:, 1] == codes[:, 1]).all()


def test_a_channel_that_hears_nothing_keeps_its_offset():
    made = check(np.array([[5, 5], [5, 5]]), [0.0, 1e-30], [17.3, -200.0], 1e-4)
    assert not made.codes.any()


def test_a_weight_of_minus_128_turned_over_is_127():
    made = fuse(np.array([[-128], [3]]), np.asarray([-0.01]), np.zeros(1), X, Y, 127)
    assert made.codes.ravel().tolist() == [127, -3] and made.changed == 1


def test_codes_beyond_int8_are_refused():
    with pytest.raises(NotExpressible, match="without a zero point.*symmetric.*stablehlo"):
        fuse(np.array([[200]]), np.ones(1), np.zeros(1), X, Y, 127)


@pytest.mark.parametrize("seed", range(5))
def test_random_layers(seed: int):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-7, 8, (40, 6))
    x = Grid(0.07, 3, 0, 15)
    check(codes, rng.normal(size=6) * 0.02, rng.normal(size=6) * 60, 1e-3, x)
