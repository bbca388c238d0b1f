"""The float convolution against XLA's own, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from qjax.core.floatconv import conv, dense

SAME = ((1, 1), (1, 1))


def plain(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0)), groups=1, dilation=(1, 1)):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )


def normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def values_and_gradients(convolve, x, kernel, g, **geometry) -> tuple[jax.Array, ...]:
    """(value, input gradient, kernel gradient) in one compiled program."""

    def run(x, kernel, g):
        value, transpose = jax.vjp(lambda *a: convolve(*a, **geometry), x, kernel)
        return value, *transpose(g.astype(value.dtype))

    return jax.jit(run)(x, kernel, g)


def check(x, kernel, **geometry) -> None:
    """Values and both gradients, to a few units in the last place of the largest sum."""
    g = normal(7, jax.eval_shape(lambda *a: plain(*a, **geometry), x, kernel).shape)
    got = values_and_gradients(conv, x, kernel, g, **geometry)
    expected = values_and_gradients(plain, x, kernel, g, **geometry)
    names = ("value", "input gradient", "kernel gradient")
    for mine, theirs, name in zip(got, expected, names, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        scale = float(jnp.abs(theirs).max()) + 1e-6
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * scale, err_msg=name)


@st.composite
def geometries(draw: st.DrawFn):
    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    kernel, strides, dilation = pair(1, 4), pair(1, 3), pair(1, 2)
    padding = (pair(0, 4), pair(0, 4))
    groups = draw(st.sampled_from([1, 1, 2, 3, 6]))
    per_group = draw(st.sampled_from([1, 2, 9]))
    outputs = groups * draw(st.sampled_from([1, 2, 9]))
    size = [draw(st.integers((k - 1) * d + 1, 11)) for k, d in zip(kernel, dilation, strict=True)]
    shapes = (2, *size, groups * per_group), (*kernel, per_group, outputs)
    keywords = dict(strides=strides, padding=padding, groups=groups, dilation=dilation)
    return shapes, keywords


@given(geometries())
@settings(max_examples=12)
def test_equals_plain_convolution_for_any_window(case) -> None:
    (x_shape, kernel_shape), keywords = case
    check(normal(0, x_shape), normal(1, kernel_shape), **keywords)


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "keywords"),
    [
        ((8, 16, 16, 16), (3, 3, 16, 32), {"strides": (2, 2), "padding": ((0, 1), (0, 1))}),
        ((8, 14, 14, 1), (5, 5, 1, 6), {"padding": ((2, 2), (2, 2))}),
        ((8, 14, 13, 6), (5, 5, 6, 16), {}),
        ((8, 16, 16, 32), (3, 3, 1, 32), {"padding": SAME, "groups": 32}),
        ((4, 17, 13, 8), (3, 5, 1, 24), {"strides": (2, 1), "padding": SAME, "groups": 8}),
        ((4, 9, 9, 32), (3, 3, 4, 64), {"padding": SAME, "groups": 8}),
    ],
    ids=["plain", "thin", "thin_6_16", "depthwise", "multiplier", "grouped"],
)
def test_each_form_on_a_usual_layer(x_shape, kernel_shape, keywords) -> None:
    check(normal(2, x_shape), normal(3, kernel_shape), **keywords)


def test_dense_channels_have_exactly_the_transposes_of_xla() -> None:
    x, kernel, g = normal(4, (2, 8, 8, 16)), normal(5, (3, 3, 16, 32)), normal(6, (2, 8, 8, 32))
    mine = values_and_gradients(conv, x, kernel, g, padding=SAME)
    theirs = values_and_gradients(plain, x, kernel, g, padding=SAME)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_bfloat16_rounds_once(groups: int) -> None:
    x = normal(8, (2, 8, 8, 4)).astype(jnp.bfloat16)
    kernel = normal(9, (3, 3, 4 // groups, 8)).astype(jnp.bfloat16)
    g = normal(10, (2, 8, 8, 8)).astype(jnp.bfloat16)
    wide = [a.astype(jnp.float32) for a in (x, kernel, g)]
    got = values_and_gradients(conv, x, kernel, g, padding=SAME, groups=groups)
    expected = values_and_gradients(plain, *wide, padding=SAME, groups=groups)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == jnp.bfloat16
        # One rounding to 8 bits is at most 2**-9 of a value; sums near zero carry float32's error.
        np.testing.assert_allclose(mine.astype(jnp.float32), theirs, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("groups", [1, 4])
def test_vmap_over_inputs_and_kernels(groups: int) -> None:
    x, kernel = normal(11, (3, 2, 6, 6, 4)), normal(12, (3, 3, 3, 4 // groups, 4))

    def loss(x, kernel):
        return jnp.square(conv(x, kernel, padding=SAME, groups=groups)).sum()

    both = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1))))(x, kernel)
    for index in range(3):
        alone = jax.value_and_grad(loss, (0, 1))(x[index], kernel[index])
        for mine, theirs in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(mine[index], theirs, rtol=1e-4, atol=1e-4)


def test_gradient_begins_with_a_barrier() -> None:
    x, kernel = normal(13, (1, 6, 6, 16)), normal(14, (3, 3, 16, 32))
    program = jax.make_jaxpr(jax.grad(lambda k: conv(x, k).sum()))(kernel)
    names = [str(eqn.primitive) for eqn in program.eqns]
    barrier = names.index("optimization_barrier")
    assert "conv_general_dilated" in names[barrier:]


def test_every_convolution_asks_for_the_highest_precision() -> None:
    x, kernel = normal(15, (1, 6, 6, 16)), normal(16, (3, 3, 16, 32))
    text = str(jax.make_jaxpr(jax.grad(lambda k: conv(x, k).sum()))(kernel))
    assert text.count("precision=") == text.count("Precision.HIGHEST, Precision.HIGHEST") > 0
    text = str(jax.make_jaxpr(dense)(x, kernel[0, 0]))
    assert "Precision.HIGHEST, Precision.HIGHEST" in text


@pytest.mark.parametrize("groups", [4, 16])
def test_accelerators_use_their_grouped_convolution(groups: int) -> None:
    x, kernel = normal(17, (1, 6, 6, 16)), normal(18, (3, 3, 16 // groups, 32))
    program = jax.make_jaxpr(lambda *a: conv(*a, groups=groups, platform="gpu"))(x, kernel)
    assert f"feature_group_count={groups}" in str(program)


def test_dense_is_the_matrix_product() -> None:
    x, weight = normal(19, (5, 7)), normal(20, (7, 3))
    expected = np.asarray(x, np.float64) @ np.asarray(weight, np.float64)
    np.testing.assert_allclose(dense(x, weight), expected, rtol=1e-5, atol=1e-6)


def test_channels_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3, 3, 8\) .* input of 4 channels in 2 groups"):
        conv(normal(21, (1, 5, 5, 4)), normal(22, (3, 3, 3, 8)), groups=2)
