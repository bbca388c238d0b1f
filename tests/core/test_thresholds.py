"""Counting thresholds: equal to the exact value rounded, for every accumulator."""

from fractions import Fraction

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from qjax.core.rescale import q31_even
from qjax.core.thresholds import (
    count_thresholds,
    entry_points,
    search_thresholds,
    thresholds,
)
from tests.core.oracle import affine, code, distance, exact_values, run

LEAST, MOST = -(2**31), 2**31 - 1


@pytest.mark.parametrize(
    "numbers",
    [
        affine([0.5], 0.0, [(-40, 40)], -8, 7),
        affine([0.3], 1.7, [(-40, 40)], 0, 15),
        affine([[0.3, -0.3, -0.25, 0.0, 1e-9, -7.5]], 0.5, [(-40, 40)], -3, 4),
        affine([[0.5, -0.5]], [3.0, 3.0], [(-40, 40)], -8, 9, zero_point=3),
        affine([[0.0, 0.0, 0.0]], [1e300, -1e300, 1.5], [(-40, 40)], 0, 3),
        affine([0.5], 0.0, [(-40, 40)], 3, 3),
        affine([5e-324], 0.5, [(-40, 40)], -1, 1),
        affine([2.9], -100.0, [(-40, 40)], -128, 127),
    ],
    ids=lambda numbers: f"{numbers.scales[0]}{numbers.offset}",
)
def test_every_accumulator(numbers) -> None:
    channels = numbers.channels or 1
    term = np.arange(-40, 41, dtype=np.int32)[:, None].repeat(channels, axis=1)
    expected = [[code(v, numbers) for v in row] for row in exact_values([term], numbers)]
    assert run(thresholds, [term], numbers).tolist() == expected
    assert run(thresholds, [term.astype(np.int8)], numbers).tolist() == expected


@given(
    scale=st.one_of(st.floats(-1e3, 1e3), st.floats(-1e-7, 1e-7)),
    offset=st.floats(-1e6, 1e6),
    accumulators=st.lists(st.integers(LEAST, MOST), min_size=6, max_size=6),
)
def test_any_accumulator_and_the_ends_of_int32(
    scale: float, offset: float, accumulators: list[int]
) -> None:
    numbers = affine([scale], offset, [(LEAST, MOST)], -4, 3)
    term = np.array([*accumulators, LEAST, LEAST + 1, MOST - 1, MOST], np.int32)[:, None]
    expected = [code(row[0], numbers) for row in exact_values([term], numbers)]
    assert run(thresholds, [term], numbers).ravel().tolist() == expected


def test_agrees_with_q31_even_but_for_rounded_multipliers() -> None:
    rng = np.random.default_rng(5)
    scales = rng.uniform(0.5, 1, 8) * 2.0**-10 * rng.choice([-1, 1], 8)
    numbers = affine([scales], rng.normal(size=8), [(-(2**17), 2**17)], -8, 7)
    term = rng.integers(-(2**14), 2**14, (2000, 8), dtype=np.int32)
    exact, fixed = run(thresholds, [term], numbers), run(q31_even, [term], numbers)
    values = exact_values([term], numbers)
    for i, j in np.argwhere(exact != fixed):
        assert distance(values[i][j]) < Fraction(1, 2**20)
    assert len(np.unique(exact)) == 16


def test_sides_of_a_non_uniform_quantizer() -> None:
    # HWGQ-like: strict at its first boundary, closed at the others.
    least, reverse = entry_points(0.5, 0.0, [0.0, 1.5, 2.25], [True, False, False])
    x = jnp.arange(-2, 8)
    assert count_thresholds(x, least, reverse=reverse).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    # With a falling slope the same boundaries are met from the other end.
    least, reverse = entry_points(-0.5, 0.0, [0.0, 1.5, 2.25], [True, False, False])
    assert count_thresholds(-x, least, reverse=reverse).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]


def test_strictness_of_integer_thresholds() -> None:
    x = jnp.asarray([LEAST, -1, 0, 1, MOST], jnp.int32)
    assert count_thresholds(x, [0]).tolist() == [0, 0, 1, 1, 1]
    assert count_thresholds(x, [0], strict=True).tolist() == [0, 0, 0, 1, 1]
    assert count_thresholds(x, [LEAST, MOST]).tolist() == [1, 1, 1, 1, 2]
    assert count_thresholds(x, [LEAST, MOST], strict=True).tolist() == [0, 1, 1, 1, 1]
    assert count_thresholds(x, [LEAST - 5, MOST + 5]).tolist() == [1] * 5
    assert count_thresholds(x, [0, 0], strict=[False, True]).tolist() == [0, 0, 1, 2, 2]


def test_thresholds_per_channel() -> None:
    x = jnp.asarray([[0, 0], [5, 5]])
    table = np.array([[0, 1], [5, 6]])
    assert count_thresholds(x, table).tolist() == [[1, 0], [2, 1]]


@pytest.mark.parametrize("count", [31, 32, 33, 100])
def test_many_thresholds_are_counted_in_parts(count: int) -> None:
    rng = np.random.default_rng(count)
    table, x = rng.integers(-99, 99, (count, 2)), rng.integers(-110, 110, (50, 2))
    expected = (x[None] >= table[:, None]).sum(0)
    assert (np.asarray(count_thresholds(jnp.asarray(x, jnp.int32), table)) == expected).all()


def test_one_term_only() -> None:
    numbers = affine([0.5, 0.5], 0.0, [(-9, 9)] * 2)
    with pytest.raises(ValueError, match="one term can be compared with thresholds, got 2"):
        thresholds([jnp.asarray([1]), jnp.asarray([1])], numbers)


@pytest.mark.parametrize("table", [3, [0.5, 1.5], [[[1]]]])
def test_thresholds_must_be_rows_of_integers(table) -> None:
    with pytest.raises(ValueError, match=r"thresholds must be integers of shape \(k,\)"):
        count_thresholds(jnp.asarray([1]), table)


@settings(max_examples=8)
@given(
    st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=40),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20),
)
def test_a_search_finds_what_comparing_with_each_counts(least: list[int], values: list[int]):
    table = np.sort(np.array(least, np.int64))
    both = np.stack([table, np.sort(table // 2)], axis=1)
    pairs = jnp.asarray(np.array(values, np.int32)[:, None].repeat(2, axis=1))
    for rows in (table, both):
        found = search_thresholds(pairs, rows)
        np.testing.assert_array_equal(found, count_thresholds(pairs, rows))


def test_a_search_needs_thresholds_in_order():
    with pytest.raises(ValueError, match="must not decrease; sort them"):
        search_thresholds(jnp.array([1]), [2, 1])
