"""A quantizer is one function, however it is traced: eager, compiled, mapped, at any width."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from tests.laws.discovery import (
    CASES,
    SHAPE,
    Case,
    decode_float32,
    every,
    gradient,
    quiet,
    simulation,
    widths,
)


def direction(x: Array) -> Array:
    """An upstream gradient of both signs."""
    return jnp.asarray(np.random.default_rng(9).standard_normal(x.shape), jnp.float32)


@every()
def test_eager_and_compiled_agree(case: Case):
    x = case.sample(11)
    p = case.numbers(x)
    compiled = simulation(case.bound)(p, x)
    last_bits = 2e-6 * float(jnp.max(jnp.abs(x)))
    for eager in (quiet(case.bound), quiet(case.quantizer)):
        np.testing.assert_allclose(eager(p, x), compiled, rtol=2e-6, atol=last_bits)


@every(families=True)
def test_eager_and_compiled_gradients_agree(case: Case):
    x = case.sample(12)
    p = case.numbers(x)
    with jax.disable_jit():
        eager = jax.grad(lambda x: jnp.sum(quiet(case.bound)(p, x) * direction(x)))(x)
    np.testing.assert_allclose(
        eager, gradient(case.bound)(p, x, direction(x)), rtol=1e-5, atol=1e-6
    )


@every(families=True)
def test_mapped_over_tensors_equals_one_by_one(case: Case):
    stack = jnp.stack([case.sample(seed) for seed in range(3)])
    p = case.numbers(stack[0])
    mapped = jax.jit(jax.vmap(quiet(case.bound), in_axes=(None, 0)))(p, stack)
    slopes = jax.jit(jax.vmap(jax.grad(lambda x: jnp.sum(quiet(case.bound)(p, x) ** 2))))(stack)
    for x, y, slope in zip(stack, mapped, slopes, strict=True):
        single = simulation(case.bound)(p, x)
        np.testing.assert_allclose(y, single, rtol=2e-6)
        expected = gradient(case.bound)(p, x, 2 * single)
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


@every(families=True)
def test_mapped_over_numbers_equals_one_by_one(case: Case):
    x = case.sample(13)
    members = [member.numbers(x) for member in widths(case)]
    stacked = jax.tree.map(lambda *values: jnp.stack(values), *members)
    mapped = jax.jit(jax.vmap(quiet(case.bound), in_axes=(0, None)))(stacked, x)
    for p, y in zip(members, mapped, strict=True):
        np.testing.assert_allclose(y, simulation(case.bound)(p, x), rtol=2e-6)


@every(families=True)
def test_one_compilation_serves_all_widths(case: Case):
    traces = []

    @jax.jit
    def run(p: dict[str, Array], x: Array) -> Array:
        traces.append(p)
        return jax.grad(lambda x: jnp.sum(quiet(case.bound)(p, x)))(x)

    for member in widths(case):
        x = member.sample(14)
        run(member.numbers(x), x)
    assert len(traces) == 1


def test_widths_that_are_traced_share_a_family():
    for case in CASES:
        if case.bits and case.quantizer.kinds.get("bits") == "traced":
            assert getattr(case.bound, "bits", 0) is None
            assert len(widths(case)) > 1, f"{case.name} shares its compilation with no other width"


@every(families=True)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (3, 3, 2, 5)])
def test_shape_and_dtype_are_kept(case: Case, shape: tuple[int, ...]):
    x = case.sample(15, shape)
    p = case.numbers(x)
    out = jax.eval_shape(case.bound, p, x)
    assert (out.shape, out.dtype) == (shape, jnp.float32)
    for term in jax.eval_shape(case.bound.codes, p, x):
        assert (term.codes.shape, term.codes.dtype) == (shape, jnp.float32)
    slope = jax.eval_shape(jax.grad(lambda x: jnp.sum(quiet(case.bound)(p, x))), x)
    assert (slope.shape, slope.dtype) == (shape, jnp.float32)


def of_channel(value: Array, c: int) -> Array:
    """One channel's part of a number: of a scale per channel, or a mask of the tensor's shape."""
    if value.shape == SHAPE:
        return value[..., c : c + 1]
    return value[c] if value.shape == SHAPE[-1:] else value


@every(where=lambda case: hasattr(case.quantizer, "per_channel"))
def test_per_channel_is_per_tensor_channel_by_channel(case: Case):
    channels = dataclasses.replace(case.quantizer, per_channel=True)  # pyright: ignore
    tensor = dataclasses.replace(case.quantizer, per_channel=False)  # pyright: ignore
    whole, part = (dataclasses.replace(case, quantizer=q) for q in (channels, tensor))
    spread = jnp.logspace(-2, 1, SHAPE[-1]).reshape(1, 1, 1, -1)
    x = case.sample(16) * spread
    p = whole.numbers(x)
    y = simulation(whole.bound)(p, x)
    slope = gradient(whole.bound)(p, x, direction(x))
    np.testing.assert_array_equal(y, decode_float32(whole.bound.encode(p, x)))
    for c in range(SHAPE[-1]):
        own = x[..., c : c + 1]
        numbers = {
            name: value[c] if value.shape == SHAPE[-1:] else value for name, value in p.items()
        }
        np.testing.assert_array_equal(y[..., c : c + 1], simulation(part.bound)(numbers, own))
        np.testing.assert_array_equal(
            slope[..., c : c + 1],
            gradient(part.bound)(numbers, own, direction(x)[..., c : c + 1]),
        )
