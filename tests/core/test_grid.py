"""Grids, bit widths and the one rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjax.core.grid import (
    Grid,
    check_bits,
    check_number,
    signed_range,
    top_code,
    traced_bits,
    uniform_codes,
)
from tests.strategies import grids, on_grid, reals, tensors

ROUNDING = jax.jit(uniform_codes)


def rounded(x: np.ndarray, grid: Grid) -> np.ndarray:
    """Codes of x on a grid."""
    ends = (grid.scale, grid.zero_point, grid.low, grid.high)
    return np.asarray(ROUNDING(jnp.asarray(x, jnp.float32), *map(jnp.float32, ends)))


@given(st.data())
def test_ties_go_to_the_even_step_and_the_ends_saturate(data: st.DataObject):
    grid = data.draw(grids(dyadic=True))
    steps = data.draw(on_grid(grid))
    expected = np.clip(np.rint(steps) + grid.zero_point, grid.low, grid.high)
    np.testing.assert_array_equal(rounded(steps * grid.scale, grid), expected)


@given(tensors((32,)), grids())
def test_codes_are_the_nearest(x: np.ndarray, grid: Grid):
    codes = rounded(x, grid)
    nearest = np.clip(x / grid.scale + grid.zero_point, grid.low, grid.high)
    assert np.all(np.abs(codes - nearest) <= 0.5 + 1e-6 * np.abs(nearest))
    assert np.all(codes == np.rint(codes))


def test_ties_follow_the_step_and_not_the_code():
    # 0.5, 1.5 and 2.5 steps around a zero point of 1, as ONNX Runtime and PyTorch have it.
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49, -0.51])
    assert rounded(x, Grid(1.0, 1.0, -8, 7)).tolist() == [1, 3, 3, 1, -1, -1, 1, 0]


@pytest.mark.parametrize("bits", range(1, 17))
def test_top_code_is_exact(bits: int):
    assert float(top_code(jnp.int32(bits))) == 2**bits - 1
    assert float(jax.jit(top_code)(jnp.int32(bits))) == 2**bits - 1


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("narrow", [False, True])
def test_signed_ranges(bits: int, narrow: bool):
    low, high = jax.jit(signed_range, static_argnums=1)(jnp.int32(bits), narrow)
    assert (float(low), float(high)) == (-(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1)


def test_bits_are_traced_as_whole_numbers():
    assert (traced_bits(5).dtype, int(traced_bits(5))) == (jnp.int32, 5)
    with pytest.raises(AssertionError, match="moved into the traced numbers"):
        traced_bits(None)


@pytest.mark.parametrize("bits", [0, 9, -4, 2.5, 4.0, "4", True, [4], np.zeros(2)], ids=repr)
def test_wrong_bits_name_field_value_range_and_remedy(bits: object):
    with pytest.raises(ValueError) as caught:
        check_bits("Method", bits)
    for part in ("Method.bits", "from 1 to 8", f"got {bits!r}", "NoQuantizer"):
        assert part in str(caught.value)


@pytest.mark.parametrize("bits", [None, 1, 8, np.int64(3)])
def test_right_bits_pass(bits: object):
    check_bits("Method", bits)


def test_a_narrower_range_is_named():
    with pytest.raises(ValueError, match=r"Method\.bits .* from 2 to 8, got 1"):
        check_bits("Method", 1, low=2)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), float("inf"), "0.5", True], ids=repr)
def test_wrong_numbers_name_field_value_and_range(value: object):
    with pytest.raises(ValueError) as caught:
        check_number("Method", "decay", value, 0.0, 1.0)
    for part in ("Method.decay", "from 0 to 1", f"got {value!r}"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", [None, 0, 1, 0.5])
def test_right_numbers_pass(value: object):
    check_number("Method", "decay", value, 0.0, 1.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_grid_needs_a_positive_step(scale: float):
    with pytest.raises(ValueError, match=rf"Grid\.scale must be positive.*got {scale}"):
        Grid(scale, 0.0, 0, 15)


@given(reals(1e-3, 10.0))
def test_grids_are_values(scale: float):
    assert Grid(scale, 0.0, 0, 15) == Grid(scale, 0.0, 0, 15)
    assert hash(Grid(scale, 0.0, 0, 15)) != hash(Grid(scale, 0.0, 0, 14))


def test_a_grid_needs_two_codes():
    with pytest.raises(ValueError, match=r"Grid\.low must be below Grid\.high, got \[3, 3\]"):
        Grid(1.0, 0.0, 3, 3)


def test_an_infinite_step_is_refused():
    with pytest.raises(ValueError, match=r"Grid\.scale must be positive and finite"):
        Grid(float("inf"), 0.0, 0, 15)
