"""MobileNet: depthwise separable convolutions.

Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications",
arXiv 1704.04861. The block is the paper's (depthwise 3x3, then pointwise 1x1, each with BN and
ReLU6); the stack is the paper's for ImageNet (`IMAGENET`) or cut to 32x32 images (`STACK`).
"""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from qjax.layers import Act, ConvBN, Dense, GlobalAvgPool, Value

STACK = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1))
"""(channels, stride) of each separable block, for 32x32 images."""

IMAGENET = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
"""The same of the paper's Table 1, behind a stem of stride 2."""


class Separable(nnx.Module):
    """Depthwise 3x3, then pointwise 1x1.

    Args:
        in_features, out_features: channels before and after.
        stride: of the depthwise convolution.
        rngs: source of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, stride: int, *, rngs: nnx.Rngs):
        around = ((1, 1), (1, 1))
        self.depthwise = ConvBN(in_features, in_features, 3, stride, around, in_features, rngs=rngs)
        self.act1 = Act("relu6")
        self.pointwise = ConvBN(in_features, out_features, 1, 1, "VALID", rngs=rngs)
        self.act2 = Act("relu6")

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, p, q, o)."""
        return self.act2(self.pointwise(self.act1(self.depthwise(x))))


class MobileNet(nnx.Module):
    """Stem, separable blocks, mean, classifier.

    Args:
        in_features: image channels.
        classes: logits.
        width: multiplier of all channels, rounded to multiples of 8.
        stack: (channels, stride) of each block.
        stem_stride: 1 for 32x32 images, 2 for ImageNet.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int = 3,
        classes: int = 10,
        width: float = 1.0,
        stack: Sequence[Sequence[int]] = STACK,
        stem_stride: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        def scaled(channels: int) -> int:
            return max(8, 8 * round(channels * width / 8))

        around = ((1, 1), (1, 1))
        self.stem = ConvBN(in_features, scaled(32), 3, stem_stride, around, rngs=rngs)
        self.act = Act("relu6")
        blocks, channels = [], scaled(32)
        for features, stride in stack:
            blocks.append(Separable(channels, scaled(features), stride, rngs=rngs))
            channels = scaled(features)
        self.blocks = nnx.List(blocks)
        self.mean = GlobalAvgPool()
        self.classifier = Dense(channels, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        x = self.act(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.mean(x))
