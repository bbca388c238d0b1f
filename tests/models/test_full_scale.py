"""The networks of the papers: as large as published, and, made tiny, quantized and integer."""

from collections.abc import Callable
from typing import NamedTuple

import hydra
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from omegaconf import OmegaConf

from qjax.agreement import integer_law
from qjax.floatfree import check_float_free
from qjax.integerize import PixelInput, integerize
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.pact import Pact
from qjax.models import preact_resnet, resnet_imagenet
from qjax.models.alexnet import AlexNetBN
from qjax.models.mobilenet import IMAGENET, MobileNet
from qjax.models.mobilenet_v2 import STACK, MobileNetV2
from qjax.models.preact_resnet import PreActResNet
from qjax.models.resnet_imagenet import ImageNetResNet
from qjax.models.vgg import VggSmall
from qjax.recipe import Recipe, Rule, ends_8bit
from qjax.surgery import layer_table, quantize
from qjax.train import CONF

pytestmark = pytest.mark.slow

Make = Callable[[nnx.Rngs], nnx.Module]
PIXELS = PixelInput((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ENDS = AffineWeight(8, per_channel=True), AffineActivation(8)
BODY = ends_8bit(AffineWeight(4, per_channel=True), Pact(4, alpha_init=3.0), *ENDS)
LINEAR = (
    Rule("blocks.*.project", kind="conv", output=AffineActivation(8)),
    Rule(kind="add", output=AffineActivation(8)),
)
"""Where a bottleneck ends without an activation: as TFLite quantizes it."""


class Tiny(NamedTuple):
    """A network small enough for a test.

    Attributes:
        make: builds it.
        side: of its images.
        linear: rules beside those of any network.
    """

    make: Make
    side: int
    linear: tuple[Rule, ...] = ()


def resnet(depth: int) -> Make:
    return lambda rngs: ImageNetResNet(depth, classes=10, width=1 / 8, rngs=rngs)


def preact(depth: int) -> Make:
    return lambda rngs: PreActResNet(depth, classes=10, width=1 / 8, rngs=rngs)


TINY = {
    "vgg": Tiny(lambda r: VggSmall(image=8, widths=(6, 8, 8), rngs=r), 8),
    "vgg-hidden": Tiny(lambda r: VggSmall(image=8, widths=(6, 8, 8), hidden=12, rngs=r), 8),
    "alexnet": Tiny(
        lambda r: AlexNetBN(classes=10, image=44, widths=(8, 12, 16, 16, 12, 24), rngs=r), 44
    ),
    "resnet18": Tiny(resnet(18), 32),
    "resnet50": Tiny(resnet(50), 32),
    "preact18": Tiny(preact(18), 32),
    "preact50": Tiny(preact(50), 32),
    "mobilenet_v1": Tiny(
        lambda r: MobileNet(3, 10, 1 / 8, ((64, 1), (128, 2), (128, 1)), 2, rngs=r), 32
    ),
    "mobilenet_v2": Tiny(
        lambda r: MobileNetV2(3, 10, 1 / 4, ((1, 16, 1, 1), (6, 32, 2, 2)), 32, rngs=r),
        32,
        LINEAR,
    ),
}


@pytest.fixture
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages instead of four; basic blocks with and without projection."""
    monkeypatch.setitem(resnet_imagenet.STAGES, 18, (1, 2))
    monkeypatch.setitem(resnet_imagenet.STAGES, 50, (1, 1))
    monkeypatch.setattr(resnet_imagenet, "WIDTHS", (64, 128))


def images(side: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def check(tiny: Tiny) -> None:
    """Quantize, convert, and hold the integer law."""
    pixels = images(tiny.side)
    sample = PIXELS.normalise(jnp.asarray(pixels))
    recipe = Recipe((*tiny.linear, *BODY.rules))
    model = quantize(tiny.make(nnx.Rngs(0)), recipe, sample)
    model.eval()
    shape = (tiny.side, tiny.side, 3)
    network = integerize(model, PIXELS, shape)
    assert network.float_layers == ()
    assert check_float_free(network, shape) == []
    law = integer_law(model, network, pixels)
    assert law
    for place, found in law.items():
        # Of few codes one may lie on a boundary.
        assert found.differing <= max(1, 1e-4 * found.codes) and found.distance < 1e-3, place
        assert found.levels >= 4 and found.saturated < 0.98, place


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n in ("alexnet", "resnet50") else [])
        for n in TINY
    ],
)
def test_a_tiny_one_becomes_integer(name: str) -> None:
    check(TINY[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "tiny",
    [
        Tiny(resnet(18), 64),
        Tiny(resnet(50), 64),
        Tiny(preact(18), 64),
        Tiny(preact(50), 64),
        Tiny(lambda r: MobileNet(3, 10, 1 / 8, IMAGENET, 2, rngs=r), 64),
        Tiny(lambda r: MobileNetV2(3, 10, 1 / 4, STACK, 32, rngs=r), 64, LINEAR),
    ],
    ids=["resnet18", "resnet50", "preact18", "preact50", "mobilenet_v1", "mobilenet_v2"],
)
def test_one_of_full_depth_becomes_integer(tiny: Tiny) -> None:
    check(tiny)


@pytest.mark.parametrize(
    "name, parameters",
    [
        # Those of the reference implementations with the same layers.
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("mobilenet_v1", 4_231_976),
        ("mobilenet_v2", 3_504_872),
    ],
)
def test_a_full_one_has_the_published_number_of_parameters(name: str, parameters: int) -> None:
    values = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    del values["name"]  # pyright: ignore
    make = hydra.utils.instantiate(values, classes=1000, in_features=3, _partial_=True)
    model = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == parameters


def test_the_file_of_mobilenet_v1_holds_the_papers_table() -> None:
    values = OmegaConf.load(CONF / "model" / "mobilenet_v1.yaml")
    assert tuple(map(tuple, values.stack)) == IMAGENET  # pyright: ignore


@pytest.mark.usefixtures("few_blocks")
def test_a_bottleneck_that_nothing_quantizes_is_named_with_the_remedy() -> None:
    tiny = TINY["mobilenet_v2"]
    sample = PIXELS.normalise(jnp.asarray(images(32, 2)))
    model = quantize(tiny.make(nnx.Rngs(0)), BODY, sample)
    with pytest.raises(ValueError, match=r"'blocks\.1\.expand' .* give this layer an `input`"):
        integerize(model, PIXELS, (32, 32, 3))


@pytest.mark.usefixtures("few_blocks")
def test_the_residual_sum_of_preactivation_keeps_its_precision() -> None:
    sample = PIXELS.normalise(jnp.asarray(images(32, 2)))
    model = quantize(preact(18)(nnx.Rngs(0)), BODY, sample)
    rows = {row.path: row for row in layer_table(model, sample)}
    assert all("output" not in row.quantizers for row in rows.values() if row.kind == "add")
    assert rows["blocks.1.act1"].quantizers == {"output": "Pact"}


@pytest.mark.parametrize("module", [resnet_imagenet.ImageNetResNet, preact_resnet.PreActResNet])
def test_a_depth_of_no_table_is_refused(module: type) -> None:
    with pytest.raises(ValueError, match="depth must be one of .*, got 20"):
        module(20, rngs=nnx.Rngs(0))


def test_images_of_another_side_are_refused() -> None:
    model = AlexNetBN(classes=10, image=44, widths=(8, 12, 16, 16, 12, 24), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"set model\.image=32"):
        model(jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="VggSmall.image must be a multiple of 8, got 30"):
        VggSmall(image=30, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="AlexNetBN.image must be at least 44, got 40"):
        AlexNetBN(image=40, rngs=nnx.Rngs(0))
