"""Integer accumulators against numpy in 64 bits, for every form and any window."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qjax.core.exactness import use_exact_products
from qjax.core.intconv import conv_acc, dense_acc, window_sum
from qjax.core.intforms import FORMS, Geometry, choose

SAME = ((1, 1), (1, 1))


@pytest.fixture(autouse=True, scope="module")
def exact_products_on_gpus() -> Iterator[None]:
    """Forms for GPUs are traced here, as a command would trace them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "")
        use_exact_products()
        yield


def reference(x: np.ndarray, kernel: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The definition, in int64, brought into int32 as two's complement does."""
    strides, padding, groups, dilation, pad_value, _ = geometry
    kh, kw, ci, o = kernel.shape
    x = np.pad(x.astype(np.int64), ((0, 0), *padding, (0, 0)), constant_values=pad_value)
    n, height, width, _ = x.shape
    oh = (height - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (width - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    out = np.zeros((n, oh, ow, groups, o // groups), np.int64)
    for a, b in np.ndindex(oh, ow):
        rows = a * strides[0] + np.arange(kh) * dilation[0]
        columns = b * strides[1] + np.arange(kw) * dilation[1]
        seen = x[:, rows][:, :, columns].reshape(n, kh, kw, groups, ci)
        weights = kernel.astype(np.int64).reshape(kh, kw, ci, groups, o // groups)
        out[:, a, b] = np.einsum("nijgc,ijcgo->ngo", seen, weights)
    return out.reshape(n, oh, ow, o).astype(np.int32)


def codes(seed: int, shape: tuple[int, ...], dtype: str = "int8") -> np.ndarray:
    """Random codes of which many are the two ends of the range."""
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    drawn = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    ends = rng.choice(np.array([info.min, info.max], dtype), shape)
    return np.where(rng.random(shape) < 0.3, ends, drawn)


def check(x: np.ndarray, kernel: np.ndarray, geometry: Geometry) -> None:
    run = jax.jit(lambda x, kernel: conv_acc(x, kernel, **geometry._asdict()))
    got = run(x, kernel)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(np.asarray(got), reference(x, kernel, geometry))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Geometry]:
    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    kernel, strides, dilation = pair(1, 4), pair(1, 3), pair(1, 2)
    padding = (pair(0, 2), pair(0, 2))
    groups = draw(st.sampled_from([1, 1, 2, 3, 6]))
    per_group = draw(st.sampled_from([1, 2, 3, 5, 20]))
    outputs = groups * draw(st.sampled_from([1, 2, 3, 20]))
    size = [draw(st.integers((k - 1) * d + 1, 9)) for k, d in zip(kernel, dilation, strict=True)]
    seed = draw(st.integers(0, 2**16))
    x = codes(seed, (draw(st.integers(1, 2)), *size, groups * per_group))
    platform = draw(st.sampled_from(["cpu", "gpu"]))
    geometry = Geometry(strides, padding, groups, dilation, draw(st.integers(-128, 127)), platform)
    return x, codes(seed + 1, (*kernel, per_group, outputs)), geometry


@given(convolutions())
def test_equals_numpy_for_any_window(case: tuple[np.ndarray, np.ndarray, Geometry]) -> None:
    check(*case)


@pytest.mark.parametrize("pad_value", [0, -128, 5])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_computes_the_same_integers(form: str, strides, pad_value: int) -> None:
    groups = {"shifted": 6, "grouped": 3}.get(form, 1)
    size = 1 if form == "dot" else 3
    x = codes(0, (2, 11, 10, 6))
    kernel = codes(1, (size, size, 6 // groups, 12))
    geometry = Geometry(strides, ((0, 2), (3, 1)), groups, pad_value=pad_value, platform="cpu")
    got = jax.jit(lambda x, kernel: FORMS[form](x, kernel, geometry))(x, kernel)
    np.testing.assert_array_equal(np.asarray(got), reference(x, kernel, geometry))


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "geometry", "form"),
    [
        ((64, 32, 32, 3), (3, 3, 3, 16), Geometry(padding=SAME), "folded"),
        ((64, 32, 32, 16), (3, 3, 16, 16), Geometry(padding=SAME), "folded"),
        ((64, 32, 32, 16), (3, 3, 16, 20), Geometry(padding=SAME), "native"),
        ((64, 32, 32, 16), (3, 3, 16, 16), Geometry(padding=SAME, dilation=(2, 2)), "patches"),
        ((1, 8, 8, 64), (3, 3, 64, 64), Geometry(padding=SAME), "patches"),
        ((64, 8, 8, 64), (3, 3, 64, 64), Geometry(padding=SAME), "native"),
        ((64, 32, 32, 16), (1, 1, 16, 32), Geometry((2, 2)), "dot"),
        ((64, 8, 8, 64), (3, 3, 1, 128), Geometry(padding=SAME, groups=64), "shifted"),
        ((64, 8, 8, 64), (3, 3, 4, 64), Geometry(padding=SAME, groups=16), "grouped"),
    ],
)
def test_choice_and_its_result(x_shape, kernel_shape, geometry: Geometry, form: str) -> None:
    geometry = geometry._replace(platform="cpu", pad_value=-3)
    assert choose(x_shape, kernel_shape, geometry) == form
    small = (min(x_shape[0], 2), *x_shape[1:])
    check(codes(2, small), codes(3, kernel_shape), geometry)


def test_accelerators_never_meet_an_integer_convolution() -> None:
    for groups, ci, o in ((1, 3, 16), (1, 64, 64), (4, 8, 32), (8, 1, 8)):
        shapes = jnp.zeros((4, 16, 16, ci * groups), jnp.int8), jnp.zeros((3, 3, ci, o), jnp.int8)
        program = jax.make_jaxpr(lambda x, k, g=groups: conv_acc(x, k, groups=g, platform="gpu"))
        assert "conv_general_dilated" not in str(program(*shapes))


@pytest.mark.parametrize("dtype", ["int16", "int32"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_wide_activations_are_exact_modulo_two_to_the_32(dtype: str, groups: int) -> None:
    x, kernel = codes(4, (2, 7, 6, 4), dtype), codes(5, (3, 3, 4 // groups, 8))
    check(x, kernel, Geometry((1, 2), SAME, groups, pad_value=-300))
    flat, weight = codes(6, (3, 33), dtype), codes(7, (33, 5))
    expected = (flat.astype(np.int64) @ weight.astype(np.int64)).astype(np.int32)
    np.testing.assert_array_equal(
        np.asarray(dense_acc(jnp.asarray(flat), jnp.asarray(weight))), expected
    )


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_dense_equals_numpy(rows: int) -> None:
    x, weight = codes(8, (rows, 130)), codes(9, (130, 11))
    got = jax.jit(dense_acc)(x, weight)
    assert got.dtype == jnp.int32 and got.shape == (rows, 11)
    np.testing.assert_array_equal(np.asarray(got), x.astype(np.int64) @ weight.astype(np.int64))


@given(convolutions())
@settings(max_examples=10)
def test_window_sum_is_what_a_kernel_of_ones_accumulates(case) -> None:
    x, kernel, geometry = case
    ones = np.ones((*kernel.shape[:3], geometry.groups), np.int8)
    arguments = geometry._asdict()
    del arguments["platform"]
    got = jax.jit(lambda x: window_sum(x, ones.shape[:2], **arguments))(x)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(np.asarray(got), reference(x, ones, geometry))


def test_weight_zero_point_by_window_sum() -> None:
    x, kernel, zero = codes(10, (1, 6, 6, 4)), codes(11, (3, 3, 4, 8)).clip(-100, 100), 7
    shifted = (kernel + zero).astype(np.int8)
    corrected = conv_acc(jnp.asarray(x), jnp.asarray(shifted), padding=SAME, pad_value=2)
    corrected -= zero * window_sum(jnp.asarray(x), (3, 3), padding=SAME, pad_value=2)
    expected = reference(x, kernel, Geometry(padding=SAME, pad_value=2))
    np.testing.assert_array_equal(np.asarray(corrected), expected)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_no_floating_dtype_in_the_program(dtype: str, groups: int) -> None:
    x, kernel = jnp.zeros((2, 9, 9, 4), dtype), jnp.zeros((3, 3, 4 // groups, 8), jnp.int8)

    def program(x, kernel):
        y = conv_acc(x, kernel, (2, 2), SAME, groups, pad_value=1)
        return y, window_sum(x, (3, 3)), dense_acc(x[:, 0, 0], kernel[0, 0])

    if groups == 1:
        text = str(jax.make_jaxpr(program)(x, kernel))
    else:
        text = str(jax.make_jaxpr(lambda x, k: conv_acc(x, k, groups=groups))(x, kernel))
    assert "i32" in text
    assert not any(name in text for name in ("f16", "f32", "f64"))


def test_producers_stay_outside_the_gathering() -> None:
    """A requantization fused into the taps would be computed once per tap."""
    x, kernel = jnp.zeros((2, 9, 9, 4), jnp.int32), jnp.zeros((3, 3, 4, 8), jnp.int8)
    text = str(jax.make_jaxpr(lambda x, k: conv_acc((x >> 3).astype(jnp.int8), k))(x, kernel))
    assert text.index("optimization_barrier") < text.index("conv_general_dilated")


def test_errors_name_the_value_and_the_remedy() -> None:
    x, kernel = jnp.zeros((1, 4, 4, 4), jnp.int8), jnp.zeros((3, 3, 4, 8), jnp.int8)
    with pytest.raises(TypeError, match="uint8 and int8; subtract 128"):
        conv_acc(x.astype(jnp.uint8), kernel)
    with pytest.raises(TypeError, match="int8 and int16"):
        dense_acc(x[0, 0], kernel[0, 0].astype(jnp.int16))
    with pytest.raises(ValueError, match="pad_value must be a code .* got 128"):
        conv_acc(x, kernel, pad_value=128)
    with pytest.raises(ValueError, match="does not fit an input of 4 channels in 2 groups"):
        conv_acc(x, kernel, groups=2)
    with pytest.raises(ValueError, match="groups must divide the 4 input channels, got 3"):
        window_sum(x, (2, 2), groups=3)
    with pytest.raises(ValueError, match="a window of 7 .* does not fit into an input of 4"):
        conv_acc(x, jnp.zeros((7, 7, 4, 8), jnp.int8))
