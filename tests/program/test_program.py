"""The program as a value: what it refuses, what it prints, what its run may hold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.core.host import HostArray
from qjax.core.requantize import POLICIES
from qjax.program import ops
from qjax.program.program import Program
from qjax.program.run import run, runner
from qjax.program.tensor import Quantization, Tensor
from tests.core.oracle import dtypes
from tests.program.examples import example, one, pixels


def changed(**fields) -> Program:
    return dataclasses.replace(example(), **fields)


def with_tensor(name: str, **fields) -> Program:
    tensors = example().tensors
    return changed(
        tensors=tuple(dataclasses.replace(t, **fields) if t.name == name else t for t in tensors)
    )


def with_operator(place: int, **fields) -> Program:
    steps = list(example().operators)
    steps[place] = dataclasses.replace(steps[place], **fields)
    return changed(operators=tuple(steps))


def test_the_listing_can_be_followed():
    lines = str(example()).splitlines()
    assert lines[0] == "program of 8 operators, policy q31_even, 384 constants"
    rows = {line.split()[0]: line for line in lines if line.startswith("%")}
    assert list(rows) == ["%a", *(f"%{place}" for place in range(1, 9))]
    assert "conv2d" in rows["%2"] and "4b[3 3 3 4]" in rows["%2"] and "%1" in rows["%2"].split()
    assert "int8 [n 6 6 4] -8..7" in rows["%3"] and "scales=([4 numbers])" in rows["%3"]
    assert "window=(2 2)" in rows["%5"]
    assert lines[-1] == "outputs: %7, %8"


def test_a_run_equals_numpy():
    program, images = example(), pixels()
    values = {name: np.asarray(v) for name, v in runner(program, all_tensors=True)(images).items()}
    assert (values["x"] == images.astype(int) - 128).all()
    padded = np.pad(values["x"].astype(int), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-128)
    kernel = program["kernel"].constant.astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    sums = np.einsum("nabcij,ijco->nabo", windows + 128, kernel)
    assert (values["sum"] == sums).all()
    step = program.operators[2]
    real = sums * step.scales[0].value + step.offset.value  # pyright: ignore
    codes = np.clip(np.rint(real), -8, 7)
    assert (values["y"] == codes).all()
    pooled = np.clip(2 * codes, -128, 127).reshape(3, 3, 2, 3, 2, 4).max((2, 4))
    assert (values["pooled"] == pooled).all()
    assert (values["mean"] == np.clip(np.rint(pooled.mean((1, 2)) * 2), -128, 127)).all()
    assert (values["logits"] == values["mean"].astype(int) @ program["signs"].constant).all()
    assert (values["class"] == values["logits"].argmax(-1)).all()


def test_outputs_alone_and_any_batch():
    program = example()
    call = runner(program)
    many = call(pixels(5))
    assert set(many) == {"logits", "class"}
    alone = [np.asarray(call(image[None])["logits"][0]) for image in pixels(5)]
    np.testing.assert_array_equal(np.asarray(many["logits"]), alone)


@pytest.mark.parametrize("policy", ["q31_even", "q31", "gemmlowp", "thresholds"])
def test_no_float_in_the_traced_program(policy: str):
    found = dtypes(lambda x: run(example(policy), x), jnp.asarray(pixels()))
    assert found and not {kind for kind in found if not np.issubdtype(kind, np.integer)} - {
        np.dtype(bool)
    }


def test_policies_that_do_not_fit_are_refused_when_run():
    with pytest.raises(ValueError, match=r"shift: scales\[0\] must be"):
        jax.eval_shape(lambda x: run(example("shift"), x), jnp.asarray(pixels()))
    assert "shift" in POLICIES


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: changed(policy="best"), "policy must be one of"),
        (lambda: changed(tensors=(*example().tensors, example()["x"])), "'x' twice"),
        (lambda: changed(inputs=()), "needs an input, an output"),
        (lambda: changed(inputs=("picture",)), "no tensor 'picture'"),
        (lambda: changed(inputs=("kernel",)), "'kernel' must be an activation"),
        (lambda: changed(outputs=("kernel2",)), "neither given nor computed"),
        (lambda: changed(operators=example().operators[::-1]), "before it is computed"),
        (lambda: changed(operators=example().operators[:-1]), "'class' is neither given nor"),
        (lambda: with_operator(0, output="pixels"), "'pixels' is computed twice"),
        (lambda: with_operator(1, inputs=("sum", "kernel")), "without cycles"),
        (lambda: with_operator(1, inputs=("x",)), "must have 2 to 3 inputs, got 1"),
        (lambda: with_operator(1, padding=((0, 0), (0, 0))), "computes shape"),
        (lambda: with_operator(1, groups=2), "in 2 groups"),
        (lambda: with_operator(5, axes=(0, 1)), "other than the batch"),
        (lambda: with_tensor("sum", low=-10, high=10), "must declare the range of its sum"),
        (lambda: with_tensor("sum", quantization=None), "needs a scale"),
        (lambda: with_tensor("mean", dtype="int32", low=None, high=None), "must be int8"),
        (lambda: with_tensor("y", shape=(None, 6, 6, 5)), "declared is"),
        (lambda: with_tensor("logits", quantization=one(0.01, 0.5)), "whole zero points"),
    ],
)
def test_a_wrong_program_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a b"}, "printable and without spaces"),
        ({"shape": (2, None)}, "the first possibly None"),
        ({"shape": (0,)}, "sizes of 1 or more"),
        ({"shape": (2**20, 2**20)}, "2\\*\\*31 - 1 elements"),
        ({"dtype": "int4"}, "must be one of int8"),
        ({"low": -200}, "enclose its codes inside int8"),
        ({"low": 5, "high": 4}, "enclose its codes"),
        ({"quantization": Quantization(HostArray([1, 2]), HostArray([0, 0]), 0)}, "do not fit"),
        ({"data": np.zeros(3, np.int8)}, "must be int8 of shape"),
    ],
)
def test_a_wrong_tensor_is_refused(fields: dict, message: str):
    usual = {"name": "x", "shape": (4,), "dtype": "int8"}
    with pytest.raises((ValueError, TypeError), match=message):
        Tensor(**usual | fields)


@pytest.mark.parametrize(
    ("scale", "zero", "axis", "message"),
    [
        (0.0, 0, None, "finite and not zero"),
        (np.nan, 0, None, "finite and not zero"),
        (1.0, 0.25, None, "multiples of one half"),
        ([1.0, 2.0], 0, None, "set just where scale is a list"),
        (1.0, 0, 0, "set just where scale is a list"),
        ([1.0, 2.0], [0, 0, 0], 0, "lists of one length"),
    ],
)
def test_wrong_units_are_refused(scale, zero, axis, message: str):
    with pytest.raises(ValueError, match=message):
        Quantization(HostArray(scale), HostArray(zero), axis)


def test_a_sum_that_can_leave_int32_is_refused():
    weight = np.full((70_000, 1), 127, np.int8)
    tensors = (
        Tensor("x", (None, 70_000), "int8", one(1.0, -128)),
        Tensor("w", weight.shape, "int8", one(1.0), data=weight),
        Tensor("y", (None, 1), "int8", one(1.0)),
    )
    with pytest.raises(ValueError, match="could reach .* and leave int32"):
        Program(("x",), ("y",), tensors, (ops.Dense(("x", "w"), "y"),), "q31_even")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"picture": pixels()}, "inputs are pixels, got picture"),
        (pixels()[:, :5], r"must be uint8 of shape \(None, 6, 6, 3\)"),
        (pixels().astype(np.int32), "must be uint8 of shape"),
        (pixels()[0], "must be uint8 of shape"),
    ],
)
def test_wrong_inputs_are_refused(inputs, message: str):
    with pytest.raises(ValueError, match=message):
        run(example(), inputs)
