"""One definition of codes: what simulation computes, `encode` stores and `grid` declares."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpy.typing import ArrayLike

from qjax.core.grid import Grid
from tests.laws.discovery import (
    CASES,
    Case,
    decode_float32,
    edges,
    every,
    quiet,
    simulation,
)

LARGE = ((3, 3, 128, 128), (8193, 1))
"""147,456 weights, where one wrong code was once seen, and a size that fills no vector register."""

RESTLESS = {
    type(case.quantizer).__name__: [c for c in CASES if type(c.quantizer) is type(case.quantizer)]
    for case in CASES
    if case.quantizer.not_idempotent
}
"""Cases by class, for classes that say why quantizing twice may change a tensor."""


def simulated(case: Case, p: dict[str, Array], x: Array) -> np.ndarray:
    """The compiled simulation of x."""
    return np.asarray(simulation(case.bound)(p, x))


@every()
@pytest.mark.parametrize("seed", [0, 1])
def test_simulation_decodes_what_encode_stores(case: Case, seed: int):
    x = case.sample(seed)
    p = case.numbers(x)
    np.testing.assert_array_equal(simulated(case, p, x), decode_float32(case.bound.encode(p, x)))


@every(families=True)
@pytest.mark.parametrize("edge", edges(jnp.ones((1,))))
def test_simulation_decodes_what_encode_stores_at_the_edges(case: Case, edge: str):
    x = edges(case.sample(0))[edge]
    p = case.numbers(x)
    np.testing.assert_array_equal(simulated(case, p, x), decode_float32(case.bound.encode(p, x)))


def training_step(bound, p, w, x):
    """The simulated weight inside a program that also differentiates and updates it."""

    def loss(w):
        simulated = quiet(bound)(p, w)
        return jnp.mean(jnp.square(x @ simulated.reshape(x.shape[-1], -1))), simulated

    (value, simulated), gradient = jax.value_and_grad(loss, has_aux=True)(w)
    return simulated, w - 0.1 * gradient, value


@every(kind="weight", families=True)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_training_computes_the_codes_that_encode_stores(case: Case, shape: tuple[int, ...]):
    compiled = jax.jit(training_step, static_argnums=0)
    x = jnp.ones((2, int(np.prod(shape[:-1]))))
    differing = 0
    for seed in range(5):
        w = case.sample(seed, shape) * (0.2, 10.0)[seed % 2]
        p = case.numbers(w)
        stored = decode_float32(case.bound.encode(p, w))
        # One step is at least 1/255 of the largest level: this counts codes, not last bits.
        wrong = np.abs(np.asarray(compiled(case.bound, p, w, x)[0]) - stored)
        differing += np.count_nonzero(wrong > 1e-3 * np.max(np.abs(stored)))
    assert differing == 0


@every()
def test_codes_lie_in_the_declared_range(case: Case):
    x = case.sample(3)
    p = case.numbers(x)
    for tensor in (x, edges(x)["outlier"], -x):
        for term in case.bound.encode(p, tensor).terms:
            ints = np.asarray(term.ints, int)
            assert term.low <= ints.min() and ints.max() <= term.high
            assert term.high - term.low < 2 ** (case.bits or 8)
            assert np.all(term.scale.value > 0) and np.all(np.isfinite(term.scale.value))
            assert np.all(2 * term.zero_point.value % 1 == 0)


@every(kind="activation")
def test_grid_is_where_encode_rounds(case: Case):
    sample = case.sample(4)
    p = case.numbers(sample)
    grid = case.bound.grid(p)
    assert grid.high - grid.low < 2 ** (case.bits or 8)
    steps = np.random.default_rng(5).uniform(grid.low - 3, grid.high + 3, 4001)
    boundaries = np.resize(np.arange(grid.low, grid.high) + 0.5, 256)
    values = grid.scale * (np.concatenate([steps, boundaries]) - grid.zero_point)
    x = values.astype(np.float32)
    quotient = x.astype(np.float64) / grid.scale
    expected = np.clip(np.rint(quotient) + grid.zero_point, grid.low, grid.high)
    wrong = codes_on(case, grid, p, x) != expected
    # At a boundary float32 may fall to either side; anywhere else there is one right code.
    assert np.all(np.abs(quotient - np.floor(quotient) - 0.5)[wrong] < 1e-6 * 2**case.bits)
    assert not np.any(wrong[: len(steps)])


def codes_on(case: Case, grid: Grid, p: dict[str, Array], x: ArrayLike) -> np.ndarray:
    """What encode stores, as codes of the grid: stored codes are shifted to fit int8."""
    (term,) = case.bound.encode(p, jnp.asarray(x, jnp.float32)).terms
    assert float(term.scale.value) == grid.scale
    return np.asarray(term.ints, int) + int(grid.zero_point - term.zero_point.value)


def dyadic(case: Case) -> tuple[Grid, dict[str, Array]] | None:
    """Numbers under which the step is a power of two, so that float32 meets ties exactly."""
    p = case.numbers(case.sample(0))
    free = [name for name in p if case.bound.kinds[name] in ("learned", "statistic")]
    high = case.bound.grid(p).high
    for values in itertools.product((0.0, 0.125, 0.125 * high), repeat=len(free)):
        changed = p | {name: jnp.float32(v) for name, v in zip(free, values, strict=True)}
        try:
            grid = case.bound.grid(changed)
        except ValueError:
            continue
        if np.frexp(grid.scale)[0] == 0.5 and grid.high == high:
            return grid, changed
    assert not free, f"{case.name}: no numbers give a step that is a power of two"
    return None


@every(kind="activation", where=lambda case: dyadic(case) is not None)
def test_ties_go_to_the_even_step(case: Case):
    found = dyadic(case)
    assert found is not None
    grid, p = found
    steps = np.resize(np.arange(grid.low, grid.high) + 0.5, 256) - grid.zero_point
    expected = np.clip(np.rint(steps) + grid.zero_point, grid.low, grid.high)
    codes = codes_on(case, grid, p, np.float32(grid.scale * steps))
    np.testing.assert_array_equal(codes, expected)


@every(where=lambda case: not case.quantizer.not_idempotent)
def test_quantizing_twice_changes_nothing(case: Case):
    x = case.sample(6)
    p = case.numbers(x)
    once = simulated(case, p, x)
    twice = simulated(case, p, jnp.asarray(once))
    np.testing.assert_allclose(twice, once, rtol=1e-6)


@pytest.mark.parametrize("kind", sorted(RESTLESS), ids=str)
def test_a_reason_not_to_be_idempotent_is_needed(kind: str):
    moved = 0.0
    for case in RESTLESS[kind]:
        x = case.sample(6)
        p = case.numbers(x)
        once = simulated(case, p, x)
        moved = max(moved, np.max(np.abs(simulated(case, p, jnp.asarray(once)) - once)))
    assert moved > 1e-3


@every()
def test_larger_values_get_no_smaller_level(case: Case):
    x = case.sample(7)
    p = case.numbers(x)
    y = simulated(case, p, x).reshape(-1, x.shape[-1])
    flat = np.asarray(x).reshape(-1, x.shape[-1])
    for channel in range(x.shape[-1]):
        assert np.all(np.diff(y[np.argsort(flat[:, channel]), channel]) >= 0)
    if all(term.scale.value.ndim == 0 for term in case.bound.encode(p, x).terms):
        assert np.all(np.diff(y.ravel()[np.argsort(flat.ravel())]) >= 0)
