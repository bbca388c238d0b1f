"""What flows back: finite everywhere, and something to every learned number."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

from qjax.core.quantizer import Quantizer
from tests.laws.discovery import CASES, Case, edges, every, gradient, quiet

SCALES = (0.1, 1.0, 10.0)
"""Of the sample: a clip far above it is active on a larger one only."""

Named = dict[str, Array]


def has_learned(case: Case) -> bool:
    """Whether the method learns a number."""
    return "learned" in case.quantizer.kinds.values()


def split(case: Case, p: Named) -> tuple[Named, Named]:
    """Learned numbers, and the others."""
    learned = {name: v for name, v in p.items() if case.quantizer.kinds[name] == "learned"}
    return learned, {name: v for name, v in p.items() if name not in learned}


def fixed_numbers(case: Case) -> list[str]:
    """Names of the real numbers that are not learned."""
    _, rest = split(case, case.numbers(case.sample(0)))
    return [name for name, v in rest.items() if jnp.issubdtype(v.dtype, jnp.floating)]


def task(bound: Quantizer, learned: Named, rest: Named, x: Array) -> Array:
    """A loss that no level meets exactly."""
    return jnp.mean(jnp.square(quiet(bound)(learned | rest, x) - 0.9 * x))


@functools.cache
def learned_gradient(bound: Quantizer, penalty: bool) -> Callable[[Named, Named, Array], Named]:
    """The compiled gradient of the loss for the learned numbers, with or without their penalty."""

    def loss(learned: Named, rest: Named, x: Array) -> Array:
        value = task(bound, learned, rest, x)
        return value + bound.penalty(learned | rest) if penalty else value

    return jax.jit(jax.grad(loss))


@every(families=True)
@pytest.mark.parametrize("edge", ["sample", *edges(jnp.ones((1,)))])
def test_gradients_are_finite(case: Case, edge: str):
    sample = case.sample(21)
    x = (edges(sample) | {"sample": sample})[edge]
    usual = sample.reshape(-1)[: x.size].reshape(x.shape)
    for p in (case.numbers(x), case.numbers(usual)):
        assert np.all(np.isfinite(gradient(case.bound)(p, x, jnp.ones_like(x))))
        for slope in learned_gradient(case.bound, True)(*split(case, p), x).values():
            assert np.all(np.isfinite(slope))


@every()
def test_the_tensor_receives_a_gradient(case: Case):
    x = case.sample(22)
    slope = gradient(case.bound)(case.numbers(x), x, jnp.ones_like(x))
    assert np.count_nonzero(slope) > 0.1 * x.size


@every(where=has_learned)
def test_every_learned_number_receives_a_gradient_from_the_task(case: Case):
    learned, rest = split(case, case.numbers(case.sample(23)))
    samples = [scale * case.sample(24) for scale in SCALES]
    slopes = [learned_gradient(case.bound, False)(learned, rest, x) for x in samples]
    for name in learned:
        assert any(np.all(slope[name]) for slope in slopes), f"{name} never learns"


@every(where=has_learned)
def test_every_learned_number_moves_in_two_steps(case: Case):
    x = case.sample(25)
    start, rest = split(case, case.numbers(x))
    optimizer = optax.sgd(0.1)
    learned, state = start, optimizer.init(start)
    for _ in range(2):
        slopes = learned_gradient(case.bound, True)(learned, rest, x)
        updates, state = optimizer.update(slopes, state)
        learned = {name: v + updates[name] for name, v in learned.items()}  # pyright: ignore
    for name, value in start.items():
        assert np.all(np.asarray(learned[name]) != np.asarray(value)), f"{name} stands still"


@every(where=lambda case: "statistic" in case.quantizer.kinds.values())
def test_every_statistic_follows_the_tensor(case: Case):
    p = case.numbers(case.sample(26))
    seen = case.bound.observe(p, 3.0 * case.sample(27) + 1.0)
    statistics = {name for name, kind in case.quantizer.kinds.items() if kind == "statistic"}
    assert set(seen) == statistics
    for name in statistics:
        assert np.all(np.asarray(seen[name]) != np.asarray(p[name]))


@every(families=True, where=lambda case: bool(fixed_numbers(case)))
def test_statistics_and_traced_numbers_receive_no_gradient(case: Case):
    x = case.sample(28)
    p = case.numbers(x)
    floats = {name: p[name] for name in fixed_numbers(case)}
    slopes = jax.jit(jax.grad(lambda q: jnp.sum(quiet(case.bound)(p | q, x) * x)))(floats)
    for name, value in slopes.items():
        assert not np.any(value), f"{name} is no learned number"


def test_the_laws_cover_methods_that_learn():
    assert any(has_learned(case) for case in CASES)
