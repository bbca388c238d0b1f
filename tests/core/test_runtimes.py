"""The rules of integer runtimes: their golden operators, and errors for what they cannot hold."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.fixedpoint import quantize_multiplier
from qjax.core.requantize import Policy, f32_even, f32_zp_even, gemmlowp, q31, q31_even, shift
from qjax.core.shifts import shift_floor, shift_half_away, shift_half_up
from tests.core.oracle import affine, golden, run

ACCUMULATORS = [case for case in golden("ops") if "accumulator" in case]
ADDS = [case for case in golden("ops") if case["op"] == "add"]


def describe(case: dict) -> str:
    return f"{case['op']}: {case['desc']}"


def clamp_of(case: dict) -> tuple[int, int]:
    """The code range of a golden operator; without a fused activation, its dtype's."""
    return tuple(case.get("clamp", {"int8": (-128, 127), "uint8": (0, 255)}[case["dtype"]]))


@pytest.mark.parametrize("case", ACCUMULATORS, ids=describe)
def test_golden_operators_from_their_accumulators(case: dict) -> None:
    term = np.array(case["accumulator"], np.int32)
    reach = int(np.abs(term).max())
    scale = np.ldexp(np.array(case["q31"], float), np.array(case["shift"]) - 31)
    scale = scale if scale.size > 1 else scale.reshape(())
    zero = case["y_zero_point"]
    low, high = clamp_of(case)
    numbers = affine([scale], zero, [(-reach, reach)], low, high, zero_point=zero)
    assert run(gemmlowp, [term], numbers).tolist() == case["expected"]
    assert run(q31, [term], numbers).tolist() == case["expected_single_rounding"]
    if "expected_float_requant_half_even" in case:
        floats = case["expected_float_requant_half_even"]
        assert run(f32_even, [term], numbers).tolist() == floats


@pytest.mark.parametrize("case", ACCUMULATORS, ids=describe)
def test_a_bias_in_the_offset_is_the_int32_bias_of_the_runtime(case: dict) -> None:
    total = np.array(case["accumulator"], np.int32)
    channels = total.shape[-1]
    bias = np.arange(-3, channels - 3) * 17
    scale = np.ldexp(np.array(case["q31"], float), np.array(case["shift"]) - 31)
    scale = np.broadcast_to(scale, (channels,))
    zero = case["y_zero_point"]
    term = (total - bias).astype(np.int32)
    bounds = [(int(term.min()), int(term.max()))]
    numbers = affine([scale], bias * scale + zero, bounds, *clamp_of(case), zero_point=zero)
    assert run(gemmlowp, [term], numbers).tolist() == case["expected"]
    assert run(q31, [term], numbers).tolist() == case["expected_single_rounding"]
    # Negative scales negate the accumulator, as folding the sign into the weights would.
    flipped = affine(
        [-scale],
        bias * scale + zero,
        [(-bounds[0][1], -bounds[0][0])],
        *clamp_of(case),
        zero_point=zero,
    )
    assert run(gemmlowp, [-term], flipped).tolist() == case["expected"]
    assert run(q31, [-term], flipped).tolist() == case["expected_single_rounding"]


@pytest.mark.parametrize("case", ADDS, ids=describe)
def test_golden_add(case: dict) -> None:
    scales = [case["x1_scale"] / case["y_scale"], case["x2_scale"] / case["y_scale"]]
    zeros = (case["x1_zero_point"], case["x2_zero_point"])
    zero = case["y_zero_point"]
    offset = zero - scales[0] * zeros[0] - scales[1] * zeros[1]
    limits = {"int8": (-128, 127), "uint8": (0, 255)}[case["dtype"]]
    terms = [np.array(case["x1"], np.int32), np.array(case["x2"], np.int32)]
    numbers = affine(scales, offset, [limits] * 2, *clamp_of(case), zero_point=zero, zeros=zeros)
    assert run(gemmlowp, terms, numbers).tolist() == case["expected"]
    # Subtraction negates the second operand.
    minus = affine(
        [scales[0], -scales[1]],
        zero - scales[0] * zeros[0] - scales[1] * zeros[1],
        [limits, (-limits[1], -limits[0])],
        *clamp_of(case),
        zero_point=zero,
        zeros=(zeros[0], -zeros[1]),
    )
    assert run(gemmlowp, [terms[0], -terms[1]], minus).tolist() == case["expected"]
    # One rounding of the exact sum differs by a step at most.
    assert np.abs(run(q31, terms, numbers) - np.array(case["expected"])).max() <= 1
    assert np.abs(run(q31_even, terms, numbers) - np.array(case["expected"])).max() <= 1


def added_twice_rounded(a: int, b: int, scales: list[float], left: int) -> int:
    """TFLite's ADD of centred codes on the output grid, over Python integers."""

    def multiply(x: int, multiplier: float) -> int:
        q31, exponent = (int(v) for v in quantize_multiplier(multiplier))
        high = ((x << max(exponent, 0)) * q31 + 2**30) >> 31
        away = (abs(high) + (1 << max(-exponent, 0) >> 1)) >> max(-exponent, 0)
        return away if high >= 0 else -away

    twice = 2 * max(scales)
    total = sum(multiply(x << left, s / twice) for x, s in zip((a, b), scales, strict=True))
    return multiply(total, twice / 2**left)


@pytest.mark.parametrize(("high", "left"), [(127, 20), (32767, 15)])
def test_add_shifts_left_by_20_and_by_15_for_int16(high: int, left: int) -> None:
    rng = np.random.default_rng(8)
    # The first operand makes ties, and the second breaks them where its bits survive the shift.
    scales, low = [0.5, 2e-7], -high - 1
    terms = list(rng.integers(-128, 128, (2, 2000), dtype=np.int32))
    numbers = affine(scales, 0.0, [(low, high)] * 2, low, high)
    rows = np.stack(terms, axis=1).tolist()
    expected = {
        n: np.array([added_twice_rounded(a, b, scales, n) for a, b in rows]) for n in (15, 20)
    }
    assert (run(gemmlowp, terms, numbers) == np.clip(expected[left], low, high)).all()
    assert (expected[15] != expected[20]).any()


def test_bias_rounds_half_away_from_zero() -> None:
    numbers = affine([[1.0, 1.0, 1.0]], [0.5, -0.5, 2.5], [(0, 0)])
    for rule in (gemmlowp, q31, f32_even, f32_zp_even):
        assert run(rule, [np.zeros((1, 3), np.int32)], numbers).tolist() == [[1, -1, 3]]


def test_shift_keeps_the_fraction_of_a_bias() -> None:
    rng = np.random.default_rng(4)
    scale = np.array([2.0**-6, -(2.0**-3), 1.0, 2.0**-9])
    term = rng.integers(-(2**12), 2**12, (5000, 4), dtype=np.int32)
    numbers = affine([scale], rng.uniform(-3, 3, 4), [(-(2**12), 2**12)], -100, 100)
    codes = run(shift, [term], numbers)
    assert (codes == run(q31_even, [term], numbers)).all()
    whole = replace(numbers, offset=np.round(numbers.offset / scale) * scale)
    assert (codes != run(shift, [term], whole)).any()
    wide = replace(numbers, bounds=((-(2**30), 2**30),))
    kept = run(shift, [term], wide)
    assert (np.abs(kept - codes) <= 1).all(), "without bits to spare the bias rounds as elsewhere"


def test_golden_shift_with_a_bias() -> None:
    case = golden("pot_integer_dense")
    step = 2.0 ** -case["shift_cut=pos_x+pos_w-pos_out"]
    term = np.array(case["acc_int32"], np.int32)
    numbers = affine([step], np.array(case["bias_q"]) * step, [(-20000, 20000)])
    up, away = (partial(shift, rounding=rule) for rule in (shift_half_up, shift_half_away))
    assert run(up, [term], numbers).tolist() == case["y_half_up"]
    assert run(away, [term], numbers).tolist() == case["y_half_away"]


def test_shift_equals_q31_even_on_powers_of_two() -> None:
    rng = np.random.default_rng(0)
    scales = [np.array([2.0**-5, -(2.0**-3), 0.0, 4.0]), np.array([2.0**-2, 2.0**-6, 0.5, -1.0])]
    terms = [rng.integers(-3000, 3000, (500, 4), dtype=np.int32) for _ in scales]
    numbers = affine(scales, [0.5, -1.0, 3.0, 0.0], [(-3000, 3000)] * 2, -100, 100)
    codes = run(shift, terms, numbers)
    assert (codes == run(q31_even, terms, numbers)).all()
    assert len(np.unique(codes)) > 100
    floored = run(partial(shift, rounding=shift_floor), terms, numbers)
    assert (floored <= codes).all() and (floored < codes).any()


def test_f32_policies_round_float32_products() -> None:
    rng = np.random.default_rng(1)
    scale = rng.uniform(0.5, 1, 8) * 2.0**-16
    term = rng.integers(-(2**23), 2**23, (4000, 8), dtype=np.int32)
    numbers = affine([scale], 5.0, [(-(2**23), 2**23)], zero_point=5)
    product = term.astype(np.float32) * scale.astype(np.float32)
    after = np.clip(np.rint(product) + 5, -128, 127)
    before = np.clip(np.rint(product + np.float32(5)), -128, 127)
    assert (run(f32_even, [term], numbers) == after).all()
    assert (run(f32_zp_even, [term], numbers) == before).all()
    second = affine([scale, 2 * scale], 1.5, [(-(2**23), 2**23)] * 2)
    double = term[::-1].astype(np.float32) * (2 * scale).astype(np.float32)
    total = np.clip(np.rint(product + double + np.float32(1.5)), -128, 127)
    assert (run(f32_even, [term, term[::-1]], second) == total).all()


def test_f32_zp_even_is_not_fused_into_one_rounding() -> None:
    # 21 * float32(1/6) is 3.5 in float32, 3.5000001 exactly; less 3 it is a tie only if rounded.
    scale = np.float32(1 / 6)
    assert np.float32(21) * scale == 3.5 != 21 * float(scale)
    term = np.array([21], np.int32)
    numbers = affine([float(scale)], -3.0, [(-99, 99)], zero_point=-3)
    assert run(f32_zp_even, [term], numbers).tolist() == [0]


@pytest.mark.parametrize("rule", [gemmlowp, q31, f32_even, f32_zp_even, shift])
def test_a_channel_without_a_scale_is_a_constant(rule: Policy) -> None:
    rng = np.random.default_rng(6)
    term = rng.integers(-(2**12), 2**12, (500, 4), dtype=np.int32)
    # A gamma of nothing, one that decayed, one that still speaks, and a bias far beyond all codes.
    scale, offset = np.array([0.0, -(2.0**-40), 2.0**-6, 2.0**-6]), np.array([3.3, 3.3, 3.0, 1e12])
    numbers = affine([scale], offset + 5, [(-(2**12), 2**12)], zero_point=5)
    codes = run(rule, [term], numbers)
    assert (codes[:, :2] == 8).all() and (codes[:, 3] == 127).all()
    assert len(np.unique(codes[:, 2])) > 50


WIDE = [(-(2**30), 2**30)]
ERRORS = {
    "bias beyond int32": (
        gemmlowp,
        affine([1e-8], 100.0, WIDE),
        r"gemmlowp.* must stay inside int32.*use q31_even",
    ),
    "float bias beyond int32": (
        f32_even,
        affine([1e-8], 100.0, WIDE),
        r"f32_even: the accumulator with its bias",
    ),
    "left shift wraps": (
        gemmlowp,
        affine([100.0], 0.0, WIDE),
        r"times a scale of 100 leave int32.*use q31_even",
    ),
    "no power of two": (
        shift,
        affine([[0.5, 0.3]], 0.0, WIDE),
        r"scales\[0\] must be \+-2\*\*-k.*got 0.3; give",
    ),
    "power of two too small": (shift, affine([2.0**-32], 0.0, WIDE), r"k <= 31, got 2.328"),
    "left shift beyond int32": (
        shift,
        affine([16.0], 0.0, WIDE),
        r"shift: the accumulator .* can reach -1.71799e\+10",
    ),
    "range of float": (
        f32_zp_even,
        affine([1.0], 0.0, WIDE, 0, 2**25),
        r"f32_zp_even: codes must be exact",
    ),
}


@pytest.mark.parametrize(("rule", "numbers", "message"), ERRORS.values(), ids=ERRORS)
def test_what_a_runtime_cannot_hold_is_an_error(rule: Policy, numbers, message: str) -> None:
    terms = [jnp.zeros((1, numbers.channels or 1), jnp.int32)]
    with pytest.raises(ValueError, match=message):
        rule(terms, numbers)


@pytest.mark.parametrize("rule", [gemmlowp, q31])
def test_add_of_tflite_takes_two_centred_codes(rule: Policy) -> None:
    code, accumulator = jnp.zeros((1,), jnp.int8), jnp.zeros((1,), jnp.int32)
    with pytest.raises(ValueError, match=r"adds two tensors at a time, got 3 terms"):
        rule([code] * 3, affine([0.5] * 3, 0.0, [(-9, 9)] * 3))
    with pytest.raises(ValueError, match=r"has no bias, but Affine.offset holds one of 1.5"):
        rule([code] * 2, affine([0.5] * 2, 1.5, [(-9, 9)] * 2))
    with pytest.raises(ValueError, match=r"ADD of 8-bit codes.* must stay inside int32"):
        rule([accumulator] * 2, affine([0.5] * 2, 0.0, [(-(2**20), 2**20)] * 2))
