"""Networks in the forms of TFLite and ONNX: their codes, and every code as the runtime has it."""

from pathlib import Path

import numpy as np
import pytest

from qjax.program import ops
from qjax.program.base import NotExpressible
from qjax.program.comparison import RuntimeUnfit, compare_onnx, compare_tflite, image_inputs
from qjax.program.lowering.container import ONNX, TFLITE, Container
from qjax.program.lowering.lower import Lowered, lower, observe
from qjax.program.lowering.report import deviation
from qjax.program.onnx.read import read_onnx
from qjax.program.onnx.write import write_onnx
from qjax.program.program import Program
from qjax.program.run import runner
from qjax.program.tflite import read_tflite
from qjax.program.tflite_write import write_tflite
from tests.program.networks import Averaged, Branched, Gated, custom, network

CONTAINERS = {"tflite": TFLITE, "onnx": ONNX}
CASES = [
    ("small", "int8", 8),
    pytest.param("small", "lsq", 2, marks=pytest.mark.slow),
    ("mobilenet", "pact", 4),
    pytest.param("resnet8", "int8", 8, marks=pytest.mark.slow),
    pytest.param("resnet8", "pact", 4, marks=pytest.mark.slow),
    pytest.param("resnet8", "dorefa", 2, marks=pytest.mark.slow),
    pytest.param("lenet5", "int8", 8, marks=pytest.mark.slow),
    pytest.param("lenet5", "lsq", 3, marks=pytest.mark.slow),
    pytest.param("mobilenet", "int8", 8, marks=pytest.mark.slow),
]


def check(
    program: Program, pixels: np.ndarray, name: str, folder: Path, fill: bool = False
) -> Lowered:
    """Lower, write, read back, and compare with the runtime on some images."""
    for package in {"tflite": ("ai_edge_litert",), "onnx": ("onnx", "onnxruntime")}[name]:
        pytest.importorskip(package, reason="comes with qjax[export]")
    lowered = lower(program, CONTAINERS[name], observe(program, pixels), fill)
    path = folder / f"net.{name}"
    write, read, compare = {
        "tflite": (write_tflite, read_tflite, compare_tflite),
        "onnx": (write_onnx, read_onnx, compare_onnx),
    }[name]
    write(lowered.program, path)
    again = read(path)
    assert [op.kind for op in again.operators] == [op.kind for op in lowered.program.operators]
    try:
        result = compare(path, 6, image_inputs(pixels))
    except RuntimeUnfit as error:
        pytest.skip(str(error))
    assert not result.unsupported
    assert [row for row in result.results if row.mismatched or not row.compared] == []
    assert result.agreeing == result.samples == 6
    assert len(result.results) == len(lowered.program.operators)
    return lowered


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("model", "method", "bits"), CASES)
def test_a_network_equals_its_runtime(model, method, bits, container, tmp_path: Path):
    program, pixels = network(model, method, bits)
    lowered = check(program, pixels, container, tmp_path)
    found = deviation(program, lowered, pixels)
    assert found.codes > 5000 and found.largest <= 1
    # Few bits make few different sums, whose roundings then repeat.
    assert found.alone <= found.codes * (0.01 if bits > 3 else 0.03)


@pytest.mark.parametrize("container", CONTAINERS)
def test_branches_pools_and_flattened_images(container: str, tmp_path: Path):
    program, pixels = custom(Branched, "pact", 4)
    lowered = check(program, pixels, container, tmp_path)
    found = deviation(program, lowered, pixels)
    # Averages of four codes tie, and the runtimes break ties otherwise.
    assert found.largest <= 1 and found.alone <= 0.02 * found.codes
    kinds = [operator.kind for operator in lowered.program.operators]
    assert kinds.count("concat") == 1 and "sum_pool" not in kinds


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_product_with_a_sigmoid(container: str, tmp_path: Path):
    program, pixels = custom(Gated, "int8", 8)
    lowered = check(program, pixels, container, tmp_path)
    assert {"mul", "lookup"} <= {operator.kind for operator in lowered.program.operators}
    found = deviation(program, lowered, pixels)
    # The gate is rounded on the format's grid, then on its own.
    assert found.largest <= 1


def test_few_bits_are_clamped_as_the_format_can():
    program, pixels = network("small", "pact", 4)
    seen = observe(program, pixels)
    tflite, onnx = (lower(program, each, seen).program for each in CONTAINERS.values())
    # At the upper end of int8 a fused ReLU and saturation are the clamp.
    assert tflite["act1"].range == (112, 127) and tflite["act1"].units.zero == 112
    assert not [op for op in tflite.operators if isinstance(op, ops.Maximum)]
    clips = [op for op in onnx.operators if isinstance(op, ops.Clip)]
    assert [onnx[op.output].range for op in clips] == [(0, 15)] * 3
    weights = [t for t in onnx.tensors if t.dtype == "int8"]
    assert all(np.abs(t.constant.astype(int)).max() <= 64 for t in weights[2:-1])


def signed(container: Container) -> tuple[Program, Program, np.ndarray]:
    """4-bit codes on both sides of zero, which no fused ReLU can clamp."""
    from flax import nnx

    from qjax.export import program_of
    from qjax.integerize import integerize
    from qjax.methods.affine import AffineActivation, AffineWeight
    from qjax.recipe import Recipe, Rule
    from tests.test_agreement import MODELS, PIXELS, images, live

    make, side = MODELS["small"]
    pixels = images(side)
    act = AffineActivation(4)
    rules = (Rule("first", input=act), Rule("last", input=act), Rule(kind="conv", output=act))
    recipe = Recipe((*rules, Rule(weight=AffineWeight(4, per_channel=True), output=act)))
    net = live(make(rngs=nnx.Rngs(1)), recipe, pixels)
    program = program_of(integerize(net, PIXELS, pixels.shape[1:]), pixels.shape[1:])
    return program, lower(program, container, observe(program, pixels)).program, pixels


@pytest.mark.parametrize("container", CONTAINERS)
def test_signed_codes_are_clamped_from_below(container: str, tmp_path: Path):
    program, lowered, pixels = signed(CONTAINERS[container])
    kind = ops.Maximum if container == "tflite" else ops.Clip
    assert [op for op in lowered.operators if isinstance(op, kind)]
    check(program, pixels, container, tmp_path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_sums_that_meet_are_refused_or_calibrated(container: str, tmp_path: Path):
    program, pixels = network("small", "pact", 4, outputs=False)
    with pytest.raises(NotExpressible, match="'act3': 2 terms meet .* format=program and"):
        lower(program, CONTAINERS[container], observe(program, pixels))
    lowered = check(program, pixels, container, tmp_path, fill=True)
    assert "act3.term0" in {tensor.name for tensor in lowered.program.tensors}


def test_an_average_of_sums_is_refused():
    program, pixels = custom(Averaged, "pact", 4)
    with pytest.raises(NotExpressible, match="'mean': an average of sums, not of codes"):
        lower(program, TFLITE, observe(program, pixels))


def test_asymmetric_weights_of_8_bits_are_refused():
    program, pixels = network("small", "minmax", 8)
    with pytest.raises(NotExpressible, match="weight0': 8-bit weights with a zero point"):
        lower(program, TFLITE, observe(program, pixels))


def test_logits_need_a_range():
    program, _ = network("lenet5", "pact", 4)
    with pytest.raises(ValueError, match="real images must be seen"):
        lower(program, TFLITE)


def test_an_onnx_file_gives_real_logits(tmp_path: Path):
    program, pixels = network("lenet5", "pact", 4)
    lowered = lower(program, ONNX, observe(program, pixels)).program
    found, exact = runner(lowered)(pixels), runner(program)(pixels)
    logits = np.asarray(exact["logits"]) * program["logits"].units.step
    assert np.asarray(found["logits"]).dtype == np.float32
    step = lowered["logits.codes"].units.step
    # An early code that differs moves some logits further.
    assert np.median(np.abs(found["logits"] - logits)) < step
