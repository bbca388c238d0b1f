"""MobileNetV2: inverted residuals with linear bottlenecks.

Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear bottlenecks",
arXiv 1801.04381, Table 2. What leaves a block has no activation: either a convolution's own sum or
the residual addition. The next convolution needs codes, so a recipe must quantize it there: the
`output` of `*.project` and of every `add` (as TFLite does), or the `input` of `*.expand` and of
`head` (which keeps the residual sum exact). It takes both signs: no PACT, no unsigned grid at zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from qjax.layers import Act, Add, ConvBN, Dense, GlobalAvgPool, Value

STACK = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, repeats, first stride) of each row of Table 2."""

AROUND = ((1, 1), (1, 1))


class InvertedResidual(nnx.Module):
    """1x1 expansion, depthwise 3x3, 1x1 projection without activation, and x where it fits.

    Args:
        in_features, out_features: channels before and after.
        stride: of the depthwise convolution.
        expansion: inner channels as a multiple of `in_features`; 1 leaves the expansion out.
        rngs: source of the initial weights.
    """

    def __init__(
        self, in_features: int, out_features: int, stride: int, expansion: int, *, rngs: nnx.Rngs
    ):
        inner = in_features * expansion
        grows = expansion != 1
        self.expand = ConvBN(in_features, inner, 1, 1, "VALID", rngs=rngs) if grows else None
        self.act1 = Act("relu6") if grows else None
        self.depthwise = ConvBN(inner, inner, 3, stride, AROUND, inner, rngs=rngs)
        self.act2 = Act("relu6")
        self.project = ConvBN(inner, out_features, 1, 1, "VALID", rngs=rngs)
        self.add = Add() if stride == 1 and in_features == out_features else None

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, p, q, o)."""
        y = x
        if self.expand is not None and self.act1 is not None:
            y = self.act1(self.expand(y))
        y = self.project(self.act2(self.depthwise(y)))
        return y if self.add is None else self.add(y, x)


class MobileNetV2(nnx.Module):
    """Stem, inverted residuals, a last 1x1 convolution, mean, classifier.

    Args:
        in_features: image channels.
        classes: logits.
        width: multiplier of the channels, rounded to multiples of 8; the last convolution grows
            with it and never shrinks.
        stack: (expansion, channels, repeats, first stride) of each row.
        head: channels of the last convolution.
        stem_stride: 2 for ImageNet, 1 for 32x32 images.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int = 3,
        classes: int = 1000,
        width: float = 1.0,
        stack: Sequence[Sequence[int]] = STACK,
        head: int = 1280,
        stem_stride: int = 2,
        *,
        rngs: nnx.Rngs,
    ):
        channels = divisible(32 * width)
        self.stem = ConvBN(in_features, channels, 3, stem_stride, AROUND, rngs=rngs)
        self.act1 = Act("relu6")
        blocks = []
        for expansion, features, repeats, first in stack:
            features = divisible(features * width)
            for index in range(repeats):
                stride = 1 if index else first
                blocks.append(InvertedResidual(channels, features, stride, expansion, rngs=rngs))
                channels = features
        self.blocks = nnx.List(blocks)
        wide = divisible(head * max(1.0, width))
        self.head = ConvBN(channels, wide, 1, 1, "VALID", rngs=rngs)
        self.act2 = Act("relu6")
        self.mean = GlobalAvgPool()
        self.classifier = Dense(wide, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        x = self.act1(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.mean(self.act2(self.head(x))))


def divisible(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and not more than a tenth below `channels`: the rule of
    the authors' code.

    >>> divisible(24), divisible(16.8), divisible(11.2), divisible(4)
    (24, 16, 16, 8)
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
