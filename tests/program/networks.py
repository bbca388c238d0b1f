"""Small trained-like networks as programs, with the output quantizers that exports need."""

from functools import cache

import numpy as np
from flax import nnx

from qjax.core.quantizer import Quantizer
from qjax.export import program_of
from qjax.integerize import integerize
from qjax.layers import (
    Act,
    AvgPool,
    Concat,
    ConvBN,
    Dense,
    Flatten,
    GlobalAvgPool,
    Mul,
    TableAct,
    Value,
)
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.program.program import Program
from qjax.recipe import Recipe, Rule
from tests.test_agreement import METHODS, MODELS, PIXELS, images, live

W8, A8 = AffineWeight(8, per_channel=True), AffineActivation(8)
OUTPUTS = {
    "resnet8": (Rule("blocks.*.conv2", kind="conv", output=A8),),
    "small": (Rule("conv3", kind="conv", output=A8),),
}
"""By model: what must be rounded before it is added."""


def method(name: str, bits: int) -> tuple[Quantizer, Quantizer]:
    """Quantizers of weights and activations; "int8" is symmetric min-max."""
    return (W8, A8) if name == "int8" else METHODS[name](bits, bits)


def recipe(name: str, bits: int, *rules: Rule) -> Recipe:
    """8-bit ends, and rules of a model's own."""
    weight, act = method(name, bits)
    ends = tuple(Rule(end, input=A8, weight=W8) for end in ("first", "last"))
    return Recipe((*ends, *rules, Rule(weight=weight, output=act)))


@cache
def network(model: str, name: str, bits: int, outputs: bool = True) -> tuple[Program, np.ndarray]:
    """A converted network's program, and images (n, h, w, 1) that it has seen."""
    make, side = MODELS[model]
    pixels = images(side)
    rules = OUTPUTS.get(model, ()) if outputs else ()
    net = live(make(rngs=nnx.Rngs(1)), recipe(name, bits, *rules), pixels)
    shape = pixels.shape[1:]
    return program_of(integerize(net, PIXELS, shape), shape), pixels


class Branched(nnx.Module):
    """Two convolutions side by side, an average pool, a flattened image: what others lack."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = ConvBN(1, 6, 3, rngs=rngs)
        self.act1 = Act()
        self.left = ConvBN(6, 4, 1, rngs=rngs)
        self.right = ConvBN(6, 4, 3, 1, ((1, 1), (1, 1)), groups=2, rngs=rngs)
        self.join = Concat()
        self.act2 = Act("relu6")
        self.pool = AvgPool(2)
        self.act3 = Act()
        self.flat = Flatten()
        self.classifier = Dense(32, 5, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        x = self.act1(self.conv1(x))
        x = self.act2(self.join(self.left(x), self.right(x)))
        return self.classifier(self.flat(self.act3(self.pool(x))))


class Averaged(nnx.Module):
    """A convolution whose sums are averaged before anything rounds them."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = ConvBN(1, 4, 3, rngs=rngs)
        self.mean = GlobalAvgPool()
        self.act = Act()
        self.classifier = Dense(4, 3, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        return self.classifier(self.act(self.mean(self.conv(x))))


class Gated(nnx.Module):
    """Codes times the sigmoid of them."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = ConvBN(1, 6, 3, rngs=rngs)
        self.act1 = Act()
        self.gate = TableAct("sigmoid")
        self.product = Mul()
        self.flat = Flatten()
        self.classifier = Dense(96, 5, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        x = self.act1(self.conv1(x))
        return self.classifier(self.flat(self.product(x, self.gate(x))))


@cache
def custom(make: type[nnx.Module], name: str, bits: int) -> tuple[Program, np.ndarray]:
    """As `network`, of a model class of this module; images are 4 rows by 4."""
    pixels = images(4)
    net = live(make(rngs=nnx.Rngs(1)), recipe(name, bits), pixels)  # pyright: ignore[reportCallIssue]
    shape = pixels.shape[1:]
    return program_of(integerize(net, PIXELS, shape), shape), pixels
