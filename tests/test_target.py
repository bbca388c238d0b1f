"""A deployable network has the form of a runtime's operators; a target says what it cannot hold."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.agreement import integer_law
from qjax.core.requantize import POLICIES
from qjax.export import program_of
from qjax.floatfree import check_float_free
from qjax.integerize import PixelInput, integerize
from qjax.layers.norm import FoldedCorrected, FoldedFrozen
from qjax.layers.shift_norm import ShiftNorm
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaWeight
from qjax.methods.dorefa_gradient import DoReFaGradient
from qjax.methods.lsq import Lsq
from qjax.methods.none import NoQuantizer
from qjax.methods.pact import Pact
from qjax.methods.power_of_two import PowerOfTwo
from qjax.models import resnet_imagenet
from qjax.models.mobilenet_v2 import MobileNetV2
from qjax.models.preact_resnet import PreActResNet
from qjax.models.resnet import ResNet
from qjax.program import ops
from qjax.program.program import Program
from qjax.recipe import Recipe, Rule, deployable
from qjax.surgery import fold_batch_norm, quantize
from qjax.target import Target, check_words
from qjax.tree import walk

PIXELS = PixelInput((128 / 255,) * 3, (128 / 255,) * 3)
W8, A8 = AffineWeight(8, per_channel=True), AffineActivation(8)
TFLITE = deployable(DoReFaWeight(4), Pact(4, alpha_init=3.0), W8, A8, A8)
SHIFT = deployable(*map(PowerOfTwo, (DoReFaWeight(4), Pact(4, alpha_init=3.0), W8, A8, A8)))
MODELS = {
    "resnet8": partial(ResNet, 8, width=0.5),
    "mobilenet_v2": partial(
        MobileNetV2, width=1 / 4, stack=((1, 16, 1, 1), (6, 32, 2, 2)), head=32
    ),
    "preact": partial(PreActResNet, 18, classes=10, width=1 / 8),
}


@pytest.fixture
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages instead of four."""
    monkeypatch.setitem(resnet_imagenet.STAGES, 18, (1, 1))
    monkeypatch.setattr(resnet_imagenet, "WIDTHS", (64, 128))


def images(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)


def network(name: str, recipe: Recipe, shift: bool = False):
    """A network under a recipe, quantized, in evaluation mode; 32 pixels a side."""
    model = MODELS[name](rngs=nnx.Rngs(0))
    model = fold_batch_norm(model, ShiftNorm) if shift else model
    net = quantize(model, recipe, PIXELS.normalise(jnp.asarray(images(32))))
    net.eval()
    return net


def operands(program: Program) -> list[tuple[str, ...]]:
    """Types of what each requantization reads, the logits' common grid left out."""
    return [
        tuple(program[name].dtype for name in operator.inputs)
        for operator in program.operators
        if isinstance(operator, ops.Requantize) and operator.output != "logits"
    ]


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("name", MODELS)
def test_every_rounding_is_of_one_sum_or_of_codes(name: str) -> None:
    net = network(name, TFLITE)
    program = program_of(integerize(net, PIXELS, (32, 32, 3), POLICIES["gemmlowp"]), (32, 32, 3))
    found = operands(program)
    assert set(found) <= {("int32",), ("int8",), ("int8", "int8")}
    adds = [layer for _, layer in walk(net) if layer.kind == "add"]
    assert found.count(("int8", "int8")) == len(adds) > 0
    for tensor in program.tensors:
        if tensor.dtype == "int8" and tensor.data is None and tensor.name != "codes":
            low, high = tensor.range
            assert tensor.units.axis is None or np.ptp(tensor.units.scale.value) == 0
            assert low <= tensor.units.zero <= high, "real zero has a code"


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("name", MODELS)
def test_a_network_that_only_shifts_is_its_simulation(name: str) -> None:
    net = network(name, SHIFT, shift=True)
    shape = (32, 32, 3)
    converted = integerize(net, PIXELS, shape, POLICIES["shift"])
    assert converted.float_layers == () and check_float_free(converted, shape) == []
    for place, found in integer_law(net, converted, images(32)).items():
        assert found.differing <= 1e-4 * found.codes and found.distance <= 1e-3, place
        assert found.levels >= 4, place


def test_shifts_need_powers_of_two_and_the_layer_is_named() -> None:
    target = Target("shift", SHIFT, "shift")
    with pytest.raises(ValueError, match=r"target=shift: layer 'act' .* power-of-two"):
        target.check(network("resnet8", SHIFT), PIXELS, (32, 32, 3))
    target.check(network("resnet8", SHIFT, shift=True), PIXELS, (32, 32, 3))


@pytest.mark.parametrize(
    ("recipe", "weights", "message"),
    [
        (deployable(Lsq(8), Pact(4), W8, A8, A8), (-127, 127), "Lsq gives layer .* from -128 to"),
        (
            deployable(DoReFaWeight(8), Pact(4), W8, A8, A8),
            (-128, 127),
            "integers from -255 to 255",
        ),
        (deployable(AffineWeight(8, False), Pact(4), W8, A8, A8), (-128, 127), "weight=minmax"),
        (deployable(Lsq(4), Pact(4), W8, A8, A8), (-63, 63), "AffineWeight gives layer"),
        (deployable(NoQuantizer(), Pact(4), W8, A8, A8), (-127, 127), "the weight of layer 'blo"),
    ],
)
def test_weights_that_a_kernel_cannot_hold(recipe: Recipe, weights, message: str) -> None:
    net = network("resnet8", recipe)
    with pytest.raises(ValueError, match=message):
        Target("tflite", recipe, "gemmlowp", weights).check(net, PIXELS, (32, 32, 3))
    Target("academic", recipe, integer=False).check(net, PIXELS, (32, 32, 3))


def test_a_target_keeps_the_gradient_quantizers_of_a_recipe() -> None:
    error = DoReFaGradient(6)
    method = Recipe((Rule("first", weight=W8, error=NoQuantizer()), Rule(weight=W8, error=error)))
    placed = Target("tflite", TFLITE).placing(method)
    assert placed.name == "deployable" and placed.rules[2:] == TFLITE.rules
    assert [rule.error for rule in placed.rules[:2]] == [NoQuantizer(), error]
    assert not any(rule.weight or rule.output or rule.input for rule in placed.rules[:2])


def test_fields_are_checked() -> None:
    with pytest.raises(ValueError, match="policy must be one of"):
        Target("tflite", TFLITE, "q32")
    with pytest.raises(ValueError, match=r"Target.weights must be two numbers .* got \[0, 255\]"):
        Target("tflite", TFLITE, weights=(0, 255))


def test_a_target_may_keep_batch_normalization_separate() -> None:
    kept = Target("academic", TFLITE, norm_folds=False)
    for folding in (FoldedFrozen, FoldedCorrected):
        words = f"target=academic keeps .* bn chooses {folding.__name__}, .* leave bn out"
        with pytest.raises(ValueError, match=words):
            kept.batch_norm(folding)
        assert Target("tflite", TFLITE).batch_norm(folding) is folding
    assert kept.batch_norm(None) is None and kept.batch_norm(ShiftNorm) is ShiftNorm
    assert Target("shift", SHIFT, norm=ShiftNorm).batch_norm(None) is ShiftNorm


def test_words_that_a_target_decides() -> None:
    check_words(["recipe=all", "run.policy=q31"], None)
    check_words(["bn=folded_correction", "w_bits=2", "target.policy=q31"], "tflite")
    for word in ("recipe=all", "recipe.weight.bits=2", "pixels=symmetric", "+pixels=symmetric"):
        with pytest.raises(ValueError, match="target=tflite decides what"):
            check_words(["seed=1", word], "tflite")
