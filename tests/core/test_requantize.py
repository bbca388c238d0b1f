"""The policies: each the rule of its runtime, the integer ones free of floats."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core import wide
from qjax.core.requantize import (
    POLICIES,
    Policy,
    f32_even,
    f32_zp_even,
    policy,
    q31,
    q31_even,
    shift,
    shift_after_image,
    thresholds,
)
from qjax.core.shifts import shift_half_away, shift_half_up
from tests.core.oracle import affine, dtypes, golden, run

INTEGER = {name: rule for name, rule in POLICIES.items() if not name.startswith("f32")}


def test_golden_rounding_families() -> None:
    case = golden("rounding_families")
    term = np.rint(np.array(case["x"]) * 100).astype(np.int32)
    zero = case["zero_point"]
    numbers = affine([0.01], zero, [(-300, 300)], -9, 9, zero_point=zero)
    after = "onnx_and_pytorch_round_half_even_then_zp"
    assert run(f32_even, [term], numbers).tolist() == case[after]
    assert run(f32_zp_even, [term], numbers).tolist() == case["round_half_even_after_adding_zp"]
    # Ties of a decimal scale are no ties of its float64: count from one that is dyadic.
    ties = np.array([1, 3, 5, -1, -3, -5], np.int32)
    halves = affine([0.5], zero, [(-300, 300)], -9, 9, zero_point=zero)
    assert run(q31_even, [ties], halves).tolist() == case[after][:6]
    assert run(thresholds, [ties], halves).tolist() == case[after][:6]
    up = case["floor(x+0.5)_then_zp"][:6]
    assert run(q31, [ties], halves).tolist() == up
    assert run(partial(shift, rounding=shift_half_up), [ties], halves).tolist() == up
    away = case["tflite_round_half_away_then_zp"][:6]
    assert run(partial(shift, rounding=shift_half_away), [ties], halves).tolist() == away


@pytest.mark.parametrize("name", POLICIES)
def test_policies_agree_on_ordinary_numbers(name: str) -> None:
    rng = np.random.default_rng(2)
    scale = (
        2.0 ** -np.array([7.0, 8.0, 9.0])
        if name.startswith("shift")
        else np.array([7e-3, 3e-3, 1e-3])
    )
    term = rng.integers(-20000, 20000, (300, 3), dtype=np.int32)
    numbers = affine([scale], [10.0, -20.0, 3.0], [(-20000, 20000)], -100, 100, zero_point=3)
    codes = run(policy(name), [term], numbers)
    real = np.clip(term * scale + numbers.offset, -100, 100)
    assert codes.dtype == np.int32
    # Double rounding and a bias in whole accumulator units stay within a step of the value.
    assert np.abs(codes - real).max() <= 0.51


@pytest.mark.parametrize("name", POLICIES)
def test_per_channel_equals_per_tensor_channel_by_channel(name: str) -> None:
    rng = np.random.default_rng(4)
    scales = np.array([2.0**-7, -(2.0**-5), 2.0**-9])
    if not name.startswith("shift"):
        scales = scales * 0.7
    offsets = np.array([3.0, -7.0, 0.0])
    term = rng.integers(-9000, 9000, (200, 3), dtype=np.int32)
    both = run(policy(name), [term], affine([scales], offsets, [(-9000, 9000)], -90, 90))
    for j in range(3):
        single = affine([scales[j]], offsets[j], [(-9000, 9000)], -90, 90)
        assert (run(policy(name), [term[:, j]], single) == both[:, j]).all()


def _programs() -> list:
    accumulator, code = jnp.zeros((2, 3), jnp.int32), jnp.zeros((2, 3), jnp.int8)
    channels = affine([[0.25, -0.5, 2.0**-9]], [0.5, 1.0, -3.0], [(-999, 999)], -8, 7)
    scalar = affine([0.25], 0.0, [(-999, 999)], -8, 7)
    large = affine([4.0], 1e9, [(-(2**28), 2**28)], -8, 7)
    two = affine([0.25, 0.5], 0.0, [(-128, 127)] * 2, -8, 7)
    found = []
    for name, rule in INTEGER.items():
        found += [(name, rule, [accumulator], n) for n in (channels, scalar)]
        if name != "thresholds":
            found.append((f"{name} of two", rule, [code, code], two))
    halves = partial(q31_even, multiply=wide.multiply_by_halves)
    found += [("halves", halves, [accumulator], channels)]
    return [*found, ("large", q31_even, [accumulator], large)]


@pytest.mark.parametrize(("name", "rule", "terms", "numbers"), _programs())
def test_integer_policies_trace_no_float(name: str, rule: Policy, terms: list, numbers) -> None:
    del name
    found = dtypes(lambda *t: rule(t, numbers), *terms)
    assert np.dtype(np.int32) in found
    assert found <= {np.dtype(t) for t in ("int8", "int32", "uint32", "bool")}
    assert dtypes(jax.jit(lambda *t: rule(t, numbers)), *terms) == found


def test_the_float_search_finds_floats() -> None:
    numbers = affine([[0.25, 0.5]], 0.0, [(-9, 9)])
    nested = jax.jit(lambda t: f32_even([t], numbers))
    assert np.dtype(np.float32) in dtypes(nested, jnp.zeros((1, 2), jnp.int32))
    constant = np.ones(3, np.float32)
    assert np.dtype(np.float32) in dtypes(lambda x: jnp.asarray(constant), jnp.int32(1))


@pytest.mark.parametrize("name", POLICIES)
def test_any_rank_and_int8(name: str) -> None:
    numbers = affine([[0.25, 0.5]], 0.0, [(-128, 127)], -8, 7)
    flat = np.arange(-8, 8, dtype=np.int8)
    expected = run(policy(name), [flat.reshape(8, 2)], numbers)
    deep = run(policy(name), [flat.reshape(2, 2, 2, 2)], numbers)
    assert deep.dtype == np.int32
    assert (deep.reshape(8, 2) == expected).all()


def test_only_bytes_may_land_on_a_grid_that_no_shift_reaches() -> None:
    pixels = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    image = affine([256 / 255], 128 * 256 / 255 - 128, [(-128, 127)], -127, 127)
    codes = run(shift_after_image, [pixels], image).ravel()
    real = np.arange(256) / 127.5 - 1
    np.testing.assert_array_equal(codes, np.clip(np.rint(128 * real), -127, 127))
    with pytest.raises(ValueError, match=r"shift: scales\[0\] must be \+-2\*\*-k"):
        run(shift_after_image, [pixels.astype(np.int32)], image)


def test_unknown_policy() -> None:
    with pytest.raises(ValueError, match="one of q31_even, gemmlowp, .*thresholds, got 'q15'"):
        policy("q15")
