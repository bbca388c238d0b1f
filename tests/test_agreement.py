"""The integer law: fed the same codes, a converted network rounds as its simulation does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.agreement import compare, integer_law
from qjax.core.quantizer import Quantizer
from qjax.floatfree import check_float_free, float_values
from qjax.integerize import PixelInput, integerize
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaActivation, DoReFaWeight
from qjax.methods.lsq import Lsq
from qjax.methods.none import NoQuantizer
from qjax.methods.pact import Pact
from qjax.models.lenet import LeNet5
from qjax.models.mobilenet import MobileNet
from qjax.models.resnet import ResNet
from qjax.models.small import SmallCNN
from qjax.recipe import Recipe, Rule, ends_8bit, ends_float
from qjax.surgery import quantize, slots

PIXELS = PixelInput((0.47,), (0.23,))
ENDS = AffineWeight(8, per_channel=True), AffineActivation(8)
METHODS = {
    "pact": lambda w, a: (DoReFaWeight(w), Pact(a, alpha_init=3.0)),
    "dorefa": lambda w, a: (DoReFaWeight(w), DoReFaActivation(a)),
    "lsq": lambda w, a: (Lsq(w), Lsq(a, signed=False)),
    "minmax": lambda w, a: (
        AffineWeight(w, symmetric=False, per_channel=True),
        AffineActivation(a),
    ),
}
MODELS = {
    "small": (partial(SmallCNN, width=8), 8),
    "resnet8": (partial(ResNet, 8, 1, width=0.5), 16),
    "lenet5": (partial(LeNet5, image=12, widths=(4, 8, 16)), 12),
    "mobilenet": (partial(MobileNet, 1, width=0.25, stack=((16, 1), (16, 2))), 12),
}


def images(side: int, count: int = 24) -> np.ndarray:
    """Smooth random images, uint8 (n, side, side, 1)."""
    noise = np.random.default_rng(3).normal(size=(count, side + 2, side + 2))
    smooth = sum(noise[:, i : i + side, j : j + side] for i in range(3) for j in range(3))
    return np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8)[..., None]


def live(model: nnx.Module, recipe: Recipe, pixels: np.ndarray) -> nnx.Module:
    """A quantized network whose running statistics have settled on the images."""
    x = PIXELS.normalise(jnp.asarray(pixels))
    net = quantize(model, recipe, x)
    graph, state = nnx.split(net)

    @jax.jit
    def settle(state: nnx.State) -> nnx.State:
        copy = nnx.merge(graph, state, copy=True)
        copy.train()
        for _ in range(1):
            copy(x)  # pyright: ignore[reportCallIssue]
        copy.eval()
        return nnx.split(copy)[1]

    for _ in range(40):
        state = settle(state)
    nnx.update(net, state)
    net.eval()
    return net


def check_law(name: str, weight: Quantizer, act: Quantizer) -> tuple[int, int]:
    """Convert a live network and judge every rounding; (differing codes, codes)."""
    make, side = MODELS[name]
    pixels = images(side)
    net = live(make(rngs=nnx.Rngs(1)), ends_8bit(weight, act, *ENDS), pixels)
    network = integerize(net, PIXELS, (side, side, 1))
    assert check_float_free(network, (side, side, 1)) == []
    differing = total = 0
    for place, found in integer_law(net, network, pixels).items():
        assert found.levels > 2 and found.saturated < 0.97, f"{place} is dead: it agrees trivially"
        assert found.distance <= 1e-3, place
        differing, total = differing + found.differing, total + found.codes
    return differing, total


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("method", METHODS)
def test_methods_and_widths(method: str, bits: int) -> None:
    differing, total = check_law("small", *METHODS[method](bits, bits))
    assert differing <= 1e-4 * total


@pytest.mark.parametrize("name", ["resnet8", "lenet5", "mobilenet"])
def test_models(name: str) -> None:
    differing, total = check_law(name, *METHODS["pact"](4, 4))
    assert differing <= 1e-4 * total


def test_weight_codes_of_the_program_are_those_of_encode() -> None:
    """The integer weights, decoded, are the weights that the compiled simulation multiplies by."""
    net = quantize(
        SmallCNN(width=8, rngs=nnx.Rngs(0)),
        ends_8bit(DoReFaWeight(4), Pact(4), *ENDS),
        PIXELS.normalise(jnp.asarray(images(8))),
    )
    for place, slot in slots(net).items():
        if place.endswith(".weight"):
            kernel = getattr(net, place.split(".")[0]).kernel[...]
            simulated = jax.jit(lambda w, slot=slot: slot.quantizer(slot.values(), w))(kernel)
            np.testing.assert_allclose(slot.encode(kernel).decode(), simulated, atol=1e-6)


def test_end_to_end_agreement_and_float_ends() -> None:
    pixels = images(8)
    net = live(
        SmallCNN(width=8, rngs=nnx.Rngs(2)),
        ends_float(DoReFaWeight(4), Pact(4, alpha_init=3.0), NoQuantizer()),
        pixels,
    )
    network = integerize(net, PIXELS, (8, 8, 1))
    assert network.float_layers == ("conv1", "classifier")
    assert check_float_free(network, (8, 8, 1)) == []
    agreement = compare(net, network, [pixels[:10], pixels[10:]])
    assert agreement.images == len(pixels) and agreement.predictions == 1.0
    assert max(agreement.differing.values()) <= 1e-3


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: (x * 1.5).astype(jnp.int32),
        lambda x: jax.jit(lambda y: y.astype(jnp.float32).astype(jnp.int32))(x),
        lambda x: jax.lax.cond(x[0] > 0, lambda y: (y * 0.5).astype(jnp.int32), lambda y: y, x),
        lambda x: x + jnp.asarray(np.array([0.5], np.float32)).astype(jnp.int32),
    ],
)
def test_a_float_anywhere_is_found(fun) -> None:
    assert float_values(fun, jnp.ones(3, jnp.int32))
    assert not float_values(lambda x: x * 2 + 1, jnp.ones(3, jnp.int32))


def test_pending_sums_into_a_dense_layer_name_it_and_the_remedy() -> None:
    first = Rule("first", weight=ENDS[0], input=ENDS[1])
    recipe = Recipe((first, Rule(weight=DoReFaWeight(4), output=Pact(4))))
    net = quantize(
        SmallCNN(width=8, rngs=nnx.Rngs(0)), recipe, PIXELS.normalise(jnp.asarray(images(8)))
    )
    with pytest.raises(ValueError, match=r"layer 'classifier' has no integer form.*`input` quant"):
        integerize(net, PIXELS, (8, 8, 1))
