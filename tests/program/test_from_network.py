"""A converted network's program computes the network's own logits, from a file and as StableHLO."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax import export
from qjax.core.requantize import POLICIES
from qjax.export import program_of
from qjax.integerize import IntegerNetwork, integerize
from qjax.methods.none import NoQuantizer
from qjax.program.load import load
from qjax.program.packing import packing_of
from qjax.program.program import Program
from qjax.program.run import run, runner
from qjax.program.save import save
from qjax.program.stablehlo import read_stablehlo, write_stablehlo
from qjax.recipe import ends_8bit, ends_float
from tests.core.oracle import dtypes
from tests.test_agreement import ENDS, METHODS, MODELS, PIXELS, images, live

CASES = [("small", "pact", 4), ("resnet8", "dorefa", 2), ("mobilenet", "minmax", 8)]


def converted(model: str, method: str, bits: int, policy: str = "q31_even"):
    make, side = MODELS[model]
    pixels = images(side)
    weight, act = METHODS[method](bits, bits)
    recipe = ends_8bit(weight, act, *ENDS)
    net = live(make(rngs=nnx.Rngs(1)), recipe, pixels)
    return integerize(net, PIXELS, (side, side, 1), POLICIES[policy]), pixels


def check_equal(network: IntegerNetwork, program: Program, pixels: np.ndarray) -> None:
    found = runner(program)(pixels)
    logits = np.asarray(network.logits(jnp.asarray(pixels)))
    assert len(np.unique(logits)) > 10
    np.testing.assert_array_equal(np.asarray(found["logits"]), logits)
    np.testing.assert_array_equal(
        np.asarray(found["class"]), np.asarray(network(jnp.asarray(pixels)))
    )


@pytest.mark.parametrize(("model", "method", "bits"), CASES)
def test_a_program_equals_its_network(model: str, method: str, bits: int, tmp_path: Path):
    network, pixels = converted(model, method, bits)
    program = program_of(network, pixels.shape[1:])
    check_equal(network, program, pixels)
    save(program, tmp_path / "net.qjax")
    check_equal(network, load(tmp_path / "net.qjax"), pixels)
    widths = [packing_of(t.constant).bits for t in program.tensors if t.data is not None]
    # The ends have 8 bits.
    assert max(widths[1:-1]) <= bits
    found = dtypes(lambda x: run(program, x), jnp.asarray(pixels))
    assert not [kind for kind in found if np.issubdtype(kind, np.inexact)]


def test_the_policy_goes_along():
    network, pixels = converted("lenet5", "pact", 4, "gemmlowp")
    program = program_of(network, pixels.shape[1:])
    assert program.policy == "gemmlowp"
    check_equal(network, program, pixels)


def test_stablehlo_runs_without_the_program(tmp_path: Path):
    network, pixels = converted("small", "pact", 4)
    program = program_of(network, pixels.shape[1:])
    for count in (1, 5):
        path = tmp_path / f"{count}.stablehlo"
        assert write_stablehlo(program, path, count) == path.stat().st_size
        logits, classes = read_stablehlo(path).call(jnp.asarray(pixels[:count]))
        expected = run(program, pixels[:count])
        np.testing.assert_array_equal(logits, expected["logits"])
        np.testing.assert_array_equal(classes, expected["class"])


def test_float_ends_are_refused():
    make, side = MODELS["small"]
    pixels = images(side)
    recipe = ends_float(*METHODS["pact"](4, 4), keep=NoQuantizer())
    net = live(make(rngs=nnx.Rngs(1)), recipe, pixels)
    with pytest.raises(ValueError, match="stays float, so there is no integer program"):
        program_of(integerize(net, PIXELS, (side, side, 1)), (side, side, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["format=program"], "must be given"),
        (["folder=none", "format=npz"], "format must be among program, stablehlo"),
        (["folder=none", "format=program"], "no such file"),
    ],
)
def test_export_says_what_is_wrong(arguments: list[str], message: str, capsys):
    assert export.main(arguments) == 2
    assert message in capsys.readouterr().err
