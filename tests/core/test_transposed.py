"""Transposed convolutions against the definition, pixel by pixel and tap by tap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjax.core.transposed import ones_acc, transposed, transposed_acc
from qjax.core.windows import transposed_size
from tests.core.test_intconv import codes


def reference(x: np.ndarray, kernel: np.ndarray, strides, cut, size) -> np.ndarray:
    """Every pixel adds its products where they belong; in the dtype of x."""
    (n, h, w, _), (kh, kw, _, o) = x.shape, kernel.shape
    rows, columns = h * strides[0] + kh + size[0], w * strides[1] + kw + size[1]
    out = np.zeros((n, rows, columns, o), x.dtype)
    for a, b, i, j in np.ndindex(h, w, kh, kw):
        out[:, a * strides[0] + i, b * strides[1] + j] += x[:, a, b] @ kernel[i, j]
    return out[:, cut[0] : cut[0] + size[0], cut[1] : cut[1] + size[1]]


@st.composite
def cases(draw: st.DrawFn):
    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    image, kernel, strides = pair(1, 4), pair(1, 5), pair(1, 3)
    cut = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    size = pair(1, 14)
    c, o = pair(1, 5)
    return image, kernel, strides, cut, size, c, o, draw(st.integers(-128, 127))


@given(cases())
@settings(max_examples=8)
def test_equals_the_definition(case) -> None:
    image, kernel, strides, cut, size, c, o, zero = case
    x, weight = codes(0, (2, *image, c)), codes(1, (*kernel, c, o))
    run = jax.jit(lambda x, k: transposed_acc(x, k, strides, cut, size, zero))
    got = run(x, weight)
    wide, factors = x.astype(np.int64) - zero, weight.astype(np.int64)
    expected = reference(wide, factors, strides, cut, size) + zero * factors.sum((0, 1, 2))
    np.testing.assert_array_equal(got, expected)
    sums = ones_acc(jnp.asarray(x), kernel, strides, cut, size, zero)
    ones = np.ones((*kernel, c, 1), np.int64)
    np.testing.assert_array_equal(
        sums, reference(wide, ones, strides, cut, size) + zero * ones.sum()
    )


@pytest.mark.parametrize(("k", "stride"), [(2, 2), (3, 2), (4, 2), (3, 1), (2, 3)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_float_value_and_gradient_are_jax_own(k: int, stride: int, padding: str) -> None:
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(k, k, 3, 4)), jnp.float32)
    ends = [transposed_size(size, k, stride, padding) for size in (4, 5)]
    cut, size = zip(*ends, strict=True)

    def ours(x, kernel):
        return transposed(x, kernel, (stride, stride), cut, size)

    def theirs(x, kernel):
        edges = [
            (k - 1 - t, n + t - (m - 1) * stride - 1)
            for m, (t, n) in zip((4, 5), ends, strict=True)
        ]
        return jax.lax.conv_general_dilated(
            x,
            kernel[::-1, ::-1],
            (1, 1),
            edges,
            lhs_dilation=(stride, stride),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    expected = theirs(x, kernel)
    np.testing.assert_allclose(ours(x, kernel), expected, rtol=1e-5, atol=1e-5)
    g = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    for got, wanted in zip(
        jax.vjp(ours, x, kernel)[1](g), jax.vjp(theirs, x, kernel)[1](g), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5)


def test_sizes_are_tensorflows() -> None:
    for size, kernel, stride in ((5, 3, 2), (5, 2, 2), (4, 1, 3), (3, 5, 1)):
        _, valid = transposed_size(size, kernel, stride, "VALID")
        assert valid == size * stride + max(kernel - stride, 0)
        cut, same = transposed_size(size, kernel, stride, "SAME")
        assert (same, cut) == (size * stride, max(kernel - stride, 0) // 2)
    with pytest.raises(ValueError, match="SAME or VALID, got 'FULL'"):
        transposed_size(5, 3, 2, "FULL")


def test_two_by_two_with_stride_two_is_one_matrix_product() -> None:
    x, kernel = jnp.zeros((4, 8, 8, 16), jnp.int8), jnp.zeros((2, 2, 16, 8), jnp.int8)
    traced = jax.make_jaxpr(lambda x, k: transposed_acc(x, k, (2, 2), (0, 0), (16, 16), 3))
    text = str(traced(x, kernel))
    assert "dot_general" in text and "conv_general_dilated" not in text
