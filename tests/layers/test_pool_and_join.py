"""Pools, sums, concatenations and moves: exact in integers, rounded only by a quantizer."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.codes import Codes
from qjax.core.host import HostArray
from qjax.layers import (
    Add,
    AvgPool,
    Concat,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Mul,
    Pad,
    Reshape,
    Sub,
    Subsample,
)
from qjax.layers.layer import Layer
from qjax.layers.slots import Slot
from qjax.methods.affine import AffineActivation
from tests.layers.reference import (
    Input,
    assert_exact,
    assert_lands,
    assert_simulates,
    bind,
    integer,
    pending,
    twin,
    windows64,
)

SHAPE = (2, 7, 6, 5)
BYTES = Input(0, 255, 77, 0.02)
INPUTS = {
    "codes": BYTES.codes(SHAPE, seed=1),
    "signed codes": Input(-7, 7, 0).codes(SHAPE, seed=2),
    "pending": pending(SHAPE, seed=3),
}
SUMS = INPUTS | {"residual sum": pending(SHAPE, seed=4, terms=2)}


def quantized(layer: Layer) -> Slot:
    """The layer's output slot with an 8-bit grid."""
    return bind(layer, "output", AffineActivation(8), jnp.asarray([-3.0, 4.0]))


def test_pending_inputs_hold_scales_of_both_signs():
    scale = INPUTS["pending"].terms[0].scale.value
    assert scale.min() < 0 < scale.max()


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize(("window", "stride"), [(2, None), (3, 2), (2, 1)])
def test_maximum(x: Codes, window: int, stride: int | None):
    layer = MaxPool(window, stride)
    expected = windows64(x.decode(), window, stride or window, np.max)
    assert_exact(integer(layer, x), expected)
    assert_simulates(layer, (x,), expected)


@pytest.mark.parametrize("x", SUMS.values(), ids=SUMS)
@pytest.mark.parametrize(("window", "stride"), [(2, None), (3, 2)])
def test_average(x: Codes, window: int, stride: int | None):
    layer = AvgPool(window, stride)
    expected = windows64(x.decode(), window, stride or window, np.mean)
    assert_exact(integer(layer, x), expected)
    assert_simulates(layer, (x,), expected)


@pytest.mark.parametrize("x", SUMS.values(), ids=SUMS)
def test_mean_of_the_image(x: Codes):
    layer = GlobalAvgPool()
    expected = x.decode().mean((1, 2))
    assert_exact(integer(layer, x), expected)
    assert_simulates(layer, (x,), expected)


@pytest.mark.parametrize("x", SUMS.values(), ids=SUMS)
@pytest.mark.parametrize("y", SUMS.values(), ids=SUMS)
def test_sum_of_terms_on_different_grids(x: Codes, y: Codes):
    layer = Add()
    expected = x.decode() + y.decode()
    assert_exact(integer(layer, x, y), expected)
    assert_simulates(layer, (x, y), expected)
    assert len(integer(layer, x, y).terms) == len(x.terms) + len(y.terms)


@pytest.mark.parametrize("x", SUMS.values(), ids=SUMS)
@pytest.mark.parametrize("y", SUMS.values(), ids=SUMS)
def test_difference_of_terms_on_different_grids(x: Codes, y: Codes):
    # Of other size, so that equal ones do not cancel to float64's last bits.
    y = dataclasses.replace(y, offset=HostArray(y.offset.value + 0.5))
    expected = x.decode() - y.decode()
    assert_exact(integer(Sub(), x, y), expected)
    assert_simulates(Sub(), (x, y), expected)


@pytest.mark.parametrize("shape", [SHAPE, (2, 1, 1, 5), (2, 7, 6, 1)])
def test_products_of_codes_are_exact(shape: tuple[int, ...]):
    x, y = INPUTS["codes"], Input(-128, 127, 5, 0.011).codes(shape, seed=8)
    expected = x.decode() * y.decode()
    product = integer(Mul(), x, y)
    assert_exact(product, expected)
    assert_simulates(Mul(), (x, y), expected)
    (term,) = product.terms
    assert (term.low, term.high) == (178 * -133, 178 * 122)


def test_a_gate_is_reshaped_and_padded_with_real_zero():
    x = Input(0, 255, 9).codes((2, 12), seed=5)
    assert_exact(integer(Reshape((2, 3, 2)), x), x.decode().reshape(2, 2, 3, 2))
    image = INPUTS["codes"]
    expected = np.pad(image.decode(), ((0, 0), (2, 0), (1, 3), (0, 0)))
    layer = Pad(((2, 0), (1, 3)))
    assert_exact(integer(layer, image), expected)
    assert_simulates(layer, (image,), expected)
    kept = integer(Reshape((42, 5)), SUMS["residual sum"])
    np.testing.assert_allclose(kept.decode(), SUMS["residual sum"].decode().reshape(2, 42, 5))


def test_a_tensor_added_to_itself():
    x = INPUTS["pending"]
    assert_exact(integer(Add(), x, x), 2 * x.decode())


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("y", INPUTS.values(), ids=INPUTS)
def test_concatenation(x: Codes, y: Codes):
    layer = Concat()
    expected = np.concatenate([x.decode(), y.decode()], -1)
    assert_exact(integer(layer, x, y), expected)
    assert_simulates(layer, (x, y), expected)


def test_concatenation_on_one_grid_stays_plain():
    joined = integer(Concat(), BYTES.codes(SHAPE), BYTES.codes(SHAPE, seed=9))
    assert joined.is_plain() and joined.shape == (2, 7, 6, 10)


def test_concatenation_of_equal_scales_per_channel():
    x = INPUTS["pending"]
    bare = Codes(x.terms, HostArray(0.0))
    expected = np.concatenate([bare.decode()] * 2, -1)
    assert_exact(integer(Concat(), bare, bare), expected)


@pytest.mark.parametrize("x", [INPUTS["codes"], INPUTS["signed codes"]], ids=["bytes", "signed"])
@pytest.mark.parametrize(("stride", "features"), [(2, 8), (2, 5), (1, 10)])
def test_the_parameter_free_shortcut_pads_with_real_zero(x: Codes, stride: int, features: int):
    layer = Subsample(stride, features)
    more = features - 5
    expected = np.pad(
        x.decode()[:, ::stride, ::stride], ((0, 0),) * 3 + ((more // 2, more - more // 2),)
    )
    codes = integer(layer, x)
    assert_exact(codes, expected)
    assert codes.is_plain()
    assert_simulates(layer, (x,), expected)


@pytest.mark.parametrize("x", SUMS.values(), ids=SUMS)
def test_flattening_keeps_channels_with_their_scales(x: Codes):
    expected = x.decode().reshape(2, -1)
    assert_exact(integer(Flatten(), x), expected)
    assert_simulates(Flatten(), (x,), expected)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (MaxPool(2), ("pending",)),
        (AvgPool(2), ("residual sum",)),
        (GlobalAvgPool(), ("pending",)),
        (Add(), ("codes", "pending")),
        (Concat(), ("codes", "pending")),
        (Sub(), ("pending", "codes")),
        (Mul(), ("codes", "signed codes")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_output_quantizer_rounds_once(layer: Layer, inputs: tuple[str, ...]):
    codes = [SUMS[name] for name in inputs]
    exact = integer(layer, *codes).decode()
    slot = quantized(layer)
    assert_lands(integer(layer, *codes), slot, exact)


@pytest.mark.parametrize(
    ("layer", "inputs", "words"),
    [
        (MaxPool(2), ("residual sum",), "pending residual sum.*quantized activation"),
        (Concat(), ("codes", "residual sum"), "pending residual sum; put a quantized activation"),
        (Subsample(2, 8), ("pending",), "pending sum; put a quantized activation before"),
        (Pad(1), ("pending",), "pending sum; put a quantized activation before the padding"),
        (Mul(), ("codes", "pending"), "a factor is a pending sum.*put an activation with"),
        (Reshape((210,)), ("pending",), "a scale for each of 5 channels, which .210,. would mix"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_integer_names_the_remedy(layer: Layer, inputs, words: str):
    with pytest.raises(ValueError, match=words):
        twin(layer, *(SUMS[name] for name in inputs))


@pytest.mark.parametrize("layer", [AvgPool(2), GlobalAvgPool()])
def test_a_sum_that_could_leave_int32_is_refused(layer: Layer):
    x = INPUTS["pending"]
    wide = Codes((dataclasses.replace(x.terms[0], high=2**30),), x.offset)
    with pytest.raises(
        ValueError, match=r"a sum of \d+ elements could leave int32; quantize before"
    ):
        integer(layer, wide)
