"""What a program's file would score without VNNI: counts, the command, its refusals."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from qjax import saturation
from qjax.data import digits
from qjax.program import ops
from qjax.program.base import SATURATING
from qjax.program.prediction import predict
from qjax.program.program import Program
from qjax.program.run import run, runner
from qjax.program.save import save
from qjax.program.tensor import Tensor
from qjax.saturation import batches_of
from tests.core.test_saturation import pairs
from tests.program.examples import each, one

DIGITS = digits.load()


def program(reach: int, dtype: str = "uint8") -> Program:
    """Digits by the nearest mean, blown up to weights of some reach: a convolution, then a product.

    Its sums saturate where neighbouring pixels are bright and their weights large.
    """
    images = DIGITS.train_images[..., 0].astype(float).reshape(-1, 64)
    means = np.stack([images[DIGITS.train_labels == c].mean(0) for c in range(10)], -1)
    weights = np.rint(reach * (means - means.mean(0)) / np.abs(means - means.mean(0)).max())
    kernel = np.full((1, 1, 1, 1), min(reach, 127), np.int8)
    zero = 0 if dtype == "uint8" else -128
    tensors = (
        Tensor("x", (None, 8, 8, 1), dtype, one(1.0, zero)),
        Tensor("k", kernel.shape, "int8", each([1 / kernel.max()], 3), data=kernel),
        Tensor("y", (None, 8, 8, 1), dtype, one(1.0, zero)),
        Tensor("w", (64, 10), "int8", each([0.01] * 10, 1), data=weights.astype(np.int8)),
        Tensor("b", (10,), "int32", data=-(weights * means).sum(0).astype(np.int32) // 2),
        Tensor("logits", (None, 10), "int32", one(0.01)),
        Tensor("class", (None,), "int32"),
    )
    steps = (
        ops.Conv2D(("x", "k"), "y"),
        ops.Dense(("y", "w", "b"), "logits"),
        ops.ArgMax(("logits",), "class"),
    )
    return Program(("x",), ("logits", "class"), tensors, steps, "f32_even")


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_saturating_run_adds_pairs_in_int16(dtype: str):
    net = program(127, dtype)
    images = DIGITS.test_images[:20]
    given = images if dtype == "uint8" else (images.astype(np.int16) - 128).astype(np.int8)
    found = np.asarray(runner(net, products=SATURATING)(given)["logits"])
    weights = net["w"].constant.astype(np.int64)
    expected = pairs(images.reshape(-1, 64).astype(np.int64), weights) + net["b"].constant
    np.testing.assert_array_equal(found, expected)
    assert np.any(found != np.asarray(run(net, given)["logits"]))


def test_counts_of_full_range_and_of_seven_bits():
    images, labels = DIGITS.test_images[:100], DIGITS.test_labels[:100]
    full, narrow = (
        predict(net, batches_of(net, images, labels)) for net in (program(127), program(64))
    )
    assert narrow.exact == narrow.saturating and narrow.agreeing == narrow.samples == 100
    assert set(narrow.changed.values()) == {0.0}
    assert full.changed["y"] == 0.0 and full.changed["logits"] > 0.01
    assert full.exact > 60 and full.saturating < full.exact


def test_the_command_prints_one_line(tmp_path: Path, capsys):
    save(program(127), tmp_path / "net.qjax")
    given = [f"file={tmp_path / 'net.qjax'}", "data=digits", "samples=60"]
    assert saturation.main(given) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["samples"] == 60 and line["accuracy"] > line["accuracy_saturating"]
    assert list(line["changed_codes"]) == ["y", "logits"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file=none.qjax"], "give file=FILE with data=SET, or folder=FOLDER"),
        (["folder=none", "data=digits"], "give file=FILE with data=SET, or folder=FOLDER"),
        (["folder=none"], "no such file"),
        (["file=none.qjax", "data=digits"], "none.qjax"),
        (["file=none.qjax", "data=letters"], "data must name a set"),
        (["file=none.qjax", "data=digits", "samples=100000"], "samples must be at most"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys):
    assert saturation.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_images_of_another_shape_are_refused():
    net = program(64)
    with pytest.raises(ValueError, match=r"must take images of shape \(4, 4, 1\)"):
        list(batches_of(net, np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64)))
    assert dataclasses.replace(net).inputs == ("x",)
