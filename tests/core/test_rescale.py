"""`q31_even` is exact: against rationals, in every corner of its fixed-point grid."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from qjax.core import wide
from qjax.core.requantize import Affine
from qjax.core.rescale import Rescale, plan_rescale, q31_even
from tests.core.oracle import affine, channel, code, distance, exact_values, run

FULL = (-(2**31), 2**31 - 1)


def planned_values(terms: list[np.ndarray], plan: Rescale) -> list[list[Fraction]]:
    """V / 2**F of (n, c) terms; fails where V would not fit its 64 bits."""
    values = []
    for i in range(terms[0].shape[0]):
        row = []
        for j in range(terms[0].shape[1]):
            total = channel(plan.offset, j)
            parts = zip(terms, plan.left_shifts, plan.multipliers, strict=True)
            for term, left, multiplier in parts:
                shifted = int(term[i, j]) * 2 ** int(channel(left, j))
                assert FULL[0] <= shifted <= FULL[1]
                total += shifted * channel(multiplier, j)
            bits = int(channel(plan.fraction_bits, j))
            assert abs(total) + 2 ** (bits - 1) < 2**63
            row.append(total / 2**bits)
        values.append(row)
    return values


def check(terms: list[np.ndarray], numbers: Affine) -> np.ndarray:
    """Codes equal the rounded plan, by both products, and ties that occur were foreseen."""
    plan = plan_rescale(numbers)
    values = planned_values(terms, plan)
    codes = run(q31_even, terms, numbers)
    assert codes.dtype == np.int32
    assert codes.tolist() == [[code(value, numbers) for value in row] for row in values]
    if any(value.denominator == 2 for row in values for value in row):
        assert plan.has_ties
    halves = run(lambda t, a: q31_even(t, a, wide.multiply_by_halves), terms, numbers)
    assert (halves == codes).all()
    return codes


def around(numbers: Affine, rng: np.random.Generator, count: int = 24) -> list[np.ndarray]:
    """Terms at their bounds, at zero, and where single terms cross the output range."""
    channels = numbers.channels or 1
    terms = []
    for scale, (low, high) in zip(numbers.scales, numbers.bounds, strict=True):
        largest = max(float(np.max(np.abs(scale))), 1e-300)
        reach = int(min(2 * (numbers.high - numbers.low + 1) / largest, 2**31))
        draws = rng.integers(-reach - 1, reach + 1, (count, channels))
        centre = np.clip(-float(np.max(numbers.offset)) / largest, low, high).astype(np.int64)
        draws[count // 2 :] += centre
        corners = np.array([low, high, 0, -1, 1])[:, None].repeat(channels, axis=1)
        terms.append(np.clip(np.concatenate([corners, draws]), low, high).astype(np.int32))
    return terms


CORNERS = {
    "tie at every odd accumulator": affine((0.5,), 0.0, (FULL,), -128, 127),
    "ties of a small power of two": affine((2.0**-5,), 0.0, ((-5000, 5000),), -128, 127),
    "ties from the offset": affine(([1.0, -2.0],), [0.5, -1.5], ((-9, 9),), -8, 7),
    "odd zero point": affine((0.5,), 3.0, ((-99, 99),), -16, 15, zero_point=3),
    "scale one over all of int32": affine((1.0,), 0.0, (FULL,), -(2**29), 2**29),
    "least power of two": affine((2.0**-31,), 0.0, (FULL,), -8, 7),
    "large scale": affine((1e5,), -3.7, (FULL,), -128, 127),
    "very large scale on few values": affine(([1e12, -1e-3],), 0.25, ((-3, 4),), -128, 127),
    "mantissa that rounds up": affine((1 - 2.0**-40,), 0.0, ((-200, 200),), -128, 127),
    "negative and zero": affine(([-0.3, 0.0, 0.3],), [0.0, 2.5, 1.0], ((-99, 99),), 0, 15),
    "tiny scale": affine((1e-12,), 4.999, (FULL,), -8, 7),
    "denormal scale": affine((5e-324,), 0.5, (FULL,), -8, 7),
    "gamma of 1e-8 beside 1": affine(([3e-11, 3e-3],), [7.25, -7.25], ((-9999, 9999),), -128, 127),
    "huge offsets": affine(([0.01, 0.01, -0.01],), [1e300, -1e12, 1e9], ((-99, 99),), -8, 7),
    "far offset within reach": affine((1e-3,), -1e6, (FULL,), -128, 127),
    "range beside zero": affine((0.37,), 90.0, ((-40, 40),), 77, 105),
    "one code": affine((0.5,), 0.0, ((-9, 9),), 3, 3),
    "term that is always zero": affine((1e40, 0.7), 0.1, ((0, 0), (-9, 9)), -8, 7),
    "two of very different scales": affine((1e-9, 0.2), 0.5, (FULL, (-128, 127)), -8, 7),
    "two that fill all 64 bits": affine((0.9, -0.9), 0.0, (FULL, FULL), -128, 127),
    "two full and large": affine(([3e4, 1.0], 2.0**-9), 1e4, (FULL, FULL), -128, 127),
    "three": affine((0.1, -0.25, [2.0, 0.5]), [0.0, -0.5], ((-8, 7),) * 3, -128, 127),
}


@pytest.mark.parametrize("numbers", CORNERS.values(), ids=CORNERS)
def test_corner(numbers: Affine) -> None:
    check(around(numbers, np.random.default_rng(0)), numbers)


@st.composite
def numbers_of_any_kind(draw: st.DrawFn) -> dict:
    """Any scales, signs, offsets and bounds of one to three terms, as arguments of `affine`."""
    channels = draw(st.sampled_from([0, 1, 3]))

    def number(strategy: st.SearchStrategy[float], scalar: bool):
        if scalar or not channels:
            return draw(strategy)
        return draw(st.lists(strategy, min_size=channels, max_size=channels))

    dyadic = st.builds(lambda sign, k: sign * 2.0**k, st.sampled_from([-1, 1]), st.integers(-20, 3))
    scale = st.one_of(dyadic, st.floats(-4, 4), st.floats(-1e-6, 1e-6), st.floats(-3e4, 3e4))
    offset = st.one_of(
        st.integers(-40, 40).map(lambda n: n / 4), st.floats(-300, 300), st.floats(-1e15, 1e15)
    )
    count = draw(st.integers(1, 3))
    bounds = [draw(st.integers(1, 32)) for _ in range(count)]
    high = draw(st.sampled_from([1, 7, 15, 127, 255, 2**15 - 1]))
    return {
        "scales": [number(scale, draw(st.booleans())) for _ in range(count)],
        "offset": number(offset, draw(st.booleans())),
        "bounds": [(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in bounds],
        "low": draw(st.sampled_from([0, -high, -high - 1])),
        "high": high,
        "zero_point": draw(st.sampled_from([0, 0, 1, 5])),
    }


@given(drawn=numbers_of_any_kind(), seed=st.integers(0, 2**16))
def test_any_requantization(drawn: dict, seed: int) -> None:
    numbers = affine(**drawn)
    check(around(numbers, np.random.default_rng(seed), count=8), numbers)


def test_ties_go_to_even_distance_from_the_zero_point() -> None:
    halves = np.arange(-9, 10, dtype=np.int32)[:, None]
    even = run(q31_even, [halves], affine((0.5,), 0.0, ((-9, 9),), -8, 7))
    assert even.ravel().tolist() == np.rint(np.arange(-9, 10) / 2).tolist()
    odd = run(q31_even, [halves], affine((0.5,), 3.0, ((-9, 9),), -8, 9, zero_point=3))
    assert odd.ravel().tolist() == (np.rint(np.arange(-9, 10) / 2) + 3).tolist()


@pytest.mark.parametrize("case", ["one scale", "per channel", "two terms"])
def test_true_scales_differ_only_within_2_to_the_minus_20_of_a_boundary(case: str) -> None:
    # Accumulators beside every boundary, with scales so small that they come very near it.
    rng = np.random.default_rng(3)
    boundaries = np.arange(-127, 128)[:, None] - 0.5
    bounds = (-(2**24), 2**24) if case == "two terms" else FULL
    size = 2.0 ** (10 - bounds[1].bit_length())
    first, second = rng.uniform(0.5, 1, (2, 8)) * size * rng.choice([-1, 1], (2, 8))
    offset = rng.normal(size=8) * 20
    others = rng.integers(-1000, 1000, (255, 8)) * (case == "two terms")
    if case == "one scale":
        first = first[:1]
    nearest = np.rint((boundaries - offset - second * others) / first)
    terms = [np.clip(nearest + rng.integers(-1, 2, (255, 8)), *bounds).astype(np.int32)]
    numbers = affine([first if case != "one scale" else first[0]], offset, [bounds])
    if case == "two terms":
        terms.append(others.astype(np.int32))
        numbers = affine([first, second], offset, [bounds, bounds])
    codes = run(q31_even, terms, numbers).ravel().tolist()
    values = [value for row in exact_values(terms, numbers) for value in row]
    pairs = list(zip(values, codes, strict=True))
    differing = [distance(value) for value, c in pairs if code(value, numbers) != c]
    assert all(d < Fraction(1, 2**20) for d in differing)
    # The law would hold of any arithmetic if no value came so near.
    assert sum(distance(value) < Fraction(1, 2**16) for value in values) > 100


@given(drawn=numbers_of_any_kind())
def test_multipliers_keep_31_bits_or_the_grid_has_no_room(drawn: dict) -> None:
    numbers = affine(**drawn)
    plan = plan_rescale(numbers)
    half = Fraction(1, 2)
    for index, scale in enumerate(numbers.scales):
        if not numbers.reach[index]:
            continue
        for j in range(numbers.channels or 1):
            bits, left = (int(channel(v, j)) for v in (plan.fraction_bits, plan.left_shifts[index]))
            multiplier = channel(plan.multipliers[index], j)
            true = channel(scale, j)
            error = abs(multiplier / Fraction(2) ** (bits - left) - true)
            assert error <= max(abs(true) / 2**31, half / Fraction(2) ** bits)


def test_terms_of_one_grid_keep_31_significant_bits() -> None:
    # A residual add: 8-bit codes and an accumulator, scales three bits apart.
    numbers = affine((0.71, [0.09, 0.13]), 0.0, ((-128, 127), (-2000, 2000)), -128, 127)
    plan = plan_rescale(numbers)
    assert all((np.abs(m) >= 2**30).all() for m in plan.multipliers)
    assert all((left > 0).all() for left in plan.left_shifts)


def test_scalar_scales_share_one_shift() -> None:
    plan = plan_rescale(affine((0.3,), [0.0, 1e5], ((-(2**20), 2**20),), -128, 127))
    assert plan.fraction_bits.shape == plan.multipliers[0].shape == ()
    assert plan.offset.shape == (2,)


def test_ties_are_ruled_out_by_proof_only() -> None:
    bounds = ((-1000, 1000),)
    assert not plan_rescale(affine((0.3,), 0.1, bounds, -8, 7)).has_ties
    assert plan_rescale(affine((0.25,), 0.0, bounds, -8, 7)).has_ties
    # 3/8 * t is a tie at t = 4 and t = -4, and nowhere between.
    assert plan_rescale(affine((0.375,), 0.0, ((-3, 4),), -8, 7)).has_ties
    assert plan_rescale(affine((0.375,), 0.0, ((-4, 3),), -8, 7)).has_ties
    assert not plan_rescale(affine((0.375,), 0.0, ((-3, 3),), -8, 7)).has_ties
    assert plan_rescale(affine((0.0,), 0.5, bounds, -8, 7)).has_ties
    assert not plan_rescale(affine((0.0,), 0.25, bounds, -8, 7)).has_ties
